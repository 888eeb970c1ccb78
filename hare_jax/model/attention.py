"""Grouped-query attention: one function, with a choice of kernels.

Shapes: B rows, T queries, S keys, H query heads, G key-value heads, K width of a head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.config import AttentionKernel, Model
from hare_jax.model.kernels import cudnn, splash, xla
from hare_jax.model.kernels.request import AttentionRequest, request_of
from hare_jax.model.kernels.xla import visible_BTS

RESIDUAL = "attention_residual"  # checkpoint name of what the backward pass of a fused kernel reads


def attention(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    *,
    positions: tuple[Array, Array],
    segments: tuple[Array, Array] | None,
    window: int | None = None,
    kernel: AttentionKernel = AttentionKernel.AUTO,
    max_segments: int = 32,
) -> Array:
    """Computes causal attention within segments, scaled by 1/sqrt(K), with softmax in float32.

    Query head h attends to key-value head h // (H / G). If there are as many keys as queries, the
    tokens of a segment must be adjacent and in order, as in a batch: the fused kernels (cudnn,
    splash) do not read positions.

    Args:
      q_BTHK: queries.
      k_BSGK: keys.
      v_BSGK: values.
      positions: of queries [B, T] and of keys [B, S]; see `visible_BTS`.
      segments: likewise; None: each row is one document, at positions 0, 1, ...
      window: keys that a query sees, itself included; None: all before it.
      kernel: AUTO takes the first one that can compute this.
      max_segments: with kernel cudnn, a row of more segments gives NaN; a run of padding counts as
        one segment.

    Returns:
      [B, T, H, K] in the dtype of `q_BTHK`.

    Raises:
      ValueError: if `kernel` cannot compute this on this platform.
    """
    kernel = choose(kernel, request_of(q_BTHK, k_BSGK, packed=segments is not None))
    segments_BT = None if segments is None else segments[0]
    if kernel is AttentionKernel.CUDNN:
        return cudnn.attend(q_BTHK, k_BSGK, v_BSGK, segments_BT, window, max_segments)
    if kernel is AttentionKernel.SPLASH:
        return splash.attend(q_BTHK, k_BSGK, v_BSGK, segments_BT, window, RESIDUAL)

    def visible(queries: slice, keys: slice) -> Array:
        return visible_BTS(
            (positions[0][:, queries], positions[1][:, keys]),
            None if segments is None else (segments[0][:, queries], segments[1][:, keys]),
            window,
        )

    return xla.attend(q_BTHK, k_BSGK, v_BSGK, visible)


def choose(kernel: AttentionKernel, request: AttentionRequest) -> AttentionKernel:
    """Returns the kernel that runs: AUTO takes the first of splash, cudnn and xla that supports it.

    Raises ValueError if `kernel` does not support the request.
    """
    refusals = {
        AttentionKernel.SPLASH: splash.refusal(request),
        AttentionKernel.CUDNN: cudnn.refusal(request),
        AttentionKernel.XLA: None,
    }
    if kernel is AttentionKernel.AUTO:
        return next(supported for supported, reason in refusals.items() if reason is None)
    if refusals[kernel] is not None:
        raise ValueError(
            f"attention kernel {kernel.value!r} {refusals[kernel]}; "
            "use attention=AttentionKernel.AUTO"
        )
    return kernel


def kernel_of(config: Model, rows: int, length: int) -> AttentionKernel:
    """Returns the kernel that runs for packed batches of `rows` x `length`, on the current mesh.

    Raises ValueError if the kernel that `config` names does not support them.
    """
    q, k = (
        jax.ShapeDtypeStruct((rows, length, heads, config.head_dim), config.compute_dtype.value)
        for heads in (config.num_heads, config.num_kv_heads)
    )
    return choose(config.attention, request_of(q, k, packed=True))


def rope_tables(positions_BT: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """Computes cos and sin of position / theta^(2i / K), float32 [B, T, K/2] each."""
    frequency_K = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle_BTK = positions_BT[:, :, None].astype(jnp.float32) * frequency_K[None, None, :]
    return jnp.cos(angle_BTK), jnp.sin(angle_BTK)


def rope_rows(positions_BT: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """Computes the same as `rope_tables`, for positions below T; a higher one gives NaN.

    The rows are read from a table of T positions. XLA regards a cosine as cheap, and would compute
    `rope_tables` again for each head of each layer that is not scanned: 4 % of a step on a CPU.
    """
    tables_1TK = rope_tables(jnp.arange(positions_BT.shape[1])[None], head_dim, theta)
    cos_TK, sin_TK = (table_1TK[0] for table_1TK in tables_1TK)

    def rows(table_TK: Array) -> Array:
        return table_TK.at[positions_BT].get(mode="fill", fill_value=jnp.nan)

    return rows(cos_TK), rows(sin_TK)


def rotate(x_BTHK: Array, tables: tuple[Array, Array]) -> Array:
    """Applies rotary positions (arXiv 2104.09864) to pairs (i, i + K/2), like Hugging Face."""
    cos_BTHK, sin_BTHK = (table[:, :, None, :] for table in tables)
    # (low, high) is rotated by the angle: low cos - high sin, high cos + low sin.
    low, high = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    rotated = (low * cos_BTHK - high * sin_BTHK, high * cos_BTHK + low * sin_BTHK)
    return jnp.concatenate(rotated, axis=-1).astype(x_BTHK.dtype)

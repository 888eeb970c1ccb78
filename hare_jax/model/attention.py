"""Grouped-query attention: one function, kernels by an enum.

Shapes: B rows, T queries, S keys, H query heads, G key-value heads, K numbers a head.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.config import AttentionKernel, Model
from hare_jax.model.kernels import cudnn, splash, xla
from hare_jax.model.kernels.request import AttentionRequest, request
from hare_jax.model.kernels.xla import visible_BTS

RESIDUAL = "attention_residual"  # checkpoint name of what a fused kernel's backward pass needs


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
    """Attends, scaled by 1/sqrt(K), softmax in float32; [B, T, H, K] in the dtype of `q_BTHK`.

    `positions`, `segments` and `window`: see `visible_BTS`. Query head h reads key-value head
    h // (H / G). `segments=None` says that each row is one document, at positions 0, 1, ...

    Where there are as many keys as queries, the tokens of a segment stand side by side and in
    order, as a batch has them: the fused kernels (cudnn, splash) read no positions. With cudnn a
    row of more than `max_segments` segments, a stretch of padding counted as one, comes back as
    not-a-number.

    Raises ValueError where `kernel` cannot do this, on this platform.
    """
    kernel = choose(kernel, request(q_BTHK, k_BSGK, packed=segments is not None))
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


def choose(kernel: AttentionKernel, asked: AttentionRequest) -> AttentionKernel:
    """The kernel that runs: AUTO takes the first of splash, cudnn and xla that can.

    Raises ValueError where `kernel` itself cannot do what is asked.
    """
    refusals = {
        AttentionKernel.SPLASH: splash.refusal(asked),
        AttentionKernel.CUDNN: cudnn.refusal(asked),
        AttentionKernel.XLA: None,
    }
    if kernel is AttentionKernel.AUTO:
        return next(able for able, refusal in refusals.items() if refusal is None)
    if refusals[kernel] is not None:
        raise ValueError(
            f"attention kernel {kernel.value!r} {refusals[kernel]}; "
            "use attention=AttentionKernel.AUTO"
        )
    return kernel


def kernel_of(config: Model, rows: int, length: int) -> AttentionKernel:
    """The kernel that runs for packed batches of so many rows and tokens, on the mesh that is set.

    Raises ValueError where the one that `config` names cannot.
    """
    q, k = (
        jax.ShapeDtypeStruct((rows, length, heads, config.head_dim), config.compute_dtype.value)
        for heads in (config.num_heads, config.num_kv_heads)
    )
    return choose(config.attention, request(q, k, packed=True))


def rope_tables(positions_BT: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """cos and sin of position / theta^(2i / K), float32 [B, T, K/2]."""
    frequency_K = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle_BTK = positions_BT[:, :, None].astype(jnp.float32) * frequency_K[None, None, :]
    return jnp.cos(angle_BTK), jnp.sin(angle_BTK)


def rope_rows(positions_BT: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """As `rope_tables`, for positions below T; a higher one gives not-a-number.

    They are picked from a table. A cosine is cheap to XLA, so that it would compute them again for
    each head of each layer that is not scanned: 4 % of a step on a CPU.
    """
    tables_1TK = rope_tables(jnp.arange(positions_BT.shape[1])[None], head_dim, theta)
    cos_TK, sin_TK = (table_1TK[0] for table_1TK in tables_1TK)

    def rows(table_TK: Array) -> Array:
        return table_TK.at[positions_BT].get(mode="fill", fill_value=jnp.nan)

    return rows(cos_TK), rows(sin_TK)


def rotate(x_BTHK: Array, tables: tuple[Array, Array]) -> Array:
    """Rotary positions (arXiv 2104.09864), pairing element i with i + K/2 as Hugging Face does."""
    cos_BTHK, sin_BTHK = (table[:, :, None, :] for table in tables)
    low, high = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    rotated = (low * cos_BTHK - high * sin_BTHK, high * cos_BTHK + low * sin_BTHK)
    return jnp.concatenate(rotated, axis=-1).astype(x_BTHK.dtype)

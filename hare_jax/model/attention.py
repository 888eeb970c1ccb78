"""Grouped-query attention: one function, with a choice of kernels.

Shapes: B rows, T queries, S keys, H query heads, G key-value heads, K width of a head.
"""

from __future__ import annotations

import jax
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

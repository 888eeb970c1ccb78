"""The splash attention kernel of JAX for TPU (Pallas), which skips fully masked blocks.

Shapes: see hare_jax.model.attention; queries and keys are the same T tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax import Array

from hare_jax.model.kernels.request import AttentionRequest, on_each_device, platform

LANES = 128  # T must be a multiple of this
# The largest one that divides T is used. Scores of one head are float32 [block, block] in the
# chip's fast memory: 4 MiB for 1024, of 16 MiB that a kernel gets by default.
BLOCKS = (1024, 512, 256, 128)
# The fused backward kernel computes the scores once for the gradients of q, k and v, not twice. It
# writes a gradient of q for each block of keys, which are then summed: T / block times the memory
# of q. From this number of blocks on, two kernels run instead.
MAX_FUSED_BLOCKS = 8


def refusal(request: AttentionRequest) -> str | None:
    """Returns why the kernel does not support the request; None if it does."""
    if request.platform != "tpu":
        return f"needs a TPU, got platform {request.platform!r}"
    if request.queries != request.keys or request.queries % LANES:
        return (
            f"needs as many queries as keys, a multiple of {LANES}, got {request.queries} and "
            f"{request.keys}"
        )
    if not request.shares:
        return "needs rows and key-value heads that the mesh divides evenly"
    return None


def attend(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
    window: int | None,
    residual: str,
) -> Array:
    """Computes causal attention within each segment, without communication between devices.

    The kernel is interpreted if the platform is not a TPU, for tests.

    Args:
      q_BTHK: queries.
      k_BTGK: keys.
      v_BTGK: values.
      segments_BT: int32; None: each row is one document.
      window: keys that a query sees, itself included; None: all before it.
      residual: checkpoint name of what the backward kernels read of the forward kernel.

    Returns:
      [B, T, H, K] in the dtype of `q_BTHK`.
    """
    kernel = partial(_one_device, window=window, residual=residual)
    return on_each_device(kernel, q_BTHK, k_BTGK, v_BTGK, segments_BT)


def _one_device(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
    *,
    window: int | None,
    residual: str,
) -> Array:
    """Calls the kernel for the rows and heads of one device."""
    from jax.experimental.pallas.ops.tpu import splash_attention  # slow to import

    T, H, K = q_BTHK.shape[1:]
    kernel = _kernel(T, H, window, residual)
    q_BHTK, k_BGTK, v_BGTK = (a.swapaxes(1, 2) for a in (q_BTHK * K**-0.5, k_BTGK, v_BTGK))
    if segments_BT is None:
        return jax.vmap(kernel)(q_BHTK, k_BGTK, v_BGTK).swapaxes(1, 2)
    segments = splash_attention.SegmentIds(segments_BT, segments_BT)
    return jax.vmap(kernel)(q_BHTK, k_BGTK, v_BGTK, segments).swapaxes(1, 2)


def _kernel(T: int, H: int, window: int | None, residual: str) -> Any:
    """Builds the kernel of one row: (q_HTK, k_GTK, v_GTK, segments) -> [H, T, K]."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    block = next(size for size in BLOCKS if T % size == 0)
    is_fused = T // block < MAX_FUSED_BLOCKS
    mask = (
        splash_attention.CausalMask((T, T))
        if window is None
        else splash_attention.LocalMask((T, T), (window - 1, 0), offset=0)
    )
    return splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * H),
        block_sizes=splash_attention.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=None if is_fused else block,
            block_kv_dq=None if is_fused else block,
            use_fused_bwd_kernel=is_fused,
        ),
        head_shards=1,  # of the heads of this device
        q_seq_shards=1,
        residual_checkpoint_name=residual,
        interpret=platform() != "tpu",
    )

"""cuDNN's flash attention for packed rows, through the internal JAX function that calls it.

`jax.nn.dot_product_attention` takes no segment ids: documents packed into one row would attend to
each other. The function below it takes, for each row, the offset and the length of each segment;
both are computed here from segment ids, on the device.

Tests without a GPU check the offsets against an oracle; attention computed from the flat memory
that the offsets point into against the plain kernel, with grouped heads and a window; and the
lowering for CUDA, forward and backward, to cuDNN calls with lengths and offsets among the operands.
The result of cuDNN itself can only be checked on a GPU.

Shapes: see hare_jax.model.attention; M is the maximum number of segments in a row. Queries and keys
are the same T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax._src.cudnn import fused_attention_stablehlo as fused

from hare_jax.model.kernels.request import AttentionRequest, on_each_device

# Before this version JAX computes offsets of grouped keys with the stride of the queries
# (jax-ml/jax#39521).
GROUPED_OFFSETS = (0, 11, 1)


def refusal(request: AttentionRequest) -> str | None:
    """Returns why the kernel does not support the request; None if it does."""
    if request.platform != "gpu":
        return f"needs a GPU, got platform {request.platform!r}"
    if request.dtype not in ("bfloat16", "float16"):
        return f"computes in bfloat16 or float16, got {request.dtype}"
    if request.queries != request.keys:
        return f"needs as many queries as keys, got {request.queries} and {request.keys}"
    hopper = fused.check_compute_capability("9.0")
    if request.head_dim % 8 or request.head_dim > (256 if hopper else 128):
        return (
            "needs a head_dim that is a multiple of 8, at most 128 (256 from Hopper on), got "
            f"{request.head_dim}"
        )
    if request.packed and not hopper:
        return "supports the segments of packed rows from Hopper on, got an older GPU"
    if not request.shares:
        return "needs rows and key-value heads that the mesh divides evenly"
    return None


def attend(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
    window: int | None,
    max_segments: int,
) -> Array:
    """Computes causal attention within each segment, without communication between devices.

    Args:
      q_BTHK: queries.
      k_BTGK: keys.
      v_BTGK: values.
      segments_BT: int32; None: each row is one document.
      window: keys that a query sees, itself included; None: all before it.
      max_segments: a row of more segments gives NaN, so that no document can attend to another.

    Returns:
      [B, T, H, K] in the dtype of `q_BTHK`.
    """
    kernel = partial(_one_device, window=window, max_segments=max_segments)
    return on_each_device(kernel, q_BTHK, k_BTGK, v_BTGK, segments_BT)


def segment_spans(segments_BT: Array, max_segments: int) -> tuple[Array, Array, Array]:
    """Computes offset and length of each segment of each row.

    Every run of equal ids is a segment, including padding, so that every token is computed. The row
    `1 1 1 2 2 0` with M = 4 has offsets `0 3 5 -1 -1` and lengths `3 2 1 -1`.

    Returns:
      (offsets, lengths, fits): int32 [B, M + 1] and int32 [B, M], -1 where there is no segment, and
      bool [B], whether the row has at most M segments.
    """
    changes_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    # Number of the run that each token is in, from 0: the changes before it.
    run_BT = jnp.pad(jnp.cumsum(changes_BT, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    runs_M = jnp.arange(max_segments, dtype=jnp.int32)
    lengths_BM = (run_BT[:, :, None] == runs_M[None, None, :]).sum(axis=1, dtype=jnp.int32)
    # A segment begins where the lengths before it end.
    offsets_BM = jnp.cumsum(lengths_BM, axis=1, dtype=jnp.int32) - lengths_BM
    exists_BM = lengths_BM > 0
    lengths_BM, offsets_BM = (jnp.where(exists_BM, a, -1) for a in (lengths_BM, offsets_BM))
    offsets_BM = jnp.pad(offsets_BM, ((0, 0), (0, 1)), constant_values=-1)
    return offsets_BM, lengths_BM, run_BT[:, -1] < max_segments


@contextmanager
def as_on_hopper(cudnn_version: int = 91200) -> Iterator[None]:
    """Makes JAX trace for a Hopper GPU that is not attached, for ahead-of-time lowering."""
    checks = fused.check_compute_capability, fused.check_cudnn_version
    fused.check_compute_capability = lambda capability: True
    fused.check_cudnn_version = lambda: cudnn_version
    try:
        yield
    finally:
        fused.check_compute_capability, fused.check_cudnn_version = checks


def _one_device(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
    *,
    window: int | None,
    max_segments: int,
) -> Array:
    """Calls cuDNN for the rows and heads of one device."""
    call = partial(
        fused.dot_product_attention,
        scale=q_BTHK.shape[-1] ** -0.5,
        sliding_window_length=window,
        qkv_layout="BTNH",
    )
    if segments_BT is None:
        return call(q_BTHK, k_BTGK, v_BTGK, mask_type=fused.MaskType.CAUSAL)
    offsets_BM, lengths_BM, fits_B = segment_spans(segments_BT, max_segments)
    # Rows with too many segments give NaN, which the loss detects.
    k_BTGK = jnp.where(fits_B[:, None, None, None], k_BTGK, jnp.nan)
    if jax.__version_info__ < GROUPED_OFFSETS:
        group = q_BTHK.shape[2] // k_BTGK.shape[2]
        k_BTGK, v_BTGK = (jnp.repeat(a, group, axis=2) for a in (k_BTGK, v_BTGK))
    return call(
        q_BTHK,
        k_BTGK,
        v_BTGK,
        q_seqlen=lengths_BM,
        kv_seqlen=lengths_BM,
        q_offsets=offsets_BM,
        kv_offsets=offsets_BM,
        mask_type=fused.MaskType.PADDING_CAUSAL,
    )

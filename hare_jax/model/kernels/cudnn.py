"""cuDNN's flash attention, by the layer of JAX that calls it, documents told apart by offsets.

`jax.nn.dot_product_attention` takes no segment ids, and rows packed with documents would silently
attend across them. The layer below it takes, for each row, where its segments begin and how long
they are; both are derived here from segment ids, on the device.

Checked without a GPU, by tests: the offsets against an oracle; attention computed from the flat
memory that the offsets point into, equal to the plain kernel, grouped heads and window included;
lowering for CUDA, forward and backward, to cuDNN's calls with lengths and offsets among the
operands. That cuDNN itself computes what it is asked needs a GPU.

Shapes: see hare_jax.model.attention; M segments at most in a row. Queries and keys are the same T
tokens.
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

# Before this version JAX finds grouped keys by the stride of the queries (jax-ml/jax#39521).
GROUPED_OFFSETS = (0, 11, 1)


def refusal(request: AttentionRequest) -> str | None:
    """Why the kernel cannot do what is asked; None where it can."""
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
        return "honours the segments of packed rows on GPUs from Hopper on only, got an older one"
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
    """Causal attention within each segment; [B, T, H, K] in the dtype of `q_BTHK`.

    A row of more than `max_segments` segments comes back as not-a-number, so that no document can
    see another. Rows and heads stay on their devices.
    """
    kernel = partial(_one_device, window=window, max_segments=max_segments)
    return on_each_device(kernel, q_BTHK, k_BTGK, v_BTGK, segments_BT)


def segment_spans(segments_BT: Array, max_segments: int) -> tuple[Array, Array, Array]:
    """Where the segments of each row begin, how long they are, and whether all have room.

    Offsets int32 [B, M + 1] and lengths int32 [B, M], -1 where there is no segment, and bool [B].
    Every run of equal ids is a segment, padding too, so that every token is computed: the row
    `1 1 1 2 2 0` with M = 4 has offsets `0 3 5 -1 -1`, lengths `3 2 1 -1`, and room.
    """
    changes_BT = segments_BT[:, 1:] != segments_BT[:, :-1]
    run_BT = jnp.pad(jnp.cumsum(changes_BT, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    runs_M = jnp.arange(max_segments, dtype=jnp.int32)
    lengths_BM = (run_BT[:, :, None] == runs_M[None, None, :]).sum(axis=1, dtype=jnp.int32)
    offsets_BM = jnp.cumsum(lengths_BM, axis=1, dtype=jnp.int32) - lengths_BM
    there = lengths_BM > 0
    lengths_BM, offsets_BM = (jnp.where(there, a, -1) for a in (lengths_BM, offsets_BM))
    offsets_BM = jnp.pad(offsets_BM, ((0, 0), (0, 1)), constant_values=-1)
    return offsets_BM, lengths_BM, run_BT[:, -1] < max_segments


@contextmanager
def as_on_hopper(cudnn_version: int = 91200) -> Iterator[None]:
    """Traces for a Hopper GPU that is not here; to be held around lowering ahead of time."""
    asks = fused.check_compute_capability, fused.check_cudnn_version
    fused.check_compute_capability = lambda capability: True
    fused.check_cudnn_version = lambda: cudnn_version
    try:
        yield
    finally:
        fused.check_compute_capability, fused.check_cudnn_version = asks


def _one_device(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
    *,
    window: int | None,
    max_segments: int,
) -> Array:
    call = partial(
        fused.dot_product_attention,
        scale=q_BTHK.shape[-1] ** -0.5,
        sliding_window_length=window,
        qkv_layout="BTNH",
    )
    if segments_BT is None:
        return call(q_BTHK, k_BTGK, v_BTGK, mask_type=fused.MaskType.CAUSAL)
    offsets_BM, lengths_BM, room_B = segment_spans(segments_BT, max_segments)
    k_BTGK = jnp.where(room_B[:, None, None, None], k_BTGK, jnp.nan)
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

"""The GPU kernel without a GPU: what cuDNN is asked for, and what that comes to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused
from jax.sharding import AxisType

from hare_jax.model.kernels import cudnn, xla

B, T, H, G, K = 2, 16, 4, 2, 8
SEGMENTS = np.array([[1] * 5 + [2] + [3] * 7 + [0] * 3, [1] * 16], np.int32)
POSITIONS = np.array([[*range(5), 0, *range(7), *range(3)], [*range(16)]], np.int32)


def _qkv() -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(key, (B, T, heads, K)) for key, heads in zip(keys, (H, G, G), strict=True)
    )
    return q, k, v


def _spans(row: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of each run of equal ids, by walking along it."""
    spans: list[tuple[int, int]] = []
    for at, segment in enumerate(row):
        if at == 0 or segment != row[at - 1]:
            spans.append((at, 0))
        spans[-1] = (spans[-1][0], spans[-1][1] + 1)
    return spans


def test_spans_as_in_the_docstring() -> None:
    offsets, lengths, room = cudnn.segment_spans(jnp.array([[1, 1, 1, 2, 2, 0]]), 4)
    assert offsets.tolist() == [[0, 3, 5, -1, -1]]
    assert lengths.tolist() == [[3, 2, 1, -1]]
    assert room.tolist() == [True]


@pytest.mark.parametrize("max_segments", [1, 3, 9])
def test_spans_equal_a_walk_along_the_row(max_segments: int) -> None:
    rng = np.random.default_rng(max_segments)
    runs = rng.geometric(0.2, (50, 24))
    rows = np.stack([np.repeat(np.arange(24), row)[:24] + 1 for row in runs]).astype(np.int32)
    rows[::2, 20:] = 0  # padding
    offsets, lengths, room = cudnn.segment_spans(jnp.asarray(rows), max_segments)
    assert offsets.dtype == lengths.dtype == jnp.int32
    for row, o, n, fits in zip(rows, offsets.tolist(), lengths.tolist(), room, strict=True):
        spans = _spans(row)
        assert bool(fits) == (len(spans) <= max_segments)
        absent = [(-1, -1)] * (max_segments - len(spans))
        assert list(zip(o, n, strict=False)) == (spans + absent)[:max_segments]
        assert o[max_segments] == -1


def _flat_memory_attention(q: jax.Array, k: jax.Array, v: jax.Array, **asked: Any) -> np.ndarray:
    """Computes what cuDNN is documented to compute for a packed layout.

    Segment i is `lengths[i]` tokens that lie in memory from element `offsets[i]` on. Elements
    between segments are not written.
    """
    assert asked["mask_type"] is fused.MaskType.PADDING_CAUSAL
    assert asked["qkv_layout"] == "BTNH"
    heads, kv_heads = q.shape[2], k.shape[2]
    q_lengths, kv_lengths, q_offsets, kv_offsets = (
        np.asarray(a).ravel()
        for a in fused._fix_seqlen_offsets(
            asked["q_seqlen"], asked["kv_seqlen"], asked["q_offsets"], asked["kv_offsets"], q, k
        )
    )
    flat_q, flat_k, flat_v = (np.asarray(a).ravel() for a in (q, k, v))
    out = np.full(flat_q.shape, np.nan, np.float32)
    for i, n in enumerate(q_lengths):
        if n <= 0:
            continue
        assert kv_lengths[i] == n
        width, kv_width = n * heads * K, n * kv_heads * K
        q_THK = flat_q[q_offsets[i] :][:width].reshape(n, heads, K)
        k_TGK, v_TGK = (
            a[kv_offsets[i] :][:kv_width].reshape(n, kv_heads, K) for a in (flat_k, flat_v)
        )
        k_THK, v_THK = (np.repeat(a, heads // kv_heads, axis=1) for a in (k_TGK, v_TGK))
        scores = np.einsum("thk,shk->hts", q_THK, k_THK) * asked["scale"]
        ahead = np.subtract.outer(np.arange(n), np.arange(n))
        window = asked["sliding_window_length"] or n
        scores[:, (ahead < 0) | (ahead >= window)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[q_offsets[i] :][:width] = np.einsum("hts,shk->thk", weights, v_THK).ravel()
    return out.reshape(q.shape)


@pytest.fixture
def from_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "dot_product_attention", _flat_memory_attention)


@pytest.mark.slow
@pytest.mark.parametrize(("window", "max_segments"), [(None, 4), (3, 4), (1, 9)])
def test_flat_memory_attention_equals_the_plain_kernel(
    window: int | None, max_segments: int, from_flat_memory: None
) -> None:
    """Every token is written, padding too, and none attends across documents."""
    q, k, v = _qkv()
    out = cudnn.attend(q, k, v, jnp.asarray(SEGMENTS), window, max_segments)
    visible = xla.visible_BTS((POSITIONS, POSITIONS), (SEGMENTS, SEGMENTS), window)
    np.testing.assert_allclose(out, xla.attend(q, k, v, lambda t, s: visible[:, t, s]), atol=1e-5)


def test_a_row_without_room_is_not_a_number(from_flat_memory: None) -> None:
    out = np.asarray(cudnn.attend(*_qkv(), jnp.asarray(SEGMENTS), None, 3))
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


def _lowered(segments: bool, window: int | None, heads: int = H, kv_heads: int = G) -> str:
    """StableHLO for CUDA of attention and its gradient, in bfloat16."""
    shapes = [
        jax.ShapeDtypeStruct((4, 128, n, 64), jnp.bfloat16) for n in (heads, kv_heads, kv_heads)
    ]
    ids = jnp.ones((4, 128), jnp.int32) if segments else None

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return cudnn.attend(q, k, v, ids, window, 5).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    with cudnn.as_on_hopper():
        return gradient.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()


@pytest.fixture(params=[None, (2, 2, 2)], ids=["one device", "mesh"])
def mesh(request: pytest.FixtureRequest) -> Iterator[int]:
    """The devices that share rows, two more sharing heads; 1 without a mesh."""
    if request.param is None:
        yield 1
        return
    axes = ("data", "fsdp", "tensor")
    with jax.set_mesh(jax.make_mesh(request.param, axes, axis_types=(AxisType.Auto,) * 3)):
        yield 4


@pytest.mark.parametrize("window", [None, 32])
def test_lowers_to_calls_with_offsets(window: int | None, mesh: int) -> None:
    text = _lowered(segments=True, window=window)
    rows = 4 // mesh
    calls = [line for line in text.splitlines() if "@__cudnn$fmhaSoftmax" in line]
    assert len(calls) == 2  # forward and backward
    for call in calls:
        assert f"tensor<{rows}x5xi32>, tensor<{rows}x5xi32>, tensor<{rows}x6xi32>" in call
        assert _setting(call, "max_seg_per_batch") == "5"
        assert _setting(call, "mask_type") == "PADDING_CAUSAL"
        assert _setting(call, "sliding_window_length") == str(window or 0)
        assert _setting(call, "fmha_scale") == "0.125"


def test_lowers_without_segments(mesh: int) -> None:
    text = _lowered(segments=False, window=None)
    calls = [line for line in text.splitlines() if "@__cudnn$fmhaSoftmax" in line]
    assert len(calls) == 2
    assert all(_setting(call, "mask_type") == "CAUSAL" for call in calls)
    assert not any("i32>" in call.split(":")[-1] for call in calls)


def _setting(call: str, name: str) -> str:
    found = re.search(rf"{name}\\22: (?:\\22)?([\w.]+)", call)
    assert found, call
    return found.group(1)

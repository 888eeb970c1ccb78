from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from hare_jax.config import AttentionKernel, Model
from hare_jax.model.attention import (
    attention,
    choose,
    kernel_of,
    visible_BTS,
)
from hare_jax.model.kernels import cudnn
from hare_jax.model.kernels.request import AttentionRequest, request_of

KERNELS = [AttentionKernel.AUTO, AttentionKernel.XLA]  # splash: test_splash, cudnn: test_cudnn

SEGMENTS_BT = np.array([[1, 1, 1, 2, 2, 0], [1, 2, 2, 2, 2, 2]], np.int32)
POSITIONS_BT = np.array([[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 3, 4]], np.int32)


def _qkv(heads: int = 4, kv_heads: int = 2) -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, 6, heads, 8), (2, 6, kv_heads, 8), (2, 6, kv_heads, 8)]
    q, k, v = (jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True))
    return q, k, v


def _plain(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | None) -> np.ndarray:
    """One query at a time, in float64, with only the keys that it may see."""
    out = np.zeros(q.shape)
    B, T, H, K = q.shape
    for b, t, h in np.ndindex(B, T, H):
        kv = h // (H // k.shape[2])
        seen = [
            s
            for s in range(t + 1)
            if SEGMENTS_BT[b, s] == SEGMENTS_BT[b, t]
            and (SEGMENTS_BT[b, t] > 0 or s == t)
            and (window is None or POSITIONS_BT[b, t] - POSITIONS_BT[b, s] < window)
        ]
        scores = np.array([q[b, t, h] @ k[b, s, kv] for s in seen]) / np.sqrt(K)
        weights = np.exp(scores - scores.max())
        out[b, t, h] = (weights / weights.sum()) @ np.array([v[b, s, kv] for s in seen])
    return out


def test_visible_is_causal_within_segments() -> None:
    positions = jnp.array([[0, 1, 0, 1]])
    segments = jnp.array([[1, 1, 2, 2]])
    visible = visible_BTS((positions, positions), (segments, segments), None)
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert visible[0].astype(int).tolist() == expected


def test_visible_window_counts_the_query_itself() -> None:
    positions = jnp.arange(4)[None]
    visible = visible_BTS((positions, positions), None, 2)
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert visible[0].astype(int).tolist() == expected


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_plain_attention(kernel: AttentionKernel, window: int | None, kv_heads: int) -> None:
    q, k, v = _qkv(kv_heads=kv_heads)
    out = attention(
        q,
        k,
        v,
        positions=(POSITIONS_BT, POSITIONS_BT),
        segments=(SEGMENTS_BT, SEGMENTS_BT),
        window=window,
        kernel=kernel,
    )
    expected = _plain(np.asarray(q), np.asarray(k), np.asarray(v), window)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_bfloat16_keeps_its_dtype_and_softmax_in_float32() -> None:
    q, k, v = _qkv()
    kinds = {"positions": (POSITIONS_BT, POSITIONS_BT), "segments": (SEGMENTS_BT, SEGMENTS_BT)}
    exact = attention(q, k, v, **kinds)
    half = attention(*(a.astype(jnp.bfloat16) for a in (q, k, v)), **kinds)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05)


def _asked(**changes: Any) -> AttentionRequest:
    asked = AttentionRequest("cpu", "bfloat16", queries=256, keys=256, head_dim=64, packed=True)
    return dataclasses.replace(asked, **changes)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, AttentionKernel.XLA),
        ({"platform": "tpu"}, AttentionKernel.SPLASH),
        ({"platform": "tpu", "queries": 100, "keys": 100}, AttentionKernel.XLA),
        ({"platform": "tpu", "queries": 1}, AttentionKernel.XLA),
        ({"platform": "tpu", "shares": False}, AttentionKernel.XLA),
        ({"platform": "gpu"}, AttentionKernel.XLA),  # no Hopper: no packed rows
        ({"platform": "gpu", "packed": False}, AttentionKernel.CUDNN),
        ({"platform": "gpu", "packed": False, "dtype": "float32"}, AttentionKernel.XLA),
    ],
)
def test_auto_chooses_a_kernel_that_the_platform_supports(
    changes: dict[str, Any], chosen: AttentionKernel
) -> None:
    assert choose(AttentionKernel.AUTO, _asked(**changes)) is chosen


def test_auto_takes_cudnn_for_packed_rows_on_hopper() -> None:
    with cudnn.as_on_hopper():
        assert choose(AttentionKernel.AUTO, _asked(platform="gpu")) is AttentionKernel.CUDNN
    assert choose(AttentionKernel.AUTO, _asked(platform="gpu")) is AttentionKernel.XLA


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (AttentionKernel.CUDNN, {}, "'cudnn' needs a GPU, got platform 'cpu'; use attention="),
        (AttentionKernel.SPLASH, {}, "'splash' needs a TPU, got platform 'cpu'; use attention="),
        (AttentionKernel.CUDNN, {"platform": "gpu"}, "segments of packed rows from Hopper on"),
        (AttentionKernel.CUDNN, {"platform": "gpu", "dtype": "float32"}, "got float32"),
        (AttentionKernel.CUDNN, {"platform": "gpu", "head_dim": 136}, "at most 128 .* got 136"),
        (AttentionKernel.CUDNN, {"platform": "gpu", "head_dim": 20}, "multiple of 8.* got 20"),
        (AttentionKernel.CUDNN, {"platform": "gpu", "keys": 300}, "queries as keys, got 256 and"),
        (
            AttentionKernel.SPLASH,
            {"platform": "tpu", "queries": 100, "keys": 100},
            "multiple of 128, got 100 and 100",
        ),
        (
            AttentionKernel.SPLASH,
            {"platform": "tpu", "shares": False},
            "rows and key-value heads that the mesh divides evenly",
        ),
        (
            AttentionKernel.CUDNN,
            {"platform": "gpu", "packed": False, "shares": False},
            "rows and key-value heads that the mesh divides evenly",
        ),
    ],
)
def test_a_kernel_that_cannot_is_refused_by_name(
    kernel: AttentionKernel, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"attention kernel '{kernel.value}'.*") as refused:
        choose(kernel, _asked(**changes))
    assert re.search(message, str(refused.value))


def test_the_request_follows_from_arrays_and_mesh() -> None:
    q, k, _ = _qkv()
    assert request_of(q, k, packed=True) == AttentionRequest("cpu", "float32", 6, 6, 8, True)
    mesh = jax.make_mesh((4, 1, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert not request_of(q, k, packed=True).shares  # two rows, four shares
        assert request_of(jnp.tile(q, (2, 1, 1, 1)), k, packed=True).shares


def test_the_kernel_of_a_config(model: Model) -> None:
    assert kernel_of(model, rows=2, length=256) is AttentionKernel.XLA
    model.attention = AttentionKernel.SPLASH
    with pytest.raises(ValueError, match="'splash' needs a TPU"):
        kernel_of(model, rows=2, length=256)

"""The TPU kernel, interpreted: what it computes; and that it lowers for a TPU."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from hare_jax.model.kernels import splash, xla

B, T, H, G, K = 4, 256, 4, 2, 16
LENGTHS = [(100, 30, 100), (1, 255), (256,), (128, 128)]  # the first row ends in padding


def _inputs(dtype: type = jnp.float32) -> tuple[jax.Array, ...]:
    """q, k, v and the gradient of what is attended."""
    keys = jax.random.split(jax.random.key(0), 4)
    heads = (H, G, G, H)
    return tuple(
        jax.random.normal(key, (B, T, n, K), dtype) for key, n in zip(keys, heads, strict=True)
    )


def _rows() -> tuple[jax.Array, jax.Array]:
    """Segments and positions [B, T]."""
    segments, positions = (np.zeros((B, T), np.int32) for _ in range(2))
    for row, lengths in enumerate(LENGTHS):
        filled = sum(lengths)
        segments[row, :filled] = np.repeat(range(1, len(lengths) + 1), lengths)
        positions[row, :filled] = np.concatenate([np.arange(n) for n in lengths])
    return jnp.asarray(segments), jnp.asarray(positions)


@partial(jax.jit, static_argnums=(0, 1))
def _splash(window: int | None, packed: bool, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """What is attended, and the gradients of q, k and v."""
    *qkv, gradient = arrays
    segments = _rows()[0] if packed else None
    out, back = jax.vjp(lambda q, k, v: splash.attend(q, k, v, segments, window, "kept"), *qkv)
    return out, *back(gradient)


@partial(jax.jit, static_argnums=(0, 1))
def _plain(window: int | None, packed: bool, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    *qkv, gradient = arrays
    segments, positions = _rows()
    if not packed:
        segments, positions = (
            jnp.ones_like(segments),
            jnp.broadcast_to(jnp.arange(T)[None], (B, T)),
        )
    visible = xla.visible_BTS((positions, positions), (segments, segments), window)
    out, back = jax.vjp(lambda q, k, v: xla.attend(q, k, v, lambda t, s: visible[:, t, s]), *qkv)
    return out, *back(gradient)


def _assert_near(got: tuple[jax.Array, ...], want: tuple[jax.Array, ...], packed: bool) -> None:
    told = np.ones((B, T), bool) if not packed else np.asarray(_rows()[0] > 0)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(a)[told], np.asarray(b)[told], atol=2e-5)


@pytest.fixture(params=[8, 0], ids=["fused", "two kernels"])
def backward_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Short rows have one backward kernel, long ones two; returns the number of all kernels."""
    monkeypatch.setattr(splash, "MAX_FUSED_BLOCKS", request.param)
    _splash.clear_cache()
    return 2 if request.param else 3


@pytest.mark.slow
@pytest.mark.parametrize(("window", "packed"), [(17, True), (None, False)])
def test_equals_the_plain_kernel(window: int | None, packed: bool, backward_kernels: int) -> None:
    """Gradients too; what padding attends to is nobody's concern, so its gradient is zero here."""
    q, k, v, gradient = _inputs()
    if packed:
        gradient *= (_rows()[0] > 0)[:, :, None, None]
    arrays = (q, k, v, gradient)
    _assert_near(_splash(window, packed, *arrays), _plain(window, packed, *arrays), packed)


@pytest.mark.slow
def test_rows_and_heads_stay_on_their_devices() -> None:
    q, k, v, gradient = _inputs()
    gradient *= (_rows()[0] > 0)[:, :, None, None]
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        got = _splash(None, True, q, k, v, gradient)
        text = _splash.lower(None, True, q, k, v, gradient).compile().as_text()
    _assert_near(got, _plain(None, True, q, k, v, gradient), True)
    assert "all-gather" not in text and "all-to-all" not in text


@pytest.mark.parametrize("window", [None, 100])
def test_lowers_for_a_tpu(
    window: int | None, backward_kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splash, "platform", lambda: "tpu")
    arrays = tuple(jax.ShapeDtypeStruct((B, T, heads, 64), jnp.bfloat16) for heads in (H, G, G, H))
    lowered = _splash.trace(window, True, *arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert lowered.count("tpu_custom_call") == backward_kernels

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import Matmul, Model
from hare_jax.model import decoder
from hare_jax.model.linear import fp8_matmul, linear

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def _arrays(dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, w and the gradient of their product, of very different sizes."""
    rng = np.random.default_rng(0)
    shapes, sizes = [(24, 16), (16, 8), (24, 8)], [30.0, 0.02, 1e-7]
    x, w, dy = (rng.normal(0, s, n).astype(dtype) for n, s in zip(shapes, sizes, strict=True))
    return x, w, dy


def _rounded(x: np.ndarray, dtype: type) -> np.ndarray:
    """To 8 bits and back, scaled by the smallest power of two above largest / dtype's largest."""
    ratio = np.abs(x).max() / float(ml_dtypes.finfo(dtype).max)
    scale = 2.0 ** (np.floor(np.log2(ratio)) + 1)
    return (x / scale).astype(dtype).astype(np.float32) * np.float32(scale)


def test_linear_sums_over_the_first_axes() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    w = jax.random.normal(jax.random.key(1), (4, 5, 6, 7))
    y = linear(x, w, 2, Matmul.COMPUTE_DTYPE)
    np.testing.assert_allclose(y, jnp.einsum("btij,ijop->btop", x, w), rtol=1e-4, atol=1e-4)


def test_fp8_product_and_gradients_are_those_of_rounded_factors() -> None:
    x, w, dy = _arrays()
    y, back = jax.vjp(fp8_matmul, x, w)
    dx, dw = back(dy)
    x8, w8, dy8 = _rounded(x, E4M3), _rounded(w, E4M3), _rounded(dy, E5M2)
    np.testing.assert_allclose(y, x8 @ w8, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, dy8 @ w8.T, rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(dw, x8.T @ dy8, rtol=1e-4, atol=1e-9)
    assert np.abs(np.asarray(y) - x @ w).max() > 1e-4, "nothing was rounded"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_fp8_is_near_the_exact_product(dtype: type) -> None:
    x, w, _ = _arrays()
    y = fp8_matmul(x.astype(dtype), w.astype(dtype))
    assert y.dtype == dtype
    error = np.linalg.norm(y.astype(np.float32) - x @ w) / np.linalg.norm(x @ w)
    assert error < 0.06  # three bits of mantissa: 2^-4 of each factor at most


def test_fp8_of_zeros_is_zero_and_hides_nothing_infinite() -> None:
    x, w, _ = _arrays()
    assert (np.asarray(fp8_matmul(0 * x, w)) == 0).all()
    for bad in (np.inf, -np.inf, np.nan):
        spoilt = x.copy()
        spoilt[3, 2] = bad
        assert np.isnan(np.asarray(fp8_matmul(spoilt, w))).all()


def test_fp8_scales_are_those_of_the_whole_tensor_on_any_mesh() -> None:
    x, w, dy = _arrays()

    @jax.jit
    def step(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple[jax.Array, ...]:
        y, back = jax.vjp(fp8_matmul, x, w)
        return y, *back(dy)

    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    places = (P("fsdp", None), P("fsdp", "tensor"), P("fsdp", "tensor"))
    cut = [
        jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip((x, w, dy), places, strict=True)
    ]
    for got, want in zip(step(*cut), step(x, w, dy), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def _sources(text: str) -> list[list[str]]:
    """For each product in StableHLO: what its two factors were converted from, 'f8' or not.

    A factor is followed back through transposes, reshapes and the scale to the conversion.
    """
    products: list[list[str]] = []
    made: dict[str, str] = {}  # the latest of each name: loops and functions use names again

    def source(name: str) -> str:
        while name in made:
            line = made[name]
            if line.startswith("convert"):
                found = re.search(r"\(tensor<[\dx]*(f8E\w+)>\) ->", line)
                return found.group(1) if found else "other"
            if not line.startswith(("transpose", "reshape", "multiply")):
                break
            name = re.findall(r"%[\w#]+", line)[0]
        return "other"

    for name, line in re.findall(r"(%[\w#]+)(?::\d+)? = (?:stablehlo\.)?(.*)", text):
        made[name] = line
        if line.startswith("dot_general"):
            products.append([source(factor) for factor in re.findall(r"%[\w#]+", line)[:2]])
    return products


def test_every_product_of_a_layer_has_factors_of_8_bits(model: Model) -> None:
    """One body for all layers: 7 products, forward and twice backward; attention and head not."""
    weights = decoder.abstract(dataclasses.replace(model, matmul=Matmul.FP8))
    tokens = jnp.zeros((2, 16), jnp.int32)

    def loss(weights: decoder.Weights) -> jax.Array:
        m = decoder.merge(weights)
        return (m.logits(m(tokens, tokens, tokens)) ** 2).sum()

    products = _sources(jax.jit(jax.grad(loss)).lower(weights).as_text())
    kinds = sorted(map(tuple, map(sorted, products)))
    assert kinds.count(("f8E4M3FN", "f8E4M3FN")) == 7
    assert kinds.count(("f8E4M3FN", "f8E5M2")) == 14
    assert kinds.count(("other", "other")) == 2 + 4 + 3
    assert len(kinds) == 30


def _losses(model: Model, steps: int) -> np.ndarray:
    """The loss of each step of Adam on documents that count upwards."""
    graph = decoder.abstract(model).graph
    optimizer = optax.adam(3e-3)

    def loss(params: decoder.Params, tokens: jax.Array) -> jax.Array:
        m = decoder.merge(decoder.Weights(graph, params))
        positions = jnp.broadcast_to(jnp.arange(16)[None], (16, 16))
        logits = m.logits(m(tokens[:, :-1], positions, None))
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
        params, state = carry
        first = jax.random.randint(key, (16, 1), 0, 64)
        tokens = (first + jnp.arange(17)[None]) % 64
        value, grads = jax.value_and_grad(loss)(params, tokens)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def train() -> jax.Array:
        params = decoder.init(model, 0)
        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    return np.asarray(train())


@pytest.mark.slow
def test_loss_falls_in_fp8_as_it_does_without(model: Model) -> None:
    exact = _losses(model, 60)
    rounded = _losses(dataclasses.replace(model, matmul=Matmul.FP8), 60)
    assert exact[-1] < 0.5 * exact[0], "must learn, or the curves say nothing"
    assert np.abs(rounded - exact).max() < 0.15
    assert (rounded != exact).any()

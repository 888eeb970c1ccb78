from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.aot.collectives import collectives
from hare_jax.config import Mesh
from hare_jax.model.constraints import BATCH_AXES
from hare_jax.runtime import sharding
from hare_jax.training.loss import loss_by_source, weighted_loss

B, T, D, V = 3, 8, 5, 17


@pytest.fixture
def data() -> dict[str, Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "x_BTD": jax.random.normal(keys[0], (B, T, D)),
        "head_DV": jax.random.normal(keys[1], (D, V)),
        "targets_BT": jax.random.randint(keys[2], (B, T), 0, V),
        "mask_BT": jax.random.bernoulli(keys[3], 0.7, (B, T)).astype(jnp.float32),
        "weights_B": jnp.array([1.0, 0.5, 3.0]),
    }


def _plain(
    x_BTD: Array,
    head_DV: Array,
    targets_BT: Array,
    mask_BT: Array,
    weights_B: Array,
    z_loss: float = 0.0,
) -> tuple[Array, Array]:
    """All logits at once, differentiated by JAX."""
    logits = x_BTD @ head_DV
    lse = jax.nn.logsumexp(logits, axis=-1)
    ce = lse - jnp.take_along_axis(logits, targets_BT[..., None], -1)[..., 0]
    weighted = weights_B[:, None] * mask_BT
    total = (weighted * (ce + z_loss * lse**2)).sum() / weighted.sum()
    return total, (mask_BT * ce).sum(axis=1)


@pytest.mark.parametrize("chunks", [1, 2, 8])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
def test_equals_plain_cross_entropy(data: dict[str, Array], chunks: int, z_loss: float) -> None:
    got = weighted_loss(**data, chunks=chunks, z_loss=z_loss)
    for a, b in zip(got, _plain(**data, z_loss=z_loss), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("chunks", [1, 2, 8])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("name", ["x_BTD", "head_DV", "weights_B"])
def test_gradients_equal_those_of_plain_cross_entropy(
    data: dict[str, Array], chunks: int, z_loss: float, name: str
) -> None:
    def gradient(loss: partial[tuple[Array, Array]]) -> Array:
        # Three times the total: the cotangent that comes in is not always one.
        return jax.grad(lambda a: 3 * loss(**{**data, name: a})[0])(data[name])

    got = gradient(partial(weighted_loss, chunks=chunks, z_loss=z_loss))
    expected = gradient(partial(_plain, z_loss=z_loss))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_all_logits_never_exist_at_one_time() -> None:
    shapes = (jnp.zeros((4, 64, 8)), jnp.zeros((8, 4096)))

    def loss(x_BTD: Array, head_DV: Array, chunks: int) -> Array:
        ones = jnp.ones(x_BTD.shape[:2])
        targets = jnp.zeros(x_BTD.shape[:2], jnp.int32)
        return weighted_loss(x_BTD, head_DV, targets, ones, jnp.ones(4), chunks=chunks)[0]

    def memory(chunks: int) -> int:
        step = jax.jit(jax.grad(partial(loss, chunks=chunks), argnums=(0, 1)))
        return step.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    logits_bytes = 4 * 64 * 4096 * 4
    assert memory(1) >= logits_bytes
    assert memory(16) < logits_bytes / 2


def test_masked_positions_do_not_count(data: dict[str, Array]) -> None:
    mask = data["mask_BT"]
    changed = jnp.where(mask > 0, data["targets_BT"], (data["targets_BT"] + 1) % V)
    other = weighted_loss(**{**data, "targets_BT": changed})
    for a, b in zip(weighted_loss(**data), other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_of_zero_takes_an_example_out(data: dict[str, Array]) -> None:
    with_two = {**data, "weights_B": jnp.array([1.0, 1.0, 0.0])}
    two = {key: value if key == "head_DV" else value[:2] for key, value in with_two.items()}
    np.testing.assert_allclose(weighted_loss(**with_two)[0], weighted_loss(**two)[0], rtol=1e-6)


def test_nothing_to_predict_is_zero_and_finite(data: dict[str, Array]) -> None:
    empty = {**data, "mask_BT": jnp.zeros((B, T))}
    total, per_example_B = weighted_loss(**empty)
    assert float(total) == 0.0 and not per_example_B.any()
    gradient = jax.grad(lambda x: weighted_loss(**{**empty, "x_BTD": x})[0])(data["x_BTD"])
    assert not gradient.any()


def test_large_logits_stay_finite(data: dict[str, Array]) -> None:
    large = {**data, "x_BTD": data["x_BTD"] * 1e4}
    total, gradient = jax.value_and_grad(lambda x: weighted_loss(**{**large, "x_BTD": x})[0])(
        large["x_BTD"]
    )
    assert np.isfinite(total) and np.isfinite(gradient).all()


def test_bfloat16_head_gradient_is_summed_in_float32(data: dict[str, Array]) -> None:
    half = {**data, "x_BTD": data["x_BTD"].astype(jnp.bfloat16)}
    gradient = jax.grad(lambda head: weighted_loss(**{**half, "head_DV": head}, chunks=8)[0])
    got = gradient(data["head_DV"])
    assert got.dtype == jnp.float32
    expected = jax.grad(lambda head: _plain(**{**data, "head_DV": head})[0])(data["head_DV"])
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_loss_by_source() -> None:
    mask = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    sums, tokens = loss_by_source(jnp.array([2.0, 3.0, 5.0]), mask, jnp.array([2, 0, 2]), 4)
    assert sums.tolist() == [3.0, 0.0, 7.0, 0.0]
    assert tokens.tolist() == [1.0, 0.0, 4.0, 0.0]


@pytest.mark.parametrize("chunks", [0, 3, 16])
def test_chunks_must_divide_the_length(data: dict[str, Array], chunks: int) -> None:
    message = rf"loss_chunks={chunks} does not divide the sequence length 8: use .* such as 8"
    with pytest.raises(ValueError, match=message):
        weighted_loss(**data, chunks=chunks)


@pytest.mark.parametrize("mesh", [Mesh(fsdp=8), Mesh(data=2, fsdp=2, tensor=2)])
def test_the_head_crosses_the_network_once_whatever_the_chunks(mesh: Mesh) -> None:
    """Of what grows with D: one gather of the head, one sum of its gradient."""
    devices = sharding.make_mesh(mesh)
    rows, length, width, vocabulary = 16, 32, 64, 256
    with jax.set_mesh(devices):

        def argument(shape: tuple[int, ...], *axes: object) -> jax.ShapeDtypeStruct:
            dtype = jnp.int32 if len(shape) == 2 and shape[0] == rows else jnp.float32
            return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(devices, P(*axes)))

        x_BTD = argument((rows, length, width), BATCH_AXES)
        head_DV = argument((width, vocabulary), "fsdp", "tensor")
        targets_BT = argument((rows, length), BATCH_AXES)

        def gradients(x_BTD: Array, head_DV: Array, targets_BT: Array, chunks: int) -> Array:
            def loss(x_BTD: Array, head_DV: Array) -> Array:
                mask_BT = jnp.ones(targets_BT.shape)
                ones_B = jnp.ones(targets_BT.shape[:1])
                return weighted_loss(x_BTD, head_DV, targets_BT, mask_BT, ones_B, chunks=chunks)[0]

            return jax.grad(loss, (0, 1))(x_BTD, head_DV)

        place = (x_BTD.sharding, head_DV.sharding)
        compiled = jax.jit(gradients, static_argnames="chunks", out_shardings=place)
        traffic = {}
        for chunks in (1, 2, 8):
            text = compiled.lower(x_BTD, head_DV, targets_BT, chunks=chunks).compile().as_text()
            traffic[chunks] = collectives(text)
    head_bytes = width * vocabulary * 4 // mesh.tensor
    for chunks in traffic:
        assert traffic[chunks]["all-gather"].count == 1
        assert traffic[chunks]["all-gather"].bytes == head_bytes
        # Sums over the vocabulary ("tensor") have no axis D; together they are smaller than a head.
        reduced = traffic[chunks]["all-reduce"].bytes - head_bytes
        assert 0 <= reduced < head_bytes + rows * length * width * 4 * (mesh.tensor > 1)

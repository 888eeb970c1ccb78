"""The variants of the architecture: every way to compute a model gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import Mesh, Model, RopeMethod, RopeScaling
from hare_jax.inference.generate import generate
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from tests.hare_jax.builders import tiny_model

MODEL = replace(tiny_model(), num_layers=4)
VARIANTS: dict[str, dict[str, Any]] = {
    "qk_norm": {"qk_norm": True},
    "nope": {"nope_every": 2},
    "yarn": {"rope_scaling": RopeScaling(RopeMethod.YARN, 4.0, 16, high_rotations=32.0)},
    "all": {
        "qk_norm": True,
        "nope_every": 4,
        "rope_scaling": RopeScaling(RopeMethod.LLAMA3, 8.0, 16),
        "tied_head": True,
    },
}
TOKENS_BT = np.random.default_rng(0).integers(0, 64, (8, 12)).astype(np.int32)
POSITIONS_BT = np.broadcast_to(np.arange(12, dtype=np.int32), (8, 12))


def model_of(name: str) -> tuple[Model, decoder.Params]:
    config = replace(MODEL, **VARIANTS[name])
    params = jax.jit(decoder.init, static_argnums=(0, 1))(config, 0)
    rng = np.random.default_rng(1)  # norms that are not all one

    def scaled(path: Any, a: jax.Array) -> jax.Array:
        return a if path[-1].key != "scale" else a * rng.uniform(0.5, 1.5, a.shape)

    return config, jax.tree_util.tree_map_with_path(scaled, params)


@jax.jit
def forward(weights: decoder.Weights) -> jax.Array:
    model = decoder.merge(weights)
    return model.logits(model(jnp.asarray(TOKENS_BT), jnp.asarray(POSITIONS_BT), None))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_one_token_at_a_time_gives_the_same(name: str) -> None:
    config, params = model_of(name)
    weights = decoder.Weights.of(config, params)
    expected = np.asarray(forward(weights))

    @jax.jit
    def decode(tokens: jax.Array, positions: jax.Array, cache: decoder.KVCache) -> Any:
        model = decoder.merge(weights)
        x, cache = model.decode(tokens, positions, cache)
        return model.logits(x), cache

    cache = decoder.merge(weights).init_cache(8, 12)
    for t in range(12):
        step = slice(t, t + 1)
        logits, cache = decode(TOKENS_BT[:, step], POSITIONS_BT[:, step], cache)
        np.testing.assert_allclose(logits[:, 0], expected[:, t], atol=2e-4)


@pytest.mark.parametrize("name", ["nope", "yarn"])
def test_the_same_parameters_give_something_else(name: str) -> None:
    config, params = model_of(name)
    difference = forward(decoder.Weights.of(config, params)) - forward(
        decoder.Weights.of(MODEL, params)
    )
    assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("name", VARIANTS)
def test_generated_text_is_that_of_the_whole_forward_pass(name: str) -> None:
    config, params = model_of(name)
    weights = decoder.Weights.of(config, params)
    (completion,) = generate(weights, [TOKENS_BT[0].tolist()], max_new_tokens=3, eos_ids=[64])
    assert completion[0] == int(forward(weights)[0, -1].argmax())


@pytest.mark.parametrize("name", VARIANTS)
def test_sharded_and_not_scanned_layers_give_the_same(name: str) -> None:
    config, params = model_of(name)
    expected = forward(decoder.Weights.of(config, params))
    mesh = sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.params_sharding(mesh, params))
        sharded = forward(decoder.Weights.of(config, placed))
    np.testing.assert_allclose(sharded, expected, atol=2e-4)
    unrolled = forward(decoder.Weights.of(replace(config, scan_layers=False), params))
    np.testing.assert_allclose(unrolled, expected, atol=2e-4)


def test_parameters_of_the_norms_are_counted() -> None:
    for changes in VARIANTS.values():
        config = replace(MODEL, **changes)
        arrays = jax.tree.leaves(decoder.abstract(config).params)
        assert decoder.num_params(config) == sum(a.size for a in arrays)

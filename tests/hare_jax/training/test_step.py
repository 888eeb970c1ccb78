"""The step works in place; dropout follows the stages without another compilation."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hare_jax.config import Faults, Mesh, Model, OnFault, Optimizer, Stage, Training
from hare_jax.data.batch import SPEC
from hare_jax.data.order import Order
from hare_jax.model import decoder
from hare_jax.model.constraints import BATCH_AXES
from hare_jax.model.decoder import Dropout
from hare_jax.runtime import sharding
from hare_jax.training import optim
from hare_jax.training.faults import window
from hare_jax.training.state import place_state
from hare_jax.training.step import compile_step, dropout_of, make_step


def _stages(*rates: float) -> tuple[Order, Training]:
    stages = [Stage(f"stage {k}", "all", tokens=30, dropout=rate) for k, rate in enumerate(rates)]
    training = Training(stages=stages, batch_size=1)
    return Order(training, {"web": 4}, {"all": {"web": 1.0}}, 10), training


def test_the_rate_is_that_of_the_steps_stage() -> None:
    order, training = _stages(0.0, 0.25, 0.5)
    rate = jax.jit(lambda step: dropout_of(order, training)(step, 0).rate)  # type: ignore[union-attr]
    assert [float(rate(step)) for step in range(9)] == [0.0] * 3 + [0.25] * 3 + [0.5] * 3
    assert rate._cache_size() == 1


def test_all_rates_zero_give_no_dropout() -> None:
    order, training = _stages(0.0, 0.0)
    assert dropout_of(order, training)(0, 0) is None


def test_each_step_and_part_drops_others() -> None:
    order, training = _stages(0.5)
    keys = {
        tuple(jax.random.key_data(dropout_of(order, training)(step, part).key).tolist())  # type: ignore[union-attr]
        for step in range(3)
        for part in range(4)
    }
    assert len(keys) == 12


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_makes_no_sense_is_refused(rate: float) -> None:
    order, training = _stages(rate)
    with pytest.raises(ValueError, match=r"stage 'stage 0': got dropout=.*expected 0 or more"):
        dropout_of(order, training)


def test_dropout_keeps_the_mean_and_leaves_out_its_share() -> None:
    x = np.full((64, 1000), 2.0, np.float32)
    dropped = Dropout(np.float32(0.25), jax.random.key(0)).of_layer(3)(x, 1)
    values, counts = np.unique(dropped, return_counts=True)
    np.testing.assert_allclose(values, [0.0, 2.0 / 0.75])
    assert abs(counts[0] / x.size - 0.25) < 0.01


def test_rate_zero_is_no_dropout(model: Model) -> None:
    weights = decoder.split(decoder.Decoder(model, rngs=decoder.nnx.Rngs(0)))
    tokens = np.arange(8)[None]
    rows = tokens, tokens, np.ones_like(tokens)
    without = decoder.merge(weights)(*rows)
    zero = decoder.merge(weights)(*rows, Dropout(np.float32(0), jax.random.key(0)))
    np.testing.assert_array_equal(without, zero)


@pytest.mark.parametrize("parts", [0, 3, 16])
def test_parts_that_cannot_be_shared_are_refused(parts: int) -> None:
    mesh = sharding.make_mesh(Mesh(2, 2, 2))
    with pytest.raises(ValueError, match=f"accumulation={parts}: choose a multiple of"):
        sharding.local_rows(mesh, 8, parts)


@pytest.mark.parametrize("faults", [Faults(), Faults(OnFault.SKIP, OnFault.SKIP)])
@pytest.mark.parametrize("devices", [1, 8])
def test_the_state_is_donated(model: Model, devices: int, faults: Faults) -> None:
    """Every byte of the new state lies where one of the old state lay."""
    training = Training(
        stages=[Stage("only", "all", 16 * 8 * 4)],
        batch_size=8,
        optimizer=Optimizer(warmup_steps=0),
        faults=faults,
    )
    order = Order(training, {"web": 4}, {"all": {"web": 1.0}}, 16)
    mesh = sharding.make_mesh(Mesh(), jax.devices()[:devices])
    optimizer = optim.build(training.optimizer, order.steps)
    with jax.set_mesh(mesh):
        placed = place_state(model, optimizer, mesh, window(faults))
        batch = {
            key: jax.ShapeDtypeStruct(
                (8, 16)[:dimensions], dtype, sharding=NamedSharding(mesh, PartitionSpec(BATCH_AXES))
            )
            for key, (dimensions, dtype) in SPEC.items()
        }
        compiled = compile_step(make_step(model, training, optimizer, order, 1), placed, batch)
    memory = compiled.memory_analysis()
    size = sum(
        math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize
        for a in jax.tree.leaves(placed)
    )
    assert memory.alias_size_in_bytes == size

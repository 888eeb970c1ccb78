"""The state of training: what it is, where it lies, and how it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hare_jax.config import Model
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.training.faults import LossHistory


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class State:
    """All that a train step changes."""

    params: decoder.Params
    optimizer: Any
    step: Any  # int32 []: steps finished
    loss_history: LossHistory


def place_state(
    model_config: Model,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    window: int = 0,
) -> State:
    """The state without its arrays: jax.ShapeDtypeStruct with shardings.

    `window`: losses that are remembered to tell a spike, as faults.window says.
    """
    params = decoder.abstract(model_config).params
    shapes = State(
        params,
        jax.eval_shape(optimizer.init, params),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.eval_shape(lambda: LossHistory.none(window)),
    )
    everywhere = sharding.replicated(mesh)
    places = State(
        sharding.params_sharding(mesh, params),
        sharding.optimizer_sharding(mesh, optimizer, params),
        everywhere,
        LossHistory(everywhere, everywhere),
    )
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, places
    )


def init_state(
    model_config: Model,
    seed: int,
    optimizer: optax.GradientTransformation,
    placed: State,
    params: decoder.Params | None = None,
) -> State:
    """The state before the first step, a pure function of (config, seed), made where it lies.

    `params`: to start from, in place of random ones.
    """

    def init(params: decoder.Params | None) -> State:
        if params is None:
            params = decoder.init(model_config, seed)
        none = LossHistory.none(placed.loss_history.losses_W.size)
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), none)

    return jax.jit(init, out_shardings=jax.tree.map(lambda a: a.sharding, placed))(params)

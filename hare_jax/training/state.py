"""The training state: its arrays, its sharding and its initialization."""

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
    """The state that a train step updates; a pytree."""

    params: decoder.Params
    optimizer: Any  # optax state
    step: Any  # int32 []: finished steps
    loss_history: LossHistory


def place_state(
    model_config: Model,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    window: int = 0,
) -> State:
    """Returns the state as jax.ShapeDtypeStruct with shardings, without arrays.

    Args:
      model_config: the model.
      optimizer: its state is included.
      mesh: where the arrays will be.
      window: length of the loss history, faults.window.

    Raises:
      ValueError: if a parameter does not fit the mesh.
    """
    params = decoder.abstract(model_config).params
    shapes = State(
        params,
        jax.eval_shape(optimizer.init, params),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.eval_shape(lambda: LossHistory.empty(window)),
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
    """Creates the state before the first step, a pure function of (config, seed), on its devices.

    Args:
      model_config: the model.
      seed: of the initial parameters.
      optimizer: initializes its own state.
      placed: shapes and shardings, from `place_state`.
      params: parameters to start from; None: random ones.
    """

    def init(params: decoder.Params | None) -> State:
        if params is None:
            params = decoder.init(model_config, seed)
        empty = LossHistory.empty(placed.loss_history.losses_W.size)
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32), empty)

    return jax.jit(init, out_shardings=jax.tree.map(lambda a: a.sharding, placed))(params)

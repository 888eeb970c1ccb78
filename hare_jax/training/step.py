"""The train step: a pure function (state, batch) -> (state, metrics), compiled before it runs.

Shapes: B rows of the batch, T positions, A parts of the batch (gradient accumulation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from hare_jax.config import Model, OnFault, Training
from hare_jax.data.batch import Batch
from hare_jax.data.order import Order
from hare_jax.model import decoder
from hare_jax.model.decoder import Dropout, Weights
from hare_jax.training import faults, optim
from hare_jax.training.loss import loss_by_source, weighted_loss
from hare_jax.training.state import State

Step = Callable[[State, Batch], tuple[State, dict[str, Array]]]
# (params, batch, total_weight, dropout) -> (total, per_example_B), as `weighted_loss` returns them
Loss = Callable[[decoder.Params, Batch, Array, Dropout | None], tuple[Array, Array]]
# (params, batch, step) -> (gradient, per_example_B) of the whole batch
Gradient = Callable[[decoder.Params, Batch, Array], tuple[Any, Array]]
# (step, part of the batch) -> its dropout
DropoutSchedule = Callable[[Any, Any], Dropout | None]


def make_step(
    model_config: Model,
    training_config: Training,
    optimizer: optax.GradientTransformation,
    order: Order,
    num_sources: int,
) -> Step:
    """Builds the train step: one update of the parameters, and its metrics.

    A bad step (see faults.py) that `training.faults` skips returns the parameters and moments that
    it got.

    Args:
      model_config: the model.
      training_config: accumulation, dropout, loss, faults and the schedule of the learning rate.
      optimizer: from optim.build.
      order: the schedule of the stages.
      num_sources: number of sources in the batches.

    Returns:
      (state, batch) -> (state, metrics). The metrics are "loss", "learning_rate", "grad_norm",
      "param_norm", "verdict", "loss_z" and "skipped" of shape [], and "source_loss_sum" and
      "source_tokens" of shape [num_sources].
    """
    c = training_config
    loss = make_loss(model_config, chunks=c.loss_chunks, z_loss=c.z_loss)
    gradient = make_gradient(loss, c.accumulation, dropout_of(order, c))
    learning_rate = optim.learning_rate(c.optimizer, order.steps)
    first_steps = [stage.first_step for stage in order.stages]
    may_skip = OnFault.SKIP in (c.faults.not_finite, c.faults.spike)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        grads, per_example_B = gradient(state.params, batch, state.step)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        loss_sums, tokens = loss_by_source(
            per_example_B, batch["loss_mask_BT"], batch["source_id_B"], num_sources
        )
        loss = per_example_B.sum() / jnp.maximum(tokens.sum(), 1.0)  # nats per counted token
        grad_norm = optax.tree.norm(grads)
        verdict, z, history = faults.classify_step(
            state.loss_history,
            loss,
            grad_norm,
            c.faults,
            new_stage=jnp.isin(state.step, jnp.array(first_steps)),
        )
        if may_skip:  # known when the step is compiled: a run that skips nothing copies nothing
            good = verdict == faults.StepVerdict.GOOD
            params = _select(good, params, state.params)
            optimizer_state = _select(good, optimizer_state, state.optimizer)
        values = {
            "loss": loss,
            "learning_rate": learning_rate(state.step),
            "grad_norm": grad_norm,
            "param_norm": optax.tree.norm(params),
            "source_loss_sum": loss_sums,
            "source_tokens": tokens,
            "verdict": verdict,
            "loss_z": z,
            "skipped": history.skipped,
        }
        return State(params, optimizer_state, state.step + 1, history), values

    return step


def make_loss(model_config: Model, *, chunks: int, z_loss: float) -> Loss:
    """Builds the loss of some rows of a batch as a function of the parameters.

    `chunks` and `z_loss`: see `weighted_loss`.
    """
    graph = decoder.abstract(model_config).graph

    def loss(
        params: decoder.Params, batch: Batch, total_weight: Array, dropout: Dropout | None
    ) -> tuple[Array, Array]:
        model = decoder.merge(Weights(graph, params))
        x_BTD = model(batch["tokens_BT"], batch["positions_BT"], batch["segment_ids_BT"], dropout)
        return weighted_loss(
            x_BTD,
            model.head(),
            batch["targets_BT"],
            batch["loss_mask_BT"],
            weights_B=jnp.ones(x_BTD.shape[:1]),
            total_weight=total_weight,
            chunks=chunks,
            z_loss=z_loss,
        )

    return loss


def make_gradient(loss: Loss, accumulation: int, dropout: DropoutSchedule) -> Gradient:
    """Builds the gradient of the loss of a batch, computed in `accumulation` parts.

    With A parts, part a has rows a, a + A, a + 2 A, ..., so that each device holds rows of every
    part. Gradient and losses are those of the whole batch.
    """
    grad = jax.grad(loss, has_aux=True)

    def gradient(params: decoder.Params, batch: Batch, step: Array) -> tuple[Any, Array]:
        # The denominator of the whole batch: the gradients of the parts add up to its gradient.
        total_weight = batch["loss_mask_BT"].sum()
        if accumulation == 1:
            return grad(params, batch, total_weight, dropout(step, 0))

        def add_part(sums: Any, scanned: tuple[Batch, Array]) -> tuple[Any, Array]:
            rows, index = scanned
            grads, per_example_B = grad(params, rows, total_weight, dropout(step, index))
            return jax.tree.map(jnp.add, sums, grads), per_example_B

        parts = jax.tree.map(lambda a: _interleaved_parts(a, accumulation), batch)
        start = jax.tree.map(jnp.zeros_like, params)
        grads, per_example_AB = jax.lax.scan(add_part, start, (parts, jnp.arange(accumulation)))
        return grads, per_example_AB.swapaxes(0, 1).reshape(-1)  # back to the rows' order

    return gradient


def compile_step(step: Step, state: State, batch: Batch) -> Any:
    """Compiles the step for the shapes and shardings of `state` and `batch` only.

    Other shapes raise an error instead of a second compilation. `state` is donated: its memory is
    reused for the new state.
    """
    like = jax.tree.map(lambda a: a.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(like, None)).lower(state, batch).compile()


def dropout_of(order: Order, training: Training) -> DropoutSchedule:
    """Builds (step, part of the batch) -> the dropout of its stage.

    It returns None, which costs nothing, if all stages have rate 0. The rate is an array, so that a
    change of stages needs no recompilation. The dropped elements are a pure function of (seed,
    step, part). Raises ValueError for a rate outside [0, 1).
    """
    rates = [stage.dropout for stage in training.stages]
    for stage in training.stages:
        if not 0 <= stage.dropout < 1:
            raise ValueError(
                f"stage {stage.name!r}: got dropout={stage.dropout}, expected 0 or more, below 1"
            )
    if not any(rates):
        return lambda step, part: None
    first_steps = [stage.first_step for stage in order.stages]

    def dropout(step: Array, part: Array | int) -> Dropout:
        stage = jnp.searchsorted(jnp.array(first_steps), step, side="right") - 1
        key = jax.random.fold_in(jax.random.key(training.seed), step)
        return Dropout(jnp.array(rates, jnp.float32)[stage], jax.random.fold_in(key, part))

    return dropout


def _select(good: Array, new: Any, old: Any) -> Any:
    """Returns `new` after a good step, else `old`; the step count of a schedule always advances."""

    def select(new: Any, old: Any) -> Any:
        if isinstance(new, optax.ScaleByScheduleState):
            return new
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

    return jax.tree.map(
        select, new, old, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
    )


def _interleaved_parts(a: Array, parts: int) -> Array:
    """Splits rows: [B, ...] -> [parts, B / parts, ...]; part p has rows p, p + parts, ..."""
    return a.reshape(a.shape[0] // parts, parts, *a.shape[1:]).swapaxes(0, 1)

"""The train step: a pure function (state, batch) -> (state, metrics), compiled before it runs."""

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


def make_step(
    model_config: Model,
    training_config: Training,
    optimizer: optax.GradientTransformation,
    order: Order,
    num_sources: int,
) -> Step:
    """One update of the parameters, and what is measured on the way.

    With `accumulation` = A, part a of the batch has rows a, a + A, a + 2 A, ..., so that each
    device has its share of every part; gradients and losses are those of the whole batch.

    A step that `training.faults` says to skip returns the parameters and moments that it was given.
    """
    graph = decoder.abstract(model_config).graph
    c = training_config
    learning_rate = optim.learning_rate(c.optimizer, order.steps)
    dropout = dropout_of(order, c)
    first_steps = [stage.first_step for stage in order.stages]
    may_skip = OnFault.SKIP in (c.faults.not_finite, c.faults.spike)

    def total_loss(
        params: decoder.Params, batch: Batch, total_weight: Array, drop: Dropout | None
    ) -> tuple[Array, Array]:
        model = decoder.merge(Weights(graph, params))
        x_BTD = model(batch["tokens_BT"], batch["positions_BT"], batch["segment_ids_BT"], drop)
        return weighted_loss(
            x_BTD,
            model.head(),
            batch["targets_BT"],
            batch["loss_mask_BT"],
            weights_B=jnp.ones(x_BTD.shape[:1]),
            total_weight=total_weight,
            chunks=c.loss_chunks,
            z_loss=c.z_loss,
        )

    def gradient(params: decoder.Params, batch: Batch, step: Array) -> tuple[Any, Array]:
        """(gradient, per_example_B) of the whole batch."""
        grad = jax.grad(total_loss, has_aux=True)
        total_weight = batch["loss_mask_BT"].sum()
        if c.accumulation == 1:
            return grad(params, batch, total_weight, dropout(step, 0))

        def part(sums: Any, scanned: tuple[Batch, Array]) -> tuple[Any, Array]:
            rows, index = scanned
            grads, per_example_B = grad(params, rows, total_weight, dropout(step, index))
            return jax.tree.map(jnp.add, sums, grads), per_example_B

        parts = jax.tree.map(lambda a: _cut(a, c.accumulation), batch)
        start = jax.tree.map(jnp.zeros_like, params)
        grads, per_example_AB = jax.lax.scan(part, start, (parts, jnp.arange(c.accumulation)))
        return grads, per_example_AB.swapaxes(0, 1).reshape(-1)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        grads, per_example_B = gradient(state.params, batch, state.step)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        loss_sums, tokens = loss_by_source(
            per_example_B, batch["loss_mask_BT"], batch["source_id_B"], num_sources
        )
        loss = per_example_B.sum() / jnp.maximum(tokens.sum(), 1.0)
        grad_norm = optax.tree.norm(grads)
        verdict, z, recent = faults.judge(
            state.loss_history,
            loss,
            grad_norm,
            c.faults,
            new_stage=jnp.isin(state.step, jnp.array(first_steps)),
        )
        if may_skip:
            good = verdict == faults.StepVerdict.GOOD
            params = _chosen(good, params, state.params)
            optimizer_state = _chosen(good, optimizer_state, state.optimizer)
        values = {
            "loss": loss,
            "learning_rate": learning_rate(state.step),
            "grad_norm": grad_norm,
            "param_norm": optax.tree.norm(params),
            "source_loss_sum": loss_sums,
            "source_tokens": tokens,
            "verdict": verdict,
            "loss_z": z,
            "skipped": recent.skipped,
        }
        return State(params, optimizer_state, state.step + 1, recent), values

    return step


def compile_step(step: Step, state: State, batch: Batch) -> Any:
    """Compiles for these shapes and places alone: another shape is an error, not a compilation."""
    like = jax.tree.map(lambda a: a.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(like, None)).lower(state, batch).compile()


def dropout_of(order: Order, training: Training) -> Callable[[Any, Any], Dropout | None]:
    """(step, part of the batch) -> the dropout of its stage; None, at no cost, if all rates are 0.

    The rate is an array: at a switch of stages nothing is compiled again. What is left out is a
    pure function of (seed, step, part). Raises ValueError for a rate outside [0, 1).
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


def _chosen(good: Array, new: Any, old: Any) -> Any:
    """`new` after a good step, else `old`; but the step of a schedule always moves on."""

    def choose(new: Any, old: Any) -> Any:
        if isinstance(new, optax.ScaleByScheduleState):
            return new
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

    return jax.tree.map(
        choose, new, old, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState)
    )


def _cut(a: Array, parts: int) -> Array:
    """[B, ...] -> [parts, B / parts, ...]."""
    return a.reshape(a.shape[0] // parts, parts, *a.shape[1:]).swapaxes(0, 1)

"""Optimizers with a warm-up, a schedule, clipping, and decay of matrices only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from hare_jax.config import Algorithm, Optimizer, Schedule

# The matrices of the stacked layers: axes that are summed over, and axes of the result.
MATRICES = {
    "q_DHK": MuonDimensionNumbers((1,), (2, 3)),
    "k_DGK": MuonDimensionNumbers((1,), (2, 3)),
    "v_DGK": MuonDimensionNumbers((1,), (2, 3)),
    "o_HKD": MuonDimensionNumbers((1, 2), (3,)),
    "gate_DF": MuonDimensionNumbers((1,), (2,)),
    "up_DF": MuonDimensionNumbers((1,), (2,)),
    "down_FD": MuonDimensionNumbers((1,), (2,)),
}
MUON_RMS = 0.2  # of an update of Muon, about that of AdamW: one rate serves both (arXiv 2502.16982)


def build(config: Optimizer, num_steps: int) -> optax.GradientTransformation:
    """Clips the gradient by its norm over all parameters, then takes the algorithm's step.

    AdamW (arXiv 1711.05101), Lion (arXiv 2302.06675), or Muon (arXiv 2502.16982): five
    Newton-Schulz iterations bring the momentum of each layer's matrix near the closest orthogonal
    one; heads are not apart. Weight decay is multiplied by the learning rate.
    """
    c, rate = config, learning_rate(config, num_steps)
    if c.algorithm is Algorithm.LION:
        step = optax.lion(rate, c.b1, c.b2, weight_decay=c.weight_decay, mask=decayed)
    else:
        step = optax.adamw(rate, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=decayed)
    if c.algorithm is Algorithm.MUON:
        of_matrices = muon(
            rate,
            beta=c.momentum,
            weight_decay=c.weight_decay,
            muon_weight_dimension_numbers=lambda params: _by_name(params, MATRICES.get),
            consistent_rms=MUON_RMS,
        )
        step = optax.partition(
            {"matrix": of_matrices, "other": step},
            lambda params: _by_name(params, lambda n: "matrix" if n in MATRICES else "other"),
        )
    return optax.chain(optax.clip_by_global_norm(c.clip_norm), step)


def decayed(params: Any) -> Any:
    """Which parameters weight decay pulls to zero: all but the scales of norms."""
    return _by_name(params, lambda name: name != "scale")


def _by_name(params: Any, value: Callable[[str], Any]) -> Any:
    """A tree like `params`, with what `value` says of the last name of each path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: value(path[-1].key), params)


def learning_rate(config: Optimizer, num_steps: int) -> optax.Schedule:
    """The learning rate of the step that follows `step` finished ones, float32.

    Warm-up is linear: peak * (step + 1) / warmup_steps. Then, with p from 0 to 1 over the rest,

        cosine     final + (peak - final) * (1 + cos(pi p)) / 2
        wsd        peak, and over the last decay_fraction of all steps linearly to final
        constant   peak

    Raises ValueError where the warm-up leaves no steps.
    """
    c = config
    if not 0 <= c.warmup_steps < num_steps:
        raise ValueError(
            f"optimizer.warmup_steps={c.warmup_steps}: expected 0 or more, and less than the "
            f"{num_steps} steps of the run"
        )
    if not 0 < c.decay_fraction <= 1:
        raise ValueError(f"optimizer.decay_fraction={c.decay_fraction}: expected in (0, 1]")
    final = c.peak_lr * c.final_lr_fraction

    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warmup = c.peak_lr * (step + 1) / max(c.warmup_steps, 1)
        if c.schedule is Schedule.COSINE:
            progress = (step - c.warmup_steps) / (num_steps - c.warmup_steps)
            after = final + (c.peak_lr - final) * (1 + jnp.cos(jnp.pi * progress)) / 2
        elif c.schedule is Schedule.WSD:
            progress = (step - num_steps * (1 - c.decay_fraction)) / (num_steps * c.decay_fraction)
            after = c.peak_lr + (final - c.peak_lr) * jnp.clip(progress, 0.0, 1.0)
        else:
            after = jnp.full((), c.peak_lr)
        return jnp.where(step < c.warmup_steps, warmup, after)

    return rate

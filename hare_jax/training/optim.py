"""Optimizers with warmup, a learning rate schedule, gradient clipping and weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from hare_jax.config import Algorithm, Optimizer, Schedule

# The matrices of the stacked layers, for Muon: input axes, then output axes. Axis 0 is L.
MATRICES = {
    "q_DHK": MuonDimensionNumbers((1,), (2, 3)),
    "k_DGK": MuonDimensionNumbers((1,), (2, 3)),
    "v_DGK": MuonDimensionNumbers((1,), (2, 3)),
    "o_HKD": MuonDimensionNumbers((1, 2), (3,)),
    "gate_DF": MuonDimensionNumbers((1,), (2,)),
    "up_DF": MuonDimensionNumbers((1,), (2,)),
    "down_FD": MuonDimensionNumbers((1,), (2,)),
}
# Root mean square of an update of Muon, about that of AdamW, so that both use the same learning
# rate (arXiv 2502.16982).
MUON_RMS = 0.2


def build(config: Optimizer, num_steps: int) -> optax.GradientTransformation:
    """Builds the optimizer: clipping by the global gradient norm, then the algorithm's update.

    The algorithms are AdamW (arXiv 1711.05101), Lion (arXiv 2302.06675) and Muon
    (arXiv 2502.16982). Muon approximates the orthogonal matrix nearest to the momentum of each
    layer's matrix by five Newton-Schulz iterations; all heads of an attention matrix are
    orthogonalized together. Embedding, head and norms use AdamW. Weight decay is multiplied by the
    learning rate.

    Raises ValueError if the schedule does not fit `num_steps`.
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
    """Returns which parameters get weight decay: all but the scales of norms."""
    return _by_name(params, lambda name: name != "scale")


def _by_name(params: Any, value: Callable[[str], Any]) -> Any:
    """Returns a tree like `params` with value(last name of the path) at each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: value(path[-1].key), params)


def learning_rate(config: Optimizer, num_steps: int) -> optax.Schedule:
    """Builds step -> learning rate, float32; step counts the finished steps.

    Warmup is linear: peak * (step + 1) / warmup_steps. Then, with p from 0 to 1 over the rest,

        cosine     final + (peak - final) * (1 + cos(pi p)) / 2
        wsd        peak, and over the last decay_fraction of all steps linearly to final
        constant   peak

    Raises ValueError if the warmup leaves no steps, or for a decay fraction outside (0, 1].
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

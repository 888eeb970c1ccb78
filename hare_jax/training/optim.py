"""AdamW with a warm-up, a schedule, clipping, and decay of matrices only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hare_jax.config import Optimizer, Schedule


def build(config: Optimizer, num_steps: int) -> optax.GradientTransformation:
    """Clips the gradient by its norm over all parameters, then AdamW (arXiv 1711.05101)."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, num_steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )


def decayed(params: Any) -> Any:
    """Which parameters weight decay pulls to zero: all but the scales of norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)


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

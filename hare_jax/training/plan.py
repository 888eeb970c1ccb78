"""What a run will do, said before it starts, and whether it is what it did before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hare_jax.config import Model, Training
from hare_jax.data import packed_dataset
from hare_jax.model import decoder


def make_plan(
    model_config: Model,
    training_config: Training,
    baked: packed_dataset.PackedDataset,
    order: packed_dataset.Order,
) -> dict[str, Any]:
    """plan.json: what will be drawn from where, and what it costs."""
    return {
        "stages": packed_dataset.plan(baked, order, training_config.max_epochs),
        "parameters": decoder.num_params(model_config),
        "tokens_per_step": training_config.batch_size * baked.sequence_length,
        "steps": order.steps,
        "flops_per_token": decoder.flops_per_token(model_config, baked.sequence_length),
    }


def describe(plan: dict[str, Any]) -> str:
    """The plan as a table to be read before the start."""
    lines = [
        f"{plan['parameters']:,} parameters, {plan['steps']:,} steps of "
        f"{plan['tokens_per_step']:,} tokens, {plan['flops_per_token'] / 1e9:.3f} GFLOP a token"
    ]
    for stage in plan["stages"]:
        lines.append(
            f"  stage {stage['name']} on mixture {stage['mixture']}: {stage['steps']:,} steps"
        )
        lines += [
            f"    {s['name']:<20} {s['tier']:<3} {s['weight']:>7.2%} "
            f"{s['tokens']:>16,} tokens {s['epochs']:>8.2f} epochs"
            for s in stage["sources"]
        ]
    return "\n".join(lines)


def check_past(saved: dict[str, Any], now: dict[str, Any], run_dir: Path) -> None:
    """Raises ValueError where the steps already done would have seen other data."""
    for name, value in now.items():
        if saved[name] != value:
            raise ValueError(
                f"{run_dir} was trained with {name}={saved[name]} up to its checkpoint, the config "
                f"gives {name}={value}: give the same, or another run directory"
            )

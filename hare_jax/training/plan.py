"""The plan of a run: data, steps and cost, printed before the start and saved as plan.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hare_jax.config import Model
from hare_jax.data import packed_dataset
from hare_jax.model import decoder


def make_plan(
    model_config: Model,
    dataset: packed_dataset.PackedDataset,
    order: packed_dataset.Order,
    max_epochs: float,
) -> dict[str, Any]:
    """Computes plan.json: what each stage draws from each source, and what a step costs.

    Args:
      model_config: the model.
      dataset: the data.
      order: the schedule of the run over it.
      max_epochs: limit on the repetitions of a source over the whole run.

    Raises:
      ValueError: if a source would be repeated more than `max_epochs` times.
    """
    return {
        "stages": packed_dataset.plan(dataset, order, max_epochs),
        "parameters": decoder.num_params(model_config),
        "tokens_per_step": order.batch_size * dataset.sequence_length,
        "steps": order.steps,
        "flops_per_token": decoder.flops_per_token(model_config, dataset.sequence_length),
    }


def describe(plan: dict[str, Any]) -> str:
    """Formats a plan as a table."""
    lines = [
        f"{plan['parameters']:,} parameters, {plan['steps']:,} steps of "
        f"{plan['tokens_per_step']:,} tokens, {plan['flops_per_token'] / 1e9:.3f} GFLOP per token"
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


def check_history(saved: dict[str, Any], now: dict[str, Any], run_dir: Path) -> None:
    """Raises ValueError if the config would have given the finished steps other batches.

    Args:
      saved: Order.history from the checkpoint.
      now: Order.history of the config, up to the same step.
      run_dir: named in the message.
    """
    for name, value in now.items():
        if saved[name] != value:
            raise ValueError(
                f"{run_dir} was trained with {name}={saved[name]} up to its checkpoint, the config "
                f"gives {name}={value}: give the same, or another run directory"
            )

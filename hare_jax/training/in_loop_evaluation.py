"""In-loop evaluation: scores the parameters every n steps of training, one row per evaluation.

A row of benchmarks.jsonl, whose estimates are those of evaluation/benchmarks/statistics.py:

    {"step": 200, "protocol": "current", "lm_eval": "0.4.13", "limit": 200, "benchmarks": {"piqa":
     {"score": {"value": 0.52, ...}, "bits_per_byte": {...}, "gold_log_likelihood": {...}}}}
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hare_jax.config import InLoopConfig, Model
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.model import decoder
from hare_jax.runtime import distributed
from hare_jax.runtime.watchdog import Watchdog
from hare_jax.tracking.metrics import Metrics, MetricsWriter, drop_rows_after

# (parameters, callback for a description of the current work) -> a row without its step. All
# processes call it together.
Evaluate = Callable[[decoder.Params, Callable[[str], None]], dict[str, Any]]
# Loads the benchmarks; raises if the settings do not fit.
Open = Callable[[Model, InLoopConfig, PackedDataset], Evaluate]


class InLoopEvaluation:
    """The schedule and the output of in-loop evaluation.

    evaluation/benchmarks/in_loop.py computes the scores. An evaluation follows the save of its
    step: a run that was killed during an evaluation resumes at its step, and the evaluation is then
    `pending` and runs before the next step.
    """

    def __init__(self, config: InLoopConfig, run_dir: Path, steps: int):
        """Stores the schedule.

        Args:
          config: settings of the evaluation.
          run_dir: the run's folder, which gets benchmarks.jsonl.
          steps: steps of the whole run.

        Raises:
          ValueError: if `every_steps` is negative.
        """
        if config.every_steps < 0:
            raise ValueError(
                f"training.in_loop.every_steps={config.every_steps}: expected 0 (never) or more"
            )
        self._every, self._steps, self._run_dir = config.every_steps, steps, run_dir
        self._path = run_dir / "benchmarks.jsonl"
        self._score: Evaluate | None = None
        self.pending = False

    def due(self, done: int) -> bool:
        """Returns whether an evaluation follows the first `done` steps."""
        return self._every > 0 and done > 0 and (done % self._every == 0 or done == self._steps)

    def start(self, first_step: int, open_: Callable[[], Evaluate] | None) -> None:
        """Removes rows of steps after `first_step`, and loads the benchmarks if any must run.

        Raises ValueError if evaluation is enabled without `open_`, and what `open_` raises.
        """
        evaluated = distributed.on_process_zero(lambda: self._drop_rows_after(first_step))
        if not self._every:
            return
        self.pending = self.due(first_step) and first_step not in evaluated
        if first_step == self._steps and not self.pending:
            return
        if open_ is None:
            raise ValueError(
                f"training.in_loop.every_steps={self._every}, but train.run got no benchmarks: run "
                "it by main.py, or pass evaluation.benchmarks.in_loop.Benchmarks"
            )
        self._score = open_()

    def run(self, done: int, params: decoder.Params, metrics: Metrics, watchdog: Watchdog) -> None:
        """Evaluates the parameters after `done` steps; the run's speed excludes the time.

        Args:
          done: finished steps.
          params: the parameters, over all devices.
          metrics: its running steps are fetched first, so that a bad step raises before the
            evaluation.
          watchdog: gets a description of the current work.
        """
        metrics.fetch()
        started = time.perf_counter()
        what = f"the evaluation at step {done}"
        watchdog.doing(what, no_limit=not distributed.is_process_zero())
        self._evaluate(done, params, metrics.show, lambda part: watchdog.doing(f"{what}: {part}"))
        metrics.exclude(time.perf_counter() - started)

    def run_pending(self, params: decoder.Params, wandb_project: str) -> None:
        """Runs the pending evaluation of a complete run, which was killed during it."""
        writer, failed = MetricsWriter(self._run_dir, self._steps, self._steps, wandb_project), True
        try:
            self._evaluate(self._steps, params, writer.show, lambda part: None)
            failed = False
        finally:
            writer.close(failed)

    def _evaluate(
        self,
        done: int,
        params: decoder.Params,
        show: Callable[[int, dict[str, float]], None],
        doing: Callable[[str], None],
    ) -> None:
        """Scores the parameters, appends the row, shows its curves, and prints one line."""
        assert self._score is not None  # loaded by `start`
        started = time.perf_counter()
        row = {"step": done, **self._score(params, doing)}
        if distributed.is_process_zero():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        show(done, _curves(row["benchmarks"]))
        distributed.print_once(f"{_line(row)} ({time.perf_counter() - started:.1f} s)")

    def _drop_rows_after(self, step: int) -> list[int]:
        """Removes the rows of later steps; returns the steps of the others."""
        if not self._path.exists():
            return []
        drop_rows_after(self._path, step)
        return [json.loads(line)["step"] for line in self._path.read_text("utf-8").splitlines()]


def _curves(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the scalars for trackers: benchmarks/piqa and benchmarks/piqa/bits_per_byte."""
    curves = {f"benchmarks/{name}": row["score"]["value"] for name, row in benchmarks.items()}
    for name, row in benchmarks.items():
        if row["bits_per_byte"] is not None:
            curves[f"benchmarks/{name}/bits_per_byte"] = row["bits_per_byte"]["value"]
    return curves


def _line(row: Mapping[str, Any]) -> str:
    """Formats a row: "benchmarks at step 200: piqa 0.5200 ± 0.0110"."""

    def score(estimate: Mapping[str, Any]) -> str:
        error = "" if estimate["stderr"] is None else f" ± {estimate['stderr']:.4f}"
        return f"{estimate['value']:.4f}{error}"

    scores = [f"{name} {score(part['score'])}" for name, part in row["benchmarks"].items()]
    return f"benchmarks at step {row['step']}: {', '.join(scores)}"

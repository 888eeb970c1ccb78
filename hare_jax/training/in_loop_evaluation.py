"""Looks at a run as it goes on: what others say of the parameters of the moment, a row a look.

A row of benchmarks.jsonl, with the scores as results.estimate gives them:

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
from hare_jax.tracking.metrics import Metrics, Rows, cut_back

# (parameters, who is told what is being done) -> a row without its step; in all processes at once.
Evaluate = Callable[[decoder.Params, Callable[[str], None]], dict[str, Any]]
Open = Callable[
    [Model, InLoopConfig, PackedDataset], Evaluate
]  # raises where the settings do not fit


class InLoopEvaluation:
    """When a run is looked at, and where that is written; see evaluation/benchmarks/in_loop.py for what.

    A look comes after the save of its step, so that a run that was killed in a look resumes there:
    then the look is owed, and taken before the next step.
    """

    def __init__(self, config: InLoopConfig, run_dir: Path, steps: int):
        if config.every_steps < 0:
            raise ValueError(
                f"training.in_loop.every_steps={config.every_steps}: expected 0 (never) or more"
            )
        self._every, self._steps, self._run_dir = config.every_steps, steps, run_dir
        self._path = run_dir / "benchmarks.jsonl"
        self._ask: Evaluate | None = None
        self.pending = False

    def due(self, done: int) -> bool:
        """Whether a look follows the step after which `done` are finished."""
        return self._every > 0 and done > 0 and (done % self._every == 0 or done == self._steps)

    def start(self, first_step: int, open_: Callable[[], Evaluate] | None) -> None:
        """Cuts the rows back to `first_step`, and opens what is asked, if anything is left to ask.

        Raises ValueError where there is nothing to open, and what `open_` raises.
        """
        written = distributed.on_process_zero(lambda: self._cut_back(first_step))
        if not self._every:
            return
        self.pending = self.due(first_step) and first_step not in written
        if first_step == self._steps and not self.pending:
            return
        if open_ is None:
            raise ValueError(
                f"training.in_loop.every_steps={self._every}, but train.run was given nothing that "
                "scores: run it by main.py, or give it evaluation.in_loop.Benchmarks"
            )
        self._ask = open_()

    def run(self, done: int, params: decoder.Params, metrics: Metrics, watchdog: Watchdog) -> None:
        """A look between two steps; its time is no part of the run's speed."""
        metrics.fetch()  # waits for the steps under way; after a bad one nothing is asked
        started = time.perf_counter()
        what = f"a look at step {done}"
        watchdog.doing(what, however_long=not distributed.is_process_zero())
        self._evaluate(done, params, metrics.show, lambda part: watchdog.doing(f"{what}: {part}"))
        metrics.paused(time.perf_counter() - started)

    def run_pending(self, params: decoder.Params, wandb_project: str) -> None:
        """The look that a complete run owes, having been killed in it."""
        rows, failed = Rows(self._run_dir, self._steps, self._steps, wandb_project), True
        try:
            self._evaluate(self._steps, params, rows.show, lambda part: None)
            failed = False
        finally:
            rows.close(failed)

    def _evaluate(
        self,
        done: int,
        params: decoder.Params,
        show: Callable[[int, dict[str, float]], None],
        doing: Callable[[str], None],
    ) -> None:
        assert self._ask is not None  # `begin` opened it
        started = time.perf_counter()
        row = {"step": done, **self._ask(params, doing)}
        if distributed.is_process_zero():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        show(done, _curves(row["benchmarks"]))
        distributed.print_once(f"{_line(row)} ({time.perf_counter() - started:.1f} s)")

    def _cut_back(self, step: int) -> list[int]:
        """The steps whose rows are left."""
        if not self._path.exists():
            return []
        cut_back(self._path, step)
        return [json.loads(line)["step"] for line in self._path.read_text("utf-8").splitlines()]


def _curves(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """ "benchmarks/piqa" and "benchmarks/piqa/bits_per_byte", for the boards."""
    curves = {f"benchmarks/{name}": row["score"]["value"] for name, row in benchmarks.items()}
    for name, row in benchmarks.items():
        if row["bits_per_byte"] is not None:
            curves[f"benchmarks/{name}/bits_per_byte"] = row["bits_per_byte"]["value"]
    return curves


def _line(row: Mapping[str, Any]) -> str:
    def score(estimate: Mapping[str, Any]) -> str:
        error = "" if estimate["stderr"] is None else f" ± {estimate['stderr']:.4f}"
        return f"{estimate['value']:.4f}{error}"

    scores = [f"{name} {score(part['score'])}" for name, part in row["benchmarks"].items()]
    return f"benchmarks at step {row['step']}: {', '.join(scores)}"

"""What a run writes down: metrics.jsonl, TensorBoard events, and the progress line."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

PLAIN_LINE_SECONDS = 5  # between lines where there is no terminal

# Dense bfloat16 FLOP/s by datasheet, for MFU; by jax.Device.device_kind.
PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


class NotFinite(RuntimeError):
    """A loss or gradient norm that is not a number; `step` is the first one, 0 for the first."""

    def __init__(self, step: int, loss: float, grad_norm: float):
        super().__init__(f"step {step + 1}: loss {loss}, gradient norm {grad_norm}")
        self.step = step


class Metrics:
    """Collects what the steps return and writes a row every `log_every` steps.

    A row is the mean of the steps since the row before, of one stage; the steps themselves stay on
    the device until then. `source_loss` is the mean over the counted tokens of each source.

    Steps that a checkpoint has but no row has yet travel in the checkpoint (`pending`), so that an
    interrupted run ends with the same rows as an uninterrupted one.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        sources: list[str],
        steps: int,
        log_every: int,
        tokens_per_step: int,
        flops_per_token: float,
        first_step: int = 0,
        pending: list[dict[str, Any]] | None = None,
    ):
        self.sources = sources
        self.log_every = log_every
        self.tokens_per_step = tokens_per_step
        self.flops_per_token = flops_per_token
        self._finished: list[dict[str, Any]] = list(pending or [])  # on the host
        self._running: list[tuple[int, Any]] = []  # on the device
        self._path = run_dir / "metrics.jsonl"
        cut_back(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)
        self._progress = ProgressLine(first_step, steps)
        self._since = time.perf_counter()
        self._timed_from = first_step
        self._input_wait = 0.0

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        self._board.close()
        self._file.close()

    def add(self, step: int, stage: str, values: dict[str, jax.Array], *, input_wait: float) -> None:
        """Takes the values of a step (0 for the first) without waiting for them.

        `values`: "loss", "learning_rate", "grad_norm", "param_norm" of [], and "source_loss_sum",
        "source_tokens" of [sources]. `input_wait`: seconds.
        """
        self._running.append((step, values))
        self._input_wait += input_wait
        last_of_stage = stage != self._stage_after(step, stage)
        if (step + 1) % self.log_every == 0 or last_of_stage:
            self.fetch()
            self._write_row(step + 1, stage)
        self._progress.step(step + 1)

    def _stage_after(self, step: int, stage: str) -> str:
        return stage

    def fetch(self) -> list[dict[str, Any]]:
        """Waits for the steps under way; returns those without a row, for the checkpoint.

        Raises NotFinite for the first step whose loss or gradient is not finite.
        """
        for step, values in [(step, jax.device_get(values)) for step, values in self._running]:
            host = {name: value.tolist() for name, value in values.items()}
            if not (math.isfinite(host["loss"]) and math.isfinite(host["grad_norm"])):
                raise NotFinite(step, host["loss"], host["grad_norm"])
            self._finished.append(host)
        self._running.clear()
        return self._finished

"""What a run measures, as rows of metrics.jsonl; the progress line and the boards show the same.

    {"step": 20, "stage": "stage 1", "loss": 7.95, "learning_rate": 0.003, "grad_norm": 0.8,
     "param_norm": 91.2, "skipped": 0, "tokens": 81920, "tokens_per_second": 1965.0,
     "mfu": null, "input_wait": 0.0002, "checkpoint_stall": 0.0, "memory_in_use": null,
     "memory_peak": null, "source_loss": {"web": 7.91, "code": 8.02}}

What each says stands in docs/training.md.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from hare_jax.data.order import StageSchedule
from hare_jax.files import write_text
from hare_jax.tracking.progress_bar import TrainingProgress
from hare_jax.tracking.trackers import TensorBoard, Tracker, WeightsAndBiases

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
MEANS = ("loss", "learning_rate", "grad_norm", "param_norm")
BY_SOURCE = ("source_loss_sum", "source_tokens")
# What a row has of the machine. All else follows from config and data: resumed, it is the same.
TIMED = (
    "tokens_per_second",
    "mfu",
    "input_wait",
    "checkpoint_stall",
    "memory_in_use",
    "memory_peak",
)


class Metrics:
    """Collects what the steps return and writes a row every `log_every` steps.

    A row is the mean of the steps since the row before, of one stage; the steps themselves stay on
    the device until then. `source_loss` is the mean over the counted tokens of each source. Steps
    that were left out are counted only (`skipped`); where all were, the row waits for one that was
    not. The first process writes, for all.

    Steps that a checkpoint has but no row has yet travel in the checkpoint (`pending`), so that an
    interrupted run ends with the same rows as an uninterrupted one.

    `counts(step, values)`: whether a step was learned from, by what it returned; it may raise.
    `devices`: of the whole mesh, for MFU.
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
        devices: Sequence[jax.Device],
        counts: Callable[[int, dict[str, Any]], bool],
        first_step: int = 0,
        pending: list[dict[str, Any] | None] | None = None,
        wandb_project: str = "",
    ):
        self.sources = sources
        self.log_every = log_every
        self.tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops(devices)
        self._counts = counts
        self._finished = list(pending or [])  # on the host; None is a step that was left out
        self._running: list[tuple[int, Any]] = []  # on the device
        self._rows = Rows(run_dir, first_step, steps, wandb_project)
        self._stall = 0.0
        self.start_clock(first_step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._rows.close(failed=kind is not None)

    def add(
        self, step: int, stage: StageSchedule, values: dict[str, jax.Array], *, input_wait: float
    ) -> None:
        """Takes what a step returned (0 for the first), without waiting for it until a row is due.

        `values`: "loss", "learning_rate", "grad_norm", "param_norm" of [], "source_loss_sum",
        "source_tokens" of [sources], and what `counts` wants. `input_wait`: seconds. Raises what
        `counts` raises.
        """
        self._running.append((step, values))
        self._input_wait += input_wait
        done = step + 1
        if done % self.log_every == 0 or done == stage.first_step + stage.steps:
            self.fetch()
            self._write_row(done, stage.name)
        self._rows.advance(done)

    def stalled(self, seconds: float) -> None:
        """Counts time in which a save kept the loop waiting."""
        self._stall += seconds

    def show(self, step: int, values: dict[str, float]) -> None:
        """Further curves on the boards."""
        self._rows.show(step, values)

    def fetch(self) -> list[dict[str, Any] | None]:
        """Waits for the steps under way; returns those without a row, for the checkpoint.

        Raises what `counts` raises, for the first such step.
        """
        for step, values in self._running:
            host = {name: value.tolist() for name, value in jax.device_get(values).items()}
            learned = self._counts(step, host)
            kept = {name: host[name] for name in MEANS + BY_SOURCE}
            self._finished.append(kept if learned else None)
        self._running.clear()
        return self._finished

    def sync(self) -> None:
        """Rows written so far survive a crash of the machine."""
        self._rows.sync()

    def start_clock(self, step: int) -> None:
        """Speed is measured from here: after compilation."""
        self._clock = (time.perf_counter(), step)
        self._input_wait = 0.0

    def paused(self, seconds: float) -> None:
        """Leaves out of the speed what was no training."""
        self._clock = (self._clock[0] + seconds, self._clock[1])

    def _write_row(self, done: int, stage: str) -> None:
        now = time.perf_counter()
        seconds, steps = now - self._clock[0], done - self._clock[1]
        speed = steps * self.tokens_per_step / seconds
        learned = [step for step in self._finished if step is not None]
        if not learned:
            return
        in_use, peak = memory()
        self._rows.write(
            {
                "step": done,
                "stage": stage,
                **means(learned),
                "skipped": len(self._finished) - len(learned),
                "tokens": done * self.tokens_per_step,
                "tokens_per_second": speed,
                "mfu": mfu(speed, self._flops_per_token, self._peak_flops),
                "input_wait": min(1.0, self._input_wait / seconds),
                "checkpoint_stall": self._stall,
                "memory_in_use": in_use,
                "memory_peak": peak,
                "source_loss": source_loss(self.sources, learned),
            }
        )
        self._finished.clear()
        self._stall = 0.0
        self.start_clock(done)


class Rows:
    """Where rows go: metrics.jsonl, the progress line, and the boards; on the first process."""

    def __init__(self, run_dir: Path, first_step: int, steps: int, wandb_project: str):
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = run_dir / "metrics.jsonl"
        cut_back(path, first_step)
        self._boards: list[Tracker] = [TensorBoard(run_dir, first_step)]
        if wandb_project:
            self._boards.append(WeightsAndBiases(run_dir, wandb_project))
        self._file = path.open("a", encoding="utf-8")
        self._progress = TrainingProgress(first_step, steps)

    def write(self, row: dict[str, Any]) -> None:
        if not self._writes:
            return
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        values = {
            f"train/{name}": float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step"
        }
        values |= {f"source_loss/{name}": value for name, value in row["source_loss"].items()}
        self.show(row["step"], values)
        self._progress.show(row)

    def show(self, step: int, values: dict[str, float]) -> None:
        for board in self._boards if self._writes else ():
            board.write(step, values)

    def advance(self, done: int) -> None:
        if self._writes:
            self._progress.advance(done)

    def sync(self) -> None:
        if self._writes:
            os.fsync(self._file.fileno())

    def close(self, failed: bool) -> None:
        if not self._writes:
            return
        self._progress.close()
        self._file.close()
        for board in self._boards:
            board.close(failed)


def means(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The plain means over steps, one at least."""
    return {name: math.fsum(step[name] for step in steps) / len(steps) for name in MEANS}


def source_loss(sources: Sequence[str], steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Nats a token of each source that had any in these steps."""
    sums, tokens = (
        [math.fsum(step[name][i] for step in steps) for i in range(len(sources))]
        for name in BY_SOURCE
    )
    return {
        source: total / count
        for source, total, count in zip(sources, sums, tokens, strict=True)
        if count
    }


def peak_flops(devices: Sequence[jax.Device]) -> float | None:
    """Sum of the devices' PEAK_FLOPS; None where one of them is not in the table."""
    peaks = [PEAK_FLOPS.get(device.device_kind) for device in devices]
    return None if None in peaks else math.fsum(peak or 0 for peak in peaks)


def mfu(tokens_per_second: float, flops_per_token: float, peak: float | None) -> float | None:
    """Model FLOP utilisation (arXiv 2204.02311, appendix B), a share in [0, 1]:

        tokens/s * FLOPs a token (decoder.flops_per_token) / sum of the devices' peak FLOP/s

    FLOPs are those of the model: what remat computes again does not count. None without a peak.
    """
    return None if peak is None else tokens_per_second * flops_per_token / peak


def memory() -> tuple[int | None, int | None]:
    """Bytes in use now, and at most since the process began: of its fullest device. None on CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    in_use = [s["bytes_in_use"] for s in stats if "bytes_in_use" in s]
    peak = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(in_use, default=None), max(peak, default=None)


def cut_back(path: Path, step: int) -> None:
    """Leaves the rows up to `step`: those after it, or half written, will be written again."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_text(path, b"".join(kept).decode())

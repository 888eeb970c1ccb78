"""Training metrics: the rows of metrics.jsonl, which the progress display and the trackers show.

    {"step": 20, "stage": "stage 1", "loss": 7.95, "learning_rate": 0.003, "grad_norm": 0.8,
     "param_norm": 91.2, "skipped": 0, "tokens": 81920, "tokens_per_second": 1965.0,
     "mfu": null, "input_wait": 0.0002, "checkpoint_stall": 0.0, "memory_in_use": null,
     "memory_peak": null, "source_loss": {"web": 7.91, "code": 8.02}}

docs/training.md explains each field.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hare_jax.data.order import StageSchedule
from hare_jax.files import write_text
from hare_jax.progress import TrainingProgress
from hare_jax.tracking.trackers import TensorBoard, Tracker, WeightsAndBiases

# Dense bfloat16 FLOP/s from the datasheets (half of those "with sparsity"), for MFU, by
# jax.Device.device_kind.
PEAK_FLOPS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200 120GB": 989e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA GH200 144G HBM3e": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,  # v5p
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12 / 2,  # of a chip, which is two devices
}
MEANS = ("loss", "learning_rate", "grad_norm", "param_norm")
BY_SOURCE = ("source_loss_sum", "source_tokens")
# The fields that depend on the machine. All others follow from config and data, so that a resumed
# run writes the same values.
TIMED = (
    "tokens_per_second",
    "mfu",
    "input_wait",
    "checkpoint_stall",
    "memory_in_use",
    "memory_peak",
)


@dataclass(slots=True)
class StepCost:
    """The size of a training step, for speed and MFU."""

    tokens: int  # of the global batch
    flops_per_token: float  # decoder.flops_per_token
    peak_flops: float | None  # FLOP/s of all devices of the mesh; None: not known


class Metrics:
    """The metrics of the training loop: one row per `log_every` steps, and one per end of a stage.

    A row holds means over the steps since the previous row; these steps belong to one stage. Their
    values stay on the device until the row is due. `source_loss` is the mean over the counted
    tokens of each source. Skipped steps are counted in `skipped` and enter no mean. If all steps
    since the previous row were skipped, the row is written with a later step that was not.

    Steps that a checkpoint includes but no row covers yet are saved in the checkpoint (`pending`),
    so that an interrupted run writes the same rows as an uninterrupted one.
    """

    def __init__(
        self,
        writer: MetricsWriter,
        sources: list[str],
        cost: StepCost,
        *,
        log_every: int,
        is_learned: Callable[[int, dict[str, Any]], bool],
        pending: list[dict[str, Any] | None] | None = None,
    ):
        """Starts the clock.

        Args:
          writer: writes the rows; closed at the end of the context.
          sources: names of the sources, by source id.
          cost: the size of a step.
          log_every: steps per row.
          is_learned: (step, its values on the host) -> False if the step was skipped. May raise.
          pending: steps without a row, from the checkpoint; None stands for a skipped step.
        """
        self.sources = sources
        self.log_every = log_every
        self._cost = cost
        self._is_learned = is_learned
        self._finished = list(pending or [])  # on the host; None is a skipped step
        self._running: list[tuple[int, Any]] = []  # on the device
        self._writer = writer
        self._stall = 0.0  # seconds
        self.start_clock(writer.first_step)

    def __enter__(self) -> Metrics:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes the writer."""
        self._writer.close(failed=kind is not None)

    def add(
        self, step: int, stage: StageSchedule, values: dict[str, jax.Array], *, input_wait: float
    ) -> None:
        """Records the values of a step; waits for the device only if a row is due.

        Args:
          step: 0 for the first.
          stage: the stage of the step.
          values: "loss", "learning_rate", "grad_norm", "param_norm" of shape [], "source_loss_sum",
            "source_tokens" of shape [sources], and what `is_learned` reads.
          input_wait: seconds that the loop waited for the batch.

        Raises:
          BadStepError: if `is_learned` raises it for one of the steps since the previous row.
        """
        self._running.append((step, values))
        self._input_wait += input_wait
        done = step + 1
        if done % self.log_every == 0 or done == stage.first_step + stage.steps:
            self.fetch()
            self._write_row(done, stage.name)
        self._writer.advance(done)

    def add_stall(self, seconds: float) -> None:
        """Adds time in which a save blocked the loop."""
        self._stall += seconds

    def show(self, step: int, values: dict[str, float]) -> None:
        """Shows further curves on the trackers."""
        self._writer.show(step, values)

    def fetch(self) -> list[dict[str, Any] | None]:
        """Waits for the running steps; returns all steps without a row, for the checkpoint.

        Raises what `is_learned` raises, for the first such step.
        """
        for step, values in self._running:
            host = {name: value.tolist() for name, value in jax.device_get(values).items()}
            learned = self._is_learned(step, host)
            kept = {name: host[name] for name in MEANS + BY_SOURCE}
            self._finished.append(kept if learned else None)
        self._running.clear()
        return self._finished

    def sync(self) -> None:
        """Flushes the rows to disk, so that they survive a crash of the machine."""
        self._writer.sync()

    def start_clock(self, step: int) -> None:
        """Starts the measurement of speed after `step` finished steps."""
        self._clock = (time.perf_counter(), step)
        self._input_wait = 0.0

    def exclude(self, seconds: float) -> None:
        """Excludes time from the speed that was not spent on training."""
        self._clock = (self._clock[0] + seconds, self._clock[1])

    def _write_row(self, done: int, stage: str) -> None:
        """Writes the row of the finished steps, unless all of them were skipped."""
        now = time.perf_counter()
        seconds, steps = now - self._clock[0], done - self._clock[1]
        speed = steps * self._cost.tokens / seconds
        learned = [step for step in self._finished if step is not None]
        if not learned:
            return
        in_use, peak = memory()
        self._writer.write(
            {
                "step": done,
                "stage": stage,
                **means(learned),
                "skipped": len(self._finished) - len(learned),
                "tokens": done * self._cost.tokens,
                "tokens_per_second": speed,
                "mfu": mfu(speed, self._cost.flops_per_token, self._cost.peak_flops),
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


class MetricsWriter:
    """A writer of rows to metrics.jsonl, the progress display and the trackers, on process 0."""

    def __init__(self, run_dir: Path, first_step: int, steps: int, wandb_project: str = ""):
        """Opens the outputs, and removes rows of steps after `first_step` from metrics.jsonl.

        Args:
          run_dir: the run's folder.
          first_step: finished steps.
          steps: steps of the whole run.
          wandb_project: of Weights & Biases; "": none.

        Raises:
          ValueError: if a project is given and the package wandb is not installed.
        """
        self.first_step = first_step
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = run_dir / "metrics.jsonl"
        drop_rows_after(path, first_step)
        self._trackers: list[Tracker] = [TensorBoard(run_dir, first_step)]
        if wandb_project:
            self._trackers.append(WeightsAndBiases(run_dir, wandb_project))
        self._file = path.open("a", encoding="utf-8")
        self._progress = TrainingProgress(first_step, steps)

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row to all outputs."""
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
        """Shows scalars on the trackers only."""
        for tracker in self._trackers if self._writes else ():
            tracker.write(step, values)

    def advance(self, done: int) -> None:
        """Moves the progress display to `done` finished steps."""
        if self._writes:
            self._progress.advance(done)

    def sync(self) -> None:
        """Flushes metrics.jsonl to disk."""
        if self._writes:
            os.fsync(self._file.fileno())

    def close(self, failed: bool) -> None:
        """Closes all outputs; `failed` marks the run as failed on the trackers."""
        if not self._writes:
            return
        self._progress.close()
        self._file.close()
        for tracker in self._trackers:
            tracker.close(failed)


def means(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Computes the means over one or more steps."""
    return {name: math.fsum(step[name] for step in steps) / len(steps) for name in MEANS}


def source_loss(sources: Sequence[str], steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Computes the loss of each source that has tokens in these steps, in nats per token."""
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
    """Returns the sum of the devices' PEAK_FLOPS; None if one of them is not in the table."""
    peaks = [PEAK_FLOPS.get(device.device_kind) for device in devices]
    return None if None in peaks else math.fsum(peak or 0 for peak in peaks)


def mfu(tokens_per_second: float, flops_per_token: float, peak: float | None) -> float | None:
    """Computes the model FLOP utilization (arXiv 2204.02311, appendix B), in [0, 1].

        tokens/s * FLOPs per token (decoder.flops_per_token) / sum of the devices' peak FLOP/s

    The FLOPs are those of the model: recomputation (remat) does not count.

    Args:
      tokens_per_second: measured speed, over all devices.
      flops_per_token: forward and backward pass.
      peak: FLOP/s of all devices; None: not known.

    Returns:
      None if the peak is not known.
    """
    return None if peak is None else tokens_per_second * flops_per_token / peak


def memory() -> tuple[int | None, int | None]:
    """Returns bytes in use and peak bytes in use, each the maximum over local devices.

    Both are None on a CPU, which keeps no statistics.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    in_use = [s["bytes_in_use"] for s in stats if "bytes_in_use" in s]
    peak = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(in_use, default=None), max(peak, default=None)


def drop_rows_after(path: Path, step: int) -> None:
    """Removes the rows of later steps and an incomplete last row from a file of JSON lines.

    A resumed run writes them again.
    """
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_text(path, b"".join(kept).decode())

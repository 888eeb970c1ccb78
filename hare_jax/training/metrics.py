"""What a run writes down: metrics.jsonl, TensorBoard events, and the progress line."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from hare_jax.training.order import Stretch

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
    """A loss or gradient norm that is not a number; `step` is the first such, 0 for the first."""

    def __init__(self, step: int, loss: float, grad_norm: float, advice: str = ""):
        super().__init__(f"step {step + 1}: loss {loss}, gradient norm {grad_norm}{advice}")
        self.step, self.loss, self.grad_norm = step, loss, grad_norm


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
        devices: Sequence[jax.Device],
        first_step: int = 0,
        pending: list[dict[str, Any]] | None = None,
    ):
        self.sources = sources
        self.log_every = log_every
        self.tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        peaks = [PEAK_FLOPS.get(device.device_kind) for device in devices]
        self._peak_flops = None if None in peaks else sum(peak or 0 for peak in peaks)
        self._finished: list[dict[str, Any]] = list(pending or [])  # on the host
        self._running: list[tuple[int, Any]] = []  # on the device
        self._path = run_dir / "metrics.jsonl"
        cut_back(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)
        self._progress = ProgressLine(first_step, steps)
        self.start_clock(first_step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        self._board.close()
        self._file.close()

    def add(
        self, step: int, stage: Stretch, values: dict[str, jax.Array], *, input_wait: float
    ) -> None:
        """Takes what a step returned (0 for the first), without waiting for it until a row is due.

        `values`: "loss", "learning_rate", "grad_norm", "param_norm" of [], and "source_loss_sum",
        "source_tokens" of [sources]. `input_wait`: seconds. Raises NotFinite, as `fetch` does.
        """
        self._running.append((step, values))
        self._input_wait += input_wait
        done = step + 1
        if done % self.log_every == 0 or done == stage.first_step + stage.steps:
            self.fetch()
            self._write_row(done, stage.name)
        self._progress.advance(done)

    def fetch(self) -> list[dict[str, Any]]:
        """Waits for the steps under way; returns those without a row, for the checkpoint.

        Raises NotFinite for the first step whose loss or gradient is not finite.
        """
        for step, values in self._running:
            host = {name: value.tolist() for name, value in jax.device_get(values).items()}
            if not (math.isfinite(host["loss"]) and math.isfinite(host["grad_norm"])):
                raise NotFinite(step, host["loss"], host["grad_norm"])
            self._finished.append(host)
        self._running.clear()
        return self._finished

    def sync(self) -> None:
        """Rows written so far survive a crash of the machine."""
        os.fsync(self._file.fileno())

    def start_clock(self, step: int) -> None:
        """Speed is measured from here: after compilation."""
        self._clock = (time.perf_counter(), step)
        self._input_wait = 0.0

    def _write_row(self, done: int, stage: str) -> None:
        now = time.perf_counter()
        seconds, steps = now - self._clock[0], done - self._clock[1]
        speed = steps * self.tokens_per_step / seconds
        source_loss = self._source_loss()
        row: dict[str, Any] = {
            "step": done,
            "stage": stage,
            **self._means(),
            "tokens": done * self.tokens_per_step,
            "tokens_per_second": speed,
            "mfu": self._mfu(speed),
            "input_wait": min(1.0, self._input_wait / seconds),
            "source_loss": source_loss,
        }
        self._finished.clear()
        self.start_clock(done)
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if isinstance(value, float):
                self._board.add_scalar(f"train/{name}", value, done)
        for name, value in source_loss.items():
            self._board.add_scalar(f"source_loss/{name}", value, done)
        self._progress.show(row)

    def _means(self) -> dict[str, float]:
        names = ("loss", "learning_rate", "grad_norm", "param_norm")
        steps = self._finished
        return {name: math.fsum(step[name] for step in steps) / len(steps) for name in names}

    def _source_loss(self) -> dict[str, float]:
        sums, tokens = (
            [math.fsum(column) for column in zip(*(s[name] for s in self._finished), strict=True)]
            for name in ("source_loss_sum", "source_tokens")
        )
        return {
            source: total / count
            for source, total, count in zip(self.sources, sums, tokens, strict=True)
            if count
        }

    def _mfu(self, tokens_per_second: float) -> float | None:
        """Share of the devices' peak that the model's FLOPs (decoder.flops_per_token) make up."""
        if self._peak_flops is None:
            return None
        return tokens_per_second * self._flops_per_token / self._peak_flops


def cut_back(path: Path, step: int) -> None:
    """Leaves the rows up to `step`: those after it, or half written, will be written again."""
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        if not line.endswith(b"\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(b"".join(kept))
    temporary.replace(path)


class ProgressLine:
    """A bar on a terminal; elsewhere a line at most every PLAIN_LINE_SECONDS."""

    def __init__(self, first_step: int, steps: int):
        self._first, self._steps = first_step, steps
        self._started = time.perf_counter()
        self._said = -math.inf
        self._bar: Progress | None = None
        console = Console(stderr=False)
        if console.is_terminal:
            columns = (
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=steps, completed=first_step, values="")
            self._bar.start()

    def advance(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def show(self, row: dict[str, Any]) -> None:
        """The values of a row of metrics.jsonl."""
        mfu = "" if row["mfu"] is None else f"  mfu {row['mfu']:.1%}"
        values = (
            f"{row['stage']}  loss {row['loss']:.4f}  {row['tokens_per_second']:,.0f} tokens/s{mfu}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], values=values)
            return
        now = time.perf_counter()
        if now - self._said < PLAIN_LINE_SECONDS and row["step"] < self._steps:
            return
        self._said = now
        left = (now - self._started) / (row["step"] - self._first) * (self._steps - row["step"])
        print(f"step {row['step']}/{self._steps}  {values}  {_clock(left)} left", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

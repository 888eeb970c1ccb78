"""The progress line of training: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 5  # between lines where there is no terminal


class TrainingProgress:
    """Shows rows of metrics.jsonl: loss, tokens/s, MFU where the peak is known, and time left."""

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
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], values=_values(row))
            return
        now = time.perf_counter()
        if now - self._said < PLAIN_LINE_SECONDS and row["step"] < self._steps:
            return
        self._said = now
        left = (now - self._started) / (row["step"] - self._first) * (self._steps - row["step"])
        print(f"step {row['step']}/{self._steps}  {_values(row)}  {_clock(left)} left", flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _values(row: dict[str, Any]) -> str:
    speed = f"{row['tokens_per_second']:,.0f} tokens/s"
    values = [row["stage"], f"loss {row['loss']:.4f}", speed]
    if row["mfu"] is not None:
        values.append(f"mfu {row['mfu']:.1%}")
    if row["skipped"]:
        values.append(f"{row['skipped']} skipped")
    return "  ".join(values)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

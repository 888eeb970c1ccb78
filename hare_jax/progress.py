"""Progress displays: a bar in a terminal; elsewhere one plain line at most every five seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 5.0  # least time between two plain lines


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Shows the progress of a loop; yields `advance(n)`, which counts n more units as done.

    Args:
      title: what the line begins with.
      total: number of units in all.
      unit: name of the units in the plural, such as "rows".
    """
    started = printed = time.monotonic()
    done = 0
    bar = _terminal_bar(transient=True)
    if bar is not None:
        with bar:
            task = bar.add_task(title, total=total, values="")

            def advance(count: int) -> None:
                nonlocal done
                done += count
                rate = done / max(time.monotonic() - started, 1e-9)
                bar.update(task, advance=count, values=f"{rate:,.0f} {unit}/s")

            yield advance
    else:

        def advance_plainly(count: int) -> None:
            nonlocal done, printed
            done += count
            now = time.monotonic()
            if now - printed >= PLAIN_LINE_SECONDS and 0 < done < total:
                printed = now
                rate = done / (now - started)
                left = (total - done) / rate
                print(
                    f"  {title}: {done:,} of {total:,} {unit}, {rate:,.0f} {unit}/s,"
                    f" {left:.0f} s left",
                    flush=True,
                )

        yield advance_plainly
    seconds = time.monotonic() - started
    print(f"  {title}: {done:,} {unit} in {seconds:.1f} s", flush=True)


class TrainingProgress:
    """The progress of training: step, loss, tokens/s, MFU where the peak is known, time left."""

    def __init__(self, first_step: int, steps: int):
        """Starts the display after `first_step` of `steps` finished steps."""
        self._first, self._steps = first_step, steps
        self._started = time.perf_counter()
        self._printed = -math.inf
        self._bar = _terminal_bar()
        if self._bar is not None:
            self._task = self._bar.add_task("train", total=steps, completed=first_step, values="")
            self._bar.start()

    def advance(self, done: int) -> None:
        """Moves the bar to `done` finished steps."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def show(self, row: dict[str, Any]) -> None:
        """Shows the values of a row of metrics.jsonl."""
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], values=_training_values(row))
            return
        now = time.perf_counter()
        if now - self._printed < PLAIN_LINE_SECONDS and row["step"] < self._steps:
            return
        self._printed = now
        left = (now - self._started) / (row["step"] - self._first) * (self._steps - row["step"])
        print(
            f"step {row['step']}/{self._steps}  {_training_values(row)}  {_clock(left)} left",
            flush=True,
        )

    def close(self) -> None:
        """Ends the display."""
        if self._bar is not None:
            self._bar.stop()


def _terminal_bar(transient: bool = False) -> Progress | None:
    """Returns a bar with the text field `values`, or None if the output is not a terminal."""
    console = Console()
    if not console.is_terminal:
        return None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=console, transient=transient)


def _training_values(row: dict[str, Any]) -> str:
    speed = f"{row['tokens_per_second']:,.0f} tokens/s"
    values = [row["stage"], f"loss {row['loss']:.4f}", speed]
    if row["mfu"] is not None:
        values.append(f"MFU {row['mfu']:.1%}")
    if row["skipped"]:
        values.append(f"{row['skipped']} skipped")
    return "  ".join(values)


def _clock(seconds: float) -> str:
    """Formats a duration: 75 s is "1:15", an hour more is "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

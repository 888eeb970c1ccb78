"""The progress of long work: a live bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False, soft_wrap=True)
PLAIN_EVERY = 5.0  # seconds between two plain lines


def human_bytes(count: float) -> str:
    """Returns a number of bytes for people.

    >>> human_bytes(12_345_678)
    '12.3 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_time(seconds: float) -> str:
    """Returns a duration for people.

    >>> human_time(75)
    '1:15'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rate(done: float, seconds: float) -> str:
    """Returns bytes per second, or "" if the sizes of the tasks are not bytes."""
    return f"{human_bytes(done / max(seconds, 1e-9))}/s, " if done >= 1000 else ""


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function `advance(bytes)`; `total` is the bytes that the work will read."""
    started = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]:>10}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=max(total, 1), rate="")

            def advance(count: int) -> None:
                done = bar.tasks[0].completed + count
                rate = _rate(done, time.monotonic() - started).rstrip(", ")
                bar.update(task, advance=count, rate=rate)

            yield advance
        return

    done = 0
    printed = started

    def advance_plainly(count: int) -> None:
        nonlocal done, printed
        done += count
        now = time.monotonic()
        if now - printed >= PLAIN_EVERY and done < total:
            printed = now
            left = human_time((total - done) * (now - started) / done) if done else "?"
            console.print(f"  {title}: {done / total:.0%}, {_rate(done, now - started)}{left} left")

    yield advance_plainly

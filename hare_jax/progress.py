"""Progress of an evaluation: a bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 5.0


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`, to be told of n more of `total` units done."""
    started = printed = time.monotonic()
    done = 0
    console = Console()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=total, rate="")

            def advance(count: int) -> None:
                nonlocal done
                done += count
                rate = done / max(time.monotonic() - started, 1e-9)
                bar.update(task, advance=count, rate=f"{rate:,.0f} {unit}/s")

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
                    f"  {title}: {done:,} of {total:,} {unit}, {rate:,.0f} a second,"
                    f" {left:.0f} s left",
                    flush=True,
                )

        yield advance_plainly
    seconds = time.monotonic() - started
    print(f"  {title}: {done:,} {unit} in {seconds:.1f} s", flush=True)

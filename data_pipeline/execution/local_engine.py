"""Runs one pure shard function over many shards, here: a pool of processes on this machine.

A shard function takes a picklable task and returns its ledger after its files are written; it
depends on nothing else. So any number of workers, in any order, writes the same bytes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Protocol, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Kinds = tuple[type[Exception], ...]
JOB = "job"  # a stage's folder for what an engine needs while it works, removed at the end


@dataclass(frozen=True, slots=True)
class Failed:
    """What a task came to that raised an error of a kind that was to be collected."""

    error: Exception


class ExecutionEngine(Protocol):
    """Whatever runs a shard function over shards; a context manager. `workers`: 0 if unknown."""

    workers: int

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: Kinds = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, result) in the order in which they finish.

        Args:
          function: module-level; called where the workers are.
          at_once: so many tasks at most are worked on at the same time; 0: as the engine likes.
          collect: errors of these kinds are yielded as `Failed` and the rest goes on. Any other
            error stops the rest and is raised.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def available_processors() -> int:
    """Processors that this process may use (fewer than the machine has inside a container)."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker(parent: int) -> None:
    """Ctrl-C is the parent's to handle, and a worker whose parent was killed must not live on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


class LocalEngine:
    """A context manager around a pool of worker processes, started at the first use.

    >>> with LocalEngine(workers=2) as engine:          # doctest: +SKIP
    ...     ledgers = dict(engine.run(clean_shard, tasks))
    """

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(f"workers: got {workers}, expected 0 (one a processor) or more")
        self.workers = workers or available_processors()
        self._pool: ProcessPoolExecutor | None = None

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: Kinds = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, result) as they finish; see `Engine.run`."""
        if not tasks:
            return
        if self._pool is None:
            # spawn, not fork: the parent may hold threads (JAX, progress bars) that do not survive.
            self._pool = ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(os.getpid(),),
            )
        waiting = iter(tasks)
        running: dict[Future[R], T] = {}
        try:
            while True:
                # Only so many are handed over at a time: a stage may have a million of them.
                for task in islice(waiting, (max_parallel or 4 * self.workers) - len(running)):
                    running[self._pool.submit(function, task)] = task
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
                for future in [f for f in running if f in done]:  # of two errors, the first is told
                    task = running.pop(future)
                    try:
                        result: R | Failed = future.result()
                    except collect as error:
                        result = Failed(error)
                    yield task, result
        except BrokenProcessPool:
            self._pool = None
            raise RuntimeError(
                "a worker process died, most likely killed for want of memory. Finished shards are "
                "kept: run the same command again, with fewer workers (--config.data.workers=1)."
            ) from None
        finally:
            for future in running:
                future.cancel()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            if kind is not None:
                for process in list(getattr(self._pool, "_processes", {}).values()):
                    process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

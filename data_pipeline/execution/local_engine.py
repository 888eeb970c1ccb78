"""Execution engines, and the local one: a pool of processes on this machine.

An engine calls a shard function for each of many tasks. A shard function depends on its picklable
task alone, writes files and returns a ledger. So any number of workers, in any order, writes the
same bytes.
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
JOB = "job"  # folder of a stage for an engine's own files, removed when the stage ends


@dataclass(frozen=True, slots=True)
class Failed:
    """The result of a task that raised an error of a kind that is collected."""

    error: Exception


class ExecutionEngine(Protocol):
    """An engine that calls a shard function for many tasks; a context manager.

    An engine that keeps workers between two calls of `run` ends them in `__exit__`.
    """

    workers: int  # number of worker processes; 0 if unknown

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: Kinds = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, result) in the order in which tasks finish.

        Args:
          function: a module-level function, called in worker processes.
          tasks: the arguments of its calls.
          max_parallel: maximum number of concurrent calls; 0 leaves it to the engine.
          collect: errors of these kinds are yielded as `Failed`, and the other tasks continue. Any
            other error stops the other tasks and is raised.
        """
        ...

    def __enter__(self) -> Self:
        """Returns the engine."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Does nothing: by default nothing is kept between stages."""
        return


def available_processors() -> int:
    """Returns the number of processors that this process may use; fewer inside a container."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent process, and ends the worker if the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def exit_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


class LocalEngine(ExecutionEngine):
    """A pool of worker processes on this machine, started at the first use; a context manager.

    >>> with LocalEngine(workers=2) as engine:          # doctest: +SKIP
    ...     ledgers = dict(engine.run(clean_shard, tasks))
    """

    def __init__(self, workers: int = 0) -> None:
        """Sets the number of worker processes; 0: one per processor."""
        if workers < 0:
            raise ValueError(f"workers: got {workers}, expected 0 (one per processor) or more")
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
        """Yields (task, result) in the order in which tasks finish; see `ExecutionEngine.run`."""
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
        pending = iter(tasks)
        running: dict[Future[R], T] = {}
        try:
            while True:
                # Only a few tasks are submitted at a time: a stage may have a million of them.
                for task in islice(pending, (max_parallel or 4 * self.workers) - len(running)):
                    running[self._pool.submit(function, task)] = task
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
                # In the order of submission, so that of two errors the first is raised.
                for future in [future for future in running if future in done]:
                    task = running.pop(future)
                    try:
                        result: R | Failed = future.result()
                    except collect as error:
                        result = Failed(error)
                    yield task, result
        except BrokenProcessPool:
            self._pool = None
            raise RuntimeError(
                "a worker process died, most likely because memory ran out. Finished shards are "
                "kept: run the same command again, with fewer workers (--config.data.workers=1)."
            ) from None
        finally:
            for future in running:
                future.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the workers; kills them if there was an exception."""
        if self._pool is not None:
            if kind is not None:
                for process in list(getattr(self._pool, "_processes", {}).values()):
                    process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

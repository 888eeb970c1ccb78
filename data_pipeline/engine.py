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
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Yields (task, result) as they finish; the first error stops the rest and is raised."""
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
        futures: dict[Future[R], T] = {self._pool.submit(function, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            self._pool = None
            raise RuntimeError(
                "a worker process died, most likely killed for want of memory. Finished shards are "
                "kept: run the same command again, with fewer workers (--config.data.workers=1)."
            ) from None
        finally:
            for future in futures:
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

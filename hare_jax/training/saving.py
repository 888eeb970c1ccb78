"""When training saves: by steps, by minutes, at a signal, and on the way out of an error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

import jax

from hare_jax.config import Checkpointing
from hare_jax.data.order import Order
from hare_jax.runtime import distributed
from hare_jax.runtime.watchdog import Watchdog
from hare_jax.tracking.metrics import Metrics
from hare_jax.training.checkpoint import Checkpoints, CheckpointSaveError
from hare_jax.training.faults import BadStepError
from hare_jax.training.state import State

SECONDS_PER_MINUTE = 60


class Saver:
    """Saves the state of the training loop.

        with Saver(...) as saver:
            for step in ...:
                state, values = step_fn(state, batch)
                saver.finished(state, step + 1)
                if saver.due(step + 1):
                    saver.save()

    At the end of the context, after an error that is not the state's own (a file that cannot be
    read, a failing tracker), the steps since the last save are saved, if they can be. With several
    processes they cannot: the others do not know of the error.
    """

    def __init__(
        self,
        config: Checkpointing,
        log_every: int,
        checkpoints: Checkpoints,
        metrics: Metrics,
        order: Order,
        watchdog: Watchdog,
    ):
        """Starts the clock.

        Args:
          config: how often to save.
          log_every: steps between the moments at which several processes agree on the time.
          checkpoints: where to save.
          metrics: fetched before a save, which raises for a bad step.
          order: its history is part of a checkpoint.
          watchdog: gets a description of the current work.
        """
        self._config, self._log_every = config, log_every
        self._checkpoints, self._metrics = checkpoints, metrics
        self._order, self._watchdog = order, watchdog
        self._latest: tuple[State, int] | None = None  # not saved yet
        self._saved_at = time.monotonic()

    def __enter__(self) -> Saver:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Saves after an error, if the state is good; the error continues in any case."""
        own = (BadStepError, CheckpointSaveError)
        if not isinstance(error, Exception) or isinstance(error, own) or self._latest is None:
            return
        state, done = self._latest
        if distributed.is_multi_process() or any(a.is_deleted() for a in jax.tree.leaves(state)):
            return
        try:
            self.save()
            self._checkpoints.wait()
            print(f"an error ends the run: saved step {done}", file=sys.stderr, flush=True)
        except Exception as second:
            print(f"step {done} could not be saved: {second}", file=sys.stderr, flush=True)

    def finished(self, state: State, done: int) -> None:
        """Takes the state after the first `done` steps; the next step may reuse its memory."""
        self._latest = (state, done)

    def due(self, done: int) -> bool:
        """Returns whether to save after the first `done` steps; equal in all processes."""
        if done % self._config.every_steps == 0 or done == self._order.steps:
            return True
        if not self._config.every_minutes:
            return False
        if distributed.is_multi_process() and done % self._log_every:
            return False
        seconds = self._config.every_minutes * SECONDS_PER_MINUTE
        return distributed.on_process_zero(lambda: time.monotonic() - self._saved_at >= seconds)

    def save(self) -> None:
        """Saves the latest state in the background.

        Raises:
          BadStepError: if one of the steps since the last save is bad.
          CheckpointSaveError: if this save cannot start, or the previous one has failed.
        """
        assert self._latest is not None
        state, done = self._latest
        pending = self._metrics.fetch()  # raises for a bad step, before a save after it
        self._metrics.sync()
        self._watchdog.doing(f"the save of step {done}")
        started = time.perf_counter()
        record: dict[str, Any] = {"past": self._order.history(done), "pending": pending}
        self._checkpoints.save(state, record)
        self._metrics.add_stall(time.perf_counter() - started)
        self._latest, self._saved_at = None, time.monotonic()

"""Preemption by SIGTERM or Ctrl-C: all processes save a checkpoint at the same step and exit."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from hare_jax.runtime import distributed


class PreemptionSignal:
    """A handler of SIGTERM and Ctrl-C; a second signal has its usual effect.

        with PreemptionSignal() as preemption:
            for step in ...:
                if number := preemption.requested(step):
                    save a checkpoint, then exit_after_save(number, ...)

    A cluster may send SIGTERM to only one of several processes. With several processes JAX's
    preemption service receives SIGTERM, and all processes agree on a step that none of them has
    passed yet. A query of it takes less than a microsecond and does not wait for the device, unlike
    an all-gather at every step. Ctrl-C is forwarded to the service.
    """

    def __enter__(self) -> PreemptionSignal:
        """Installs the handlers, if this is the main thread."""
        self._received: list[int] = []
        self._before: dict[int, Any] = {}
        self._multi_process = distributed.is_multi_process()
        # Python allows handlers only in the main thread.
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT] if self._multi_process else [signal.SIGINT, signal.SIGTERM]
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        """Records the signal, and restores the previous handler for a second one."""
        self._received.append(number)
        signal.signal(number, self._before[number])
        if self._multi_process:
            os.kill(os.getpid(), signal.SIGTERM)  # to JAX's preemption service

    def requested(self, step: int) -> int | None:
        """Returns the signal that makes `step` the last one, or None; equal in all processes.

        Every process calls it once for each finished step, in order.
        """
        if self._multi_process and not multihost_utils.reached_preemption_sync_point(step):
            return None
        sent_to_another = signal.SIGTERM if self._multi_process else None
        return self._received[0] if self._received else sent_to_another


def exit_after_save(number: int, step: int, steps: int) -> None:
    """Prints the saved step; raises SystemExit(128 + number), a shell's status for a signal."""
    name = signal.Signals(number).name
    distributed.print_once(f"{name}: saved step {step} of {steps}; run the same command to resume")
    raise SystemExit(128 + number)

"""SIGTERM and Ctrl-C: training saves, then leaves; several processes do so at the same step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils

from hare_jax.runtime import distributed


class PreemptionSignal:
    """Whether SIGTERM or Ctrl-C has asked for an end; a second signal does what it always does.

        with Stop() as stop:
            for step in ...:
                if number := stop.asked(step):
                    save, and leave(number, ...)

    A cluster may tell one process of several. There JAX's preemption service hears SIGTERM and has
    all processes agree on a step that none has passed: asking it costs less than a microsecond and
    does not wait for the device, where an all-gather would at every step, or stop late at every
    hundredth. Ctrl-C is passed on to it.
    """

    def __enter__(self) -> PreemptionSignal:
        self._received: list[int] = []
        self._before: dict[int, Any] = {}
        self._several = distributed.is_multi_process()
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            numbers = [signal.SIGINT] if self._several else [signal.SIGINT, signal.SIGTERM]
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)
        signal.signal(number, self._before[number])
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    def requested(self, step: int) -> int | None:
        """The signal after which this step is the last, or None; the same in all processes.

        Every process asks once for each finished step, in order.
        """
        if self._several and not multihost_utils.reached_preemption_sync_point(step):
            return None
        told_another = signal.SIGTERM if self._several else None
        return self._received[0] if self._received else told_another


def exit_after_save(number: int, step: int, steps: int) -> None:
    """Raises SystemExit with the status that shells give to a signal, saying where to go on."""
    name = signal.Signals(number).name
    distributed.print_once(
        f"{name}: saved step {step} of {steps}; the same command goes on from there"
    )
    raise SystemExit(128 + number)

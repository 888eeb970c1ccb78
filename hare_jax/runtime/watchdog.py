"""Says what the training loop waits for, and where every thread is, when it waits too long."""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time

LOOKS = 10  # at the loop, in the time that it is given
STDERR = 2  # the file itself: faulthandler writes without Python's help
HUNG = 75  # exit status of a process that ends itself: EX_TEMPFAIL, try again


class Watchdog:
    """Watches one loop, which says what it is `doing` as it goes on.

        with Watchdog(seconds=600, abort=False) as watchdog:
            for step in ...:
                watchdog.doing(f"step {step}")

    What lasts longer than `seconds` (0: any time) is told once on stderr, with the stacks of all
    threads; then it goes on waiting, or with `abort` ends the process with status HUNG. Should even
    this watch stand still, because some library keeps the interpreter to itself, faulthandler's own
    thread prints the stacks after twice the time.
    """

    def __init__(self, seconds: float, abort: bool):
        if seconds < 0:
            raise ValueError(f"training.faults.hang_seconds={seconds}: expected 0 or more")
        self._seconds, self._abort = seconds, abort
        self._now = ("", time.monotonic())  # what, and since when
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.doing("the start of the loop")
        if self._seconds:
            self._arm()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._seconds:
            self._thread.join()

    def doing(self, what: str, *, however_long: bool = False) -> None:
        """`however_long`: not to be told of, such as waiting for what another process does."""
        self._now = (what, math.inf if however_long else time.monotonic())

    def _watch(self) -> None:
        told = None
        try:
            while not self._ended.wait(self._seconds / LOOKS):
                self._arm()
                now = self._now
                if now is not told and time.monotonic() - now[1] > self._seconds:
                    told = now
                    self._tell(now[0])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """From now, for twice the time; each call takes the place of the one before."""
        faulthandler.dump_traceback_later(2 * self._seconds, exit=self._abort, file=STDERR)

    def _tell(self, what: str) -> None:
        then = "ending this process" if self._abort else "waiting on"
        message = f"!!! {what} has taken more than {self._seconds:g} s; {then}. All stacks:"
        print(message, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        if self._abort:
            os._exit(HUNG)

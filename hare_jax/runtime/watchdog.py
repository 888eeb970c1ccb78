"""A watchdog that reports a stalled training loop, with the stacks of all threads."""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time

CHECKS = 10  # of the loop, per time limit
STDERR = 2  # the file descriptor: faulthandler writes to it without the Python interpreter
HUNG = 75  # exit status of a process that ends itself: EX_TEMPFAIL of sysexits.h, try again


class Watchdog:
    """A watchdog of one loop, which reports its current activity through `doing`.

        with Watchdog(seconds=600, abort=False) as watchdog:
            for step in ...:
                watchdog.doing(f"step {step}")

    An activity that lasts longer than `seconds` is reported once on stderr, with the stacks of all
    threads. If a library holds the global interpreter lock, so that the watchdog's own thread does
    not run, faulthandler's C thread prints the stacks after twice the time.
    """

    def __init__(self, seconds: float, abort: bool):
        """Stores the limit.

        Args:
          seconds: time limit of one activity; 0: no limit.
          abort: ends the process with status HUNG after the report; otherwise it keeps waiting.

        Raises:
          ValueError: if `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"training.faults.hang_seconds={seconds}: expected 0 or more")
        self._seconds, self._abort = seconds, abort
        self._now = ("", time.monotonic())  # the current activity, and when it started
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Starts the watchdog's thread."""
        self.doing("the start of the loop")
        if self._seconds:
            self._arm()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the watchdog's thread."""
        self._ended.set()
        if self._seconds:
            self._thread.join()

    def doing(self, what: str, *, no_limit: bool = False) -> None:
        """Sets the current activity and restarts its time.

        `no_limit`: the activity may last any time, such as waiting for another process.
        """
        self._now = (what, math.inf if no_limit else time.monotonic())

    def _watch(self) -> None:
        """Checks the time of the current activity until the context ends."""
        reported = None
        try:
            while not self._ended.wait(self._seconds / CHECKS):
                self._arm()
                now = self._now
                if now is not reported and time.monotonic() - now[1] > self._seconds:
                    reported = now
                    self._report(now[0])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Restarts faulthandler's timer, which fires if this thread stops for twice the limit."""
        faulthandler.dump_traceback_later(2 * self._seconds, exit=self._abort, file=STDERR)

    def _report(self, what: str) -> None:
        """Prints the activity and all stacks to stderr; ends the process if `abort` is set."""
        then = "ending this process" if self._abort else "still waiting"
        message = f"!!! {what} has taken more than {self._seconds:g} s; {then}. All stacks:"
        print(message, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        if self._abort:
            os._exit(HUNG)

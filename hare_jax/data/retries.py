"""Reads that are repeated after an error: most errors of a network file system pass.

A long run reads so often that an error in ten million reads would end it many times, on all hosts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds before each repetition, longer each time: an overloaded server needs time to recover.
WAITS = (0.1, 0.4, 1.6, 6.4, 25.6, 60.0)
# A checksum that does not match is damage on disk, unless the bytes were damaged on their way.
WAITS_DAMAGED = (0.1, 0.4)
# Errors of the arguments, not of the file system.
PERMANENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

_repeated = 0
_lock = threading.Lock()


def num_repeated() -> int:
    """Returns how many reads this process has repeated so far."""
    return _repeated


def retried(read: Callable[[], T], what: str) -> T:
    """Returns `read()`; calls it again, after growing waits, as long as it fails.

    Args:
      read: raises OSError, or RuntimeError as the ArrayRecord reader does. Other errors, and those
        that no repetition mends (PERMANENT), are raised at once.
      what: the file or record that is read, for the line that is printed at each repetition.

    Raises:
      OSError, RuntimeError: the last error, if no call succeeded.
    """
    for attempt in range(len(WAITS) + 1):
        try:
            return read()
        except PERMANENT:
            raise
        except (OSError, RuntimeError) as error:
            waits = WAITS_DAMAGED if is_damage(error) else WAITS
            if attempt >= len(waits):
                raise
            # Of several hosts that failed together, each waits for another time.
            seconds = waits[attempt] * random.uniform(0.75, 1.25)
            print(
                f"  reading {what} failed: {error}; trying again in {seconds:.1f} s "
                f"({_count()} repeated reads in this process so far)",
                flush=True,
            )
            time.sleep(seconds)
    raise AssertionError("the last attempt returns or raises")


def is_damage(error: Exception) -> bool:
    """Returns whether an ArrayRecord reader's error says that the bytes are not those written."""
    return "Corrupted" in str(error)


def _count() -> int:
    """Counts a repeated read; returns how many there were."""
    global _repeated
    with _lock:
        _repeated += 1
        return _repeated

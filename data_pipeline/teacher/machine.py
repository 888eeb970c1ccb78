"""A folder that the processes of one machine may use together, and no other machine meanwhile."""

from __future__ import annotations

import fcntl
import platform
from pathlib import Path
from typing import IO

FILE = "machine.lock"


class LockedByOtherMachineError(OSError):
    """Another machine is at work in the folder."""


def claim(folder: Path, machine: str = "") -> IO[str]:
    """Claims the folder for this machine until the file that is returned is closed.

    The first process writes the machine's name under an exclusive lock; all keep a shared one,
    which ends with the process, however that ends. Network file systems show locks to all machines.

    Raises LockedByOtherMachineError, and OSError where the file system has no locks.
    """
    machine = machine or platform.node()
    file = (folder / FILE).open("a+", encoding="utf-8")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # in use; by whom is read below
        else:
            file.truncate(0)
            file.write(machine)
            file.flush()
        # Between giving up the one lock and getting the other another machine may come first.
        fcntl.flock(file, fcntl.LOCK_SH)
        file.seek(0)
        if (found := file.read()) != machine:
            raise LockedByOtherMachineError(
                f"{folder} is in use by the machine {found!r}, this is {machine!r}: answers are "
                "kept by one machine at a time. Wait until it is done, or set teacher.cache to "
                "another folder."
            )
    except BaseException:
        file.close()
        raise
    return file

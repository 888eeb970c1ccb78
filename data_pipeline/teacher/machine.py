"""A lock on a folder that processes of one machine share, and other machines must not use."""

from __future__ import annotations

import fcntl
import platform
from pathlib import Path
from typing import IO

FILE = "machine.lock"


class LockedByOtherMachineError(OSError):
    """Another machine uses the folder."""


def claim(folder: Path, machine: str = "") -> IO[str]:
    """Claims the folder for this machine until the returned file is closed.

    The first process writes the machine's name under an exclusive lock; all processes hold a shared
    lock, which ends with the process, however it ends. Network file systems show locks to all
    machines.

    Raises:
      LockedByOtherMachineError: another machine uses the folder.
      OSError: the file system has no locks.
    """
    machine = machine or platform.node()
    file = (folder / FILE).open("a+", encoding="utf-8")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # in use; the name in the file says by which machine
        else:
            file.truncate(0)
            file.write(machine)
            file.flush()
        # Another machine may take the lock between the release of one and the grant of the other.
        fcntl.flock(file, fcntl.LOCK_SH)
        file.seek(0)
        if (found := file.read()) != machine:
            raise LockedByOtherMachineError(
                f"{folder} is in use by the machine {found!r}, this is {machine!r}: one machine "
                "at a time may use it. Wait until the other one has finished, or set teacher.cache "
                "to another folder."
            )
    except BaseException:
        file.close()
        raise
    return file

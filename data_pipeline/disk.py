"""Files that are written whole or not at all, and what is said when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(OSError):
    """A file could not be written for want of space; `filename` is the file, `errno` the reason."""


@contextlib.contextmanager
def disk_full_explained(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk into DiskFull, which says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFull(
            error.errno,
            f"{error.strerror}. Finished shards are kept: free some space and the same "
            "command goes on from here. It was writing",
            str(path),
        ) from error


@contextlib.contextmanager
def _whole(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A file under a temporary name; synced and renamed to `path` on a clean exit, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with disk_full_explained(path), partial.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with _whole(path, "w") as file:
        file.write(text)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes an .npz file, the same bytes for the same arrays."""
    with _whole(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]

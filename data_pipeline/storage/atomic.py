"""Files that are written completely or not at all, locally or in an object store.

A file is written under a temporary name on a local disk. It appears under its own name by a rename,
after it was synced, or by an upload if the name is that of an object. An upload needs no second
name: an object appears, or changes, only when all its bytes have arrived.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data_pipeline.storage.object_store import ObjectStorePath, is_remote

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEPT = "Finished shards are kept: free some space, and the same command continues from here."


class DiskFullError(OSError):
    """There was no space for a file. `filename` is the file, `errno` the reason."""


@contextlib.contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Converts the errors of a full disk into DiskFullError, which states what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        what = f"{error.strerror}. {KEPT} File"
        raise DiskFullError(error.errno, what, str(path)) from error


def temporary_path(path: Path) -> Path:
    """Returns a unique local name for a file that becomes `path` by `publish`.

    Two workers may write one file (a cluster runs work twice); their bytes must not mix.
    """
    name = f".{path.name}.{uuid.uuid4().hex}.partial"
    if is_remote(path):
        return Path(tempfile.gettempdir(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(name)


def publish(temporary: Path, path: Path) -> None:
    """Renames or uploads a closed and synced temporary file to its own name."""
    if is_remote(path):
        cast(ObjectStorePath, path).upload(temporary)
    else:
        temporary.replace(path)


@contextlib.contextmanager
def atomic_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Provides temporary names; a clean exit syncs and publishes the files, others remove them.

    A killed process leaves files that match ".*.partial" and are never read.
    """
    temporary = [temporary_path(path) for path in paths]
    try:
        yield temporary
        for file in temporary:
            with file.open("rb") as written:
                os.fsync(written.fileno())
        for file, path in zip(temporary, paths, strict=True):
            publish(file, path)
    finally:
        for file in temporary:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_atomically(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Opens a file that appears under its name only after it is complete."""
    encoding = None if "b" in mode else "utf-8"
    with (
        explain_disk_full(path),
        atomic_files([path]) as (temporary,),
        temporary.open(mode, encoding=encoding) as file,
    ):
        yield file


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, in UTF-8."""
    with _open_atomically(path, "w") as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with _open_atomically(path, "wb") as file:
        file.write(content)


def write_arrays(path: Path, **arrays: np.ndarray) -> str:
    """Writes an .npz file atomically, and returns its sha256 (hex).

    The same arrays give the same bytes.
    """
    with _open_atomically(path, "w+b") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file."""
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Provides `path` itself if it is local, or a temporary local copy of the object."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, explain_disk_full(path):
        copy = Path(folder, path.name)
        cast(ObjectStorePath, path).download(copy)
        yield copy


def list_names(folder: Path) -> set[str]:
    """Returns the names of the files in a folder, with one listing; empty if there is no folder."""
    if is_remote(folder):
        files = cast(ObjectStorePath, folder).walk_files()
        return {file.name for file in files if "/" not in file.name}
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_file()}
    except FileNotFoundError:
        return set()


def remove_temporary_files(directory: Path) -> list[Path]:
    """Removes temporary files of killed writers from a local directory, and returns their paths."""
    if is_remote(directory):
        return []
    left = sorted(directory.glob(".*.partial"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


def remove_files(folder: Path) -> None:
    """Removes a folder that contains only files, if it exists."""
    for name in list_names(folder):
        (folder / name).unlink(missing_ok=True)
    if not is_remote(folder) and folder.is_dir():
        folder.rmdir()

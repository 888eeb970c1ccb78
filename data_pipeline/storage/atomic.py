"""Files that are written whole or not at all, here or in an object store, and what is said when the
disk is full.

What is written goes into a partial file on a local disk first. Under its own name it appears by a
rename, after it was synced; or, where that name is an object's, by an upload. An upload needs no
second name: an object is not there, or not changed, until all its bytes are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from data_pipeline.storage.object_store import ObjectStorePath, is_remote

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
KEPT = "Finished shards are kept: free some space and the same command goes on from here."


class DiskFullError(OSError):
    """A file could not be written for want of space; `filename` is the file, `errno` the reason."""


@contextlib.contextmanager
def explain_disk_full(path: Path) -> Iterator[None]:
    """Turns the errors of a full disk into DiskFullError, which says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        what = f"{error.strerror}. {KEPT} It was writing"
        raise DiskFullError(error.errno, what, str(path)) from error


def temporary_path(path: Path) -> Path:
    """A local name of its own for what is to become `path`: `publish` it, and remove what is left.

    Two workers may write one file (a cluster runs work twice): they must not mix their bytes.
    """
    name = f".{path.name}.{uuid.uuid4().hex}.partial"
    if is_remote(path):
        return Path(tempfile.gettempdir(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(name)


def publish(partial: Path, path: Path) -> None:
    """Makes a partial file, closed and synced, appear under its name; an uploaded one stays too."""
    if is_remote(path):
        cast(ObjectStorePath, path).upload(partial)
    else:
        partial.replace(path)


@contextlib.contextmanager
def atomic_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Names for a library to write files to; on a clean exit they are synced and published, else
    removed. What a killed process leaves matches ".*.partial" and is never read."""
    partial = [temporary_path(path) for path in paths]
    try:
        yield partial
        for file in partial:
            with file.open("rb") as written:
                os.fsync(written.fileno())
        for file, path in zip(partial, paths, strict=True):
            publish(file, path)
    finally:
        for file in partial:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def _whole(path: Path, mode: str) -> Iterator[IO[Any]]:
    encoding = None if "b" in mode else "utf-8"
    with (
        explain_disk_full(path),
        atomic_files([path]) as (partial,),
        partial.open(mode, encoding=encoding) as file,
    ):
        yield file


def write_text(path: Path, text: str) -> None:
    with _whole(path, "w") as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    with _whole(path, "wb") as file:
        file.write(content)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes an .npz file, the same bytes for the same arrays."""
    with _whole(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file."""
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """`path` itself where it is local, else a local copy of the object that is removed again."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, explain_disk_full(path):
        copy = Path(folder, path.name)
        cast(ObjectStorePath, path).download(copy)
        yield copy


def list_names(folder: Path) -> set[str]:
    """The names of the files in a folder, none where there is no folder: one listing for all."""
    if is_remote(folder):
        files = cast(ObjectStorePath, folder).walk_files()
        return {file.name for file in files if "/" not in file.name}
    try:
        return {entry.name for entry in os.scandir(folder) if entry.is_file()}
    except FileNotFoundError:
        return set()


def remove_temporary_files(directory: Path) -> list[Path]:
    """Removes what killed writers left in a local directory, and says what it was."""
    if is_remote(directory):
        return []
    left = sorted(directory.glob(".*.partial"))
    for path in left:
        path.unlink(missing_ok=True)
    return left


def remove_files(folder: Path) -> None:
    """Removes a folder that holds nothing but files, if it is there."""
    for name in list_names(folder):
        (folder / name).unlink(missing_ok=True)
    if not is_remote(folder) and folder.is_dir():
        folder.rmdir()

"""Output folders and files that appear under their name only when they are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(out: str) -> Iterator[Path]:
    """Yields a temporary folder to write into; it is renamed to `out` at the end.

    If anything is raised, the temporary folder is removed.

    Raises:
      ValueError: `out` is "".
      FileExistsError: `out` exists and is not empty.
    """
    if not out:
        raise ValueError("out: got nothing, expected a new folder: --config.out=DIR")
    path = Path(out).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"out: {path} exists already; remove it, or name a new folder")
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was killed
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            path.rmdir()
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def new_file(out: str) -> Iterator[Path]:
    """Yields a temporary path to write to; it is renamed to `out` at the end.

    Raises:
      ValueError: `out` is "".
      FileExistsError: `out` exists.
    """
    if not out:
        raise ValueError("out: got nothing, expected a new file: --config.out=model.gguf")
    path = Path(out).absolute()
    if path.exists():
        raise FileExistsError(f"out: {path} exists already; remove it, or name a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)

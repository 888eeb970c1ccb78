"""A folder that is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(out: str) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end; removed where something goes wrong.

    Raises ValueError where `out` is no name, FileExistsError where it is there and not empty.
    """
    if not out:
        raise ValueError("out: got nothing, expected a new folder: --config.out=DIR")
    path = Path(out).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"out: {path} is there already; remove it, or give a new folder")
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

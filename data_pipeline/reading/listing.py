"""What a reader lists before anything is read, and its word for a source that is not there."""

from __future__ import annotations

from typing import NamedTuple


class InputFile(NamedTuple):
    """A part of a source that one worker reads: a file, a shard, a range of rows."""

    name: str
    bytes: int
    version: str  # with name and size: what tells that an item is no longer the same


class MissingSourceError(ValueError):
    """There is nothing to read where a source should be: no file, no dataset, no package."""

"""Types shared by the readers: a listed part of a source, and the error for a missing source."""

from __future__ import annotations

from typing import NamedTuple


class InputFile(NamedTuple):
    """A part of a source that one worker reads: a file, a shard or a range of rows.

    Attributes:
      name: identifies the part within its source.
      bytes: its size.
      version: changes when the content changes, if name and size do not.
    """

    name: str
    bytes: int
    version: str


class MissingSourceError(ValueError):
    """A source that does not exist: a missing file, dataset or package."""

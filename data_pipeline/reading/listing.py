"""What the readers share: a listed part of a source, its error, and fields of rows."""

from __future__ import annotations

from typing import NamedTuple

LICENSE_FIELDS = ("licence", "license")  # data sets use both spellings
META_FIELDS = (*LICENSE_FIELDS, "url")  # of a row that are copied into a document's meta


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

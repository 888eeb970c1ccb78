"""Shards on disk: `.jsonl.zst`, one document per line, written completely or not at all.

The same documents give the same bytes: keys in one order, one compression level, one thread. A
shard appears under its name only when it is complete; until then it has a unique temporary name, so
that two writers of one shard (a cluster runs work twice) cannot mix their bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from backports import zstd

from data_pipeline.storage.atomic import explain_disk_full, publish, temporary_path
from data_pipeline.storage.compressed import TruncatedInputError, read_chunks, split_lines
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.storage.object_store import storage_path

LEVEL = 3
BLOCK_BYTES = 1 << 20  # of lines that are compressed together
_ZSTD: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# orjson also accepts dates, which would be read back as strings.
_OPTIONS = (
    orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_LARGE = 2.0**63  # orjson reads integers beyond 64 bits as floats


class TruncatedShardError(ValueError):
    """A shard ends inside its compressed frame."""


class RowWriter:
    """A writer of JSON objects, one per line, compressed; the base of the two writers below.

    As a context manager: a clean exit flushes, syncs and renames the file and then sets `sha256`
    (of the compressed bytes); an exception removes what was written. `rows` counts the lines.
    """

    def __init__(self, path: str | Path):
        """Takes the path of the shard, local or in an object store."""
        self.path = storage_path(path)
        self.sha256 = ""
        self.rows = 0

    def __enter__(self) -> Self:
        """Opens the temporary file."""
        self._temporary = temporary_path(self.path)
        self._pending: list[bytes] = []
        self._num_pending = 0
        self._hash = hashlib.sha256()
        self._zstd = zstd.ZstdCompressor(options=_ZSTD)
        with explain_disk_full(self.path):
            # Unbuffered: closing has nothing to flush.
            self._file = self._temporary.open("xb", buffering=0)
        return self

    def write_row(self, row: dict[str, Any]) -> None:
        """Writes one object.

        Raises:
          ValueError: the row is not JSON (NaN, a lone surrogate).
          DiskFullError: there is no space left.
        """
        try:
            line = _encode_line(row)
        except ValueError as error:  # includes UnicodeEncodeError
            name = row.get("id", f"row {self.rows}")
            raise ValueError(f"{self.path}: {name!r} cannot be written as JSON: {error}") from error
        self._pending.append(line)
        self._num_pending += len(line)
        self.rows += 1
        if self._num_pending >= BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Compresses the pending lines."""
        if not self._pending:  # an empty piece would change the header of an empty frame
            return
        self._write_compressed(self._zstd.compress(b"".join(self._pending)))
        self._pending, self._num_pending = [], 0

    def _write_compressed(self, compressed: bytes) -> None:
        """Writes compressed bytes and adds them to the hash."""
        self._hash.update(compressed)
        rest = memoryview(compressed)
        with explain_disk_full(self.path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publishes the file, or removes it after an exception."""
        try:
            if kind is None:
                self._flush()
                self._write_compressed(self._zstd.flush())
                with explain_disk_full(self.path):
                    os.fsync(self._file.fileno())
                self._file.close()
                publish(self._temporary, self.path)
                self.sha256 = self._hash.hexdigest()
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)


class ShardWriter(RowWriter):
    """A writer of documents.

    One line of a shard, before compression:

        {"id":"web/7","text":"Hares are fast.","source":"web","category":"web","meta":{}}
    """

    def write(self, document: Document) -> None:
        """Writes one document; raises as `write_row`."""
        self.write_row(_row(document))


class DroppedWriter(RowWriter):
    """A writer of dropped documents: {"stage","reason","evidence","id","text","source",...}."""

    def write(self, stage: str, dropped: Dropped) -> None:
        """Writes one dropped document; raises as `write_row`."""
        why = {"stage": stage, "reason": dropped.reason, "evidence": dropped.evidence}
        self.write_row(why | _row(dropped.document))


def read_shard(path: str | Path) -> Iterator[Document]:
    """Yields the documents that a ShardWriter wrote.

    Raises:
      TruncatedShardError: the file ends early.
      ValueError: a line is not a document; the message names path and line. Earlier documents were
        yielded.
    """
    for line, row in _numbered_rows(path):
        yield _document(row, path, line)


def read_dropped(path: str | Path) -> Iterator[tuple[str, Dropped]]:
    """Yields (stage, dropped document) as a DroppedWriter wrote them; raises as `read_shard`."""
    for line, row in _numbered_rows(path):
        try:
            stage, reason, evidence = row.pop("stage"), row.pop("reason"), row.pop("evidence")
        except KeyError as error:
            raise _corrupt(path, line, f"missing key {error}") from None
        yield stage, Dropped(_document(row, path, line), reason, evidence)


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects that a RowWriter wrote; raises as `read_shard`."""
    for _, row in _numbered_rows(path):
        yield row


def numbered(name: str, number: int, count: int) -> str:
    """Returns the name of a shard by its number among `count`; names sort as numbers do.

    >>> numbered("web", 7, count=20), numbered("web", 7, count=2_000_000)
    ('web-00007', 'web-0000007')
    """
    return f"{name}-{number:0{max(5, len(str(count - 1)))}d}"


def _encode_line(row: dict[str, Any]) -> bytes:
    """Returns a row as a line of JSON; raises ValueError or TypeError."""
    try:
        line = orjson.dumps(row, option=_OPTIONS)
        if b"null" not in line:  # orjson writes NaN as null
            return line
    except orjson.JSONEncodeError:  # also raised for integers of more than 64 bits
        pass
    return _encode(row).encode() + b"\n"


def _parse_line(line: bytes) -> Any:
    """Returns the row of a line that `_encode_line` wrote; raises ValueError."""
    try:
        value = orjson.loads(line)
    except ValueError:  # also raised for deep nesting
        return json.loads(line)
    return json.loads(line) if _has_large_float(value) else value


def _has_large_float(value: Any) -> bool:
    """Returns whether a value contains a float that may have been an integer over 64 bits."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, float) and abs(value) >= _LARGE:
            return True
    return False


def _row(document: Document) -> dict[str, Any]:
    """Returns a document as a row."""
    return {
        "id": document.id,
        "text": document.text,
        "source": document.source,
        "category": document.category,
        "meta": document.meta,
    }


def _document(row: dict[str, Any], path: str | Path, line: int) -> Document:
    """Returns the document of a row; raises ValueError if it is not one."""
    try:
        document = Document(**row)
    except TypeError as error:  # names the missing or unexpected key
        raise _corrupt(path, line, str(error)) from error
    if not isinstance(document.id, str) or not isinstance(document.text, str):
        raise _corrupt(path, line, "id and text must be strings")
    return document


def _numbered_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, row) of a shard."""
    path = storage_path(path)
    number = 0
    try:
        for number, (_, line, _) in enumerate(split_lines(read_chunks(path)), start=1):
            try:
                row = _parse_line(line)
            except ValueError as error:
                raise _corrupt(path, number, str(error)) from error
            if not isinstance(row, dict):
                raise _corrupt(path, number, f"expected an object, got {type(row).__name__}")
            yield number, row
        if not number:
            with path.open("rb") as file:
                if not file.read(1):
                    what = "is empty; expected at least an empty zstd frame"
                    raise TruncatedShardError(f"{path} {what}")
    except TruncatedInputError as error:
        raise TruncatedShardError(str(error)) from error


def _corrupt(path: str | Path, line: int, what: str) -> ValueError:
    """Returns the error for a line that is not a document."""
    return ValueError(f"{path}, line {line}: {what}. Delete the shard and run again.")

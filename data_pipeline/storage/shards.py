"""Shards on disk: `.jsonl.zst`, a document a line, written whole or not at all.

The same documents give the same bytes: keys in one order, one compression level, one thread. A
shard exists under its name only when it is complete; while it is written it has a name of its own
beside it, so that two writers of one shard (a cluster runs work twice) cannot mix their bytes.
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
BLOCK_BYTES = 1 << 20  # lines gathered before they are compressed
_ZSTD: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# orjson writes dates too, which would be read as strings.
_OPTIONS = (
    orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_LARGE = 2.0**63


class TruncatedShardError(ValueError):
    """A shard ends before its compressed frame does."""


class RowWriter:
    """Writes JSON objects to `path`, one a line, compressed; the base of the two writers below.

    A context manager: a clean exit flushes, syncs and renames the file into place and then sets
    `sha256` (of the compressed bytes); an exception removes what was written. `rows` counts lines.
    Raises DiskFull, and ValueError for a row that is not JSON (NaN, a lone surrogate).
    """

    def __init__(self, path: str | Path):
        self.path = storage_path(path)
        self.sha256 = ""
        self.rows = 0

    def __enter__(self) -> Self:
        self._partial = temporary_path(self.path)
        self._lines: list[bytes] = []
        self._held = 0
        self._hash = hashlib.sha256()
        self._zstd = zstd.ZstdCompressor(options=_ZSTD)
        with explain_disk_full(self.path):
            self._file = self._partial.open("xb", buffering=0)  # closing must have nothing to flush
        return self

    def write_row(self, row: dict[str, Any]) -> None:
        try:
            line = _line(row)
        except ValueError as error:  # UnicodeEncodeError is one
            name = row.get("id", f"row {self.rows}")
            raise ValueError(f"{self.path}: {name!r} cannot be written as JSON: {error}") from error
        self._lines.append(line)
        self._held += len(line)
        self.rows += 1
        if self._held >= BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._lines:  # an empty piece would change the header of an empty frame
            return
        self._put(self._zstd.compress(b"".join(self._lines)))
        self._lines, self._held = [], 0

    def _put(self, compressed: bytes) -> None:
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
        try:
            if kind is None:
                self._flush()
                self._put(self._zstd.flush())
                with explain_disk_full(self.path):
                    os.fsync(self._file.fileno())
                self._file.close()
                publish(self._partial, self.path)
                self.sha256 = self._hash.hexdigest()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)


class ShardWriter(RowWriter):
    r"""Writes documents; `documents` counts them, `bytes` their texts as UTF-8.

    One line of a shard, before compression:

        {"id":"web/7","text":"Hares are fast.","source":"web","category":"web","meta":{}}
    """

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.bytes = 0

    @property
    def documents(self) -> int:
        return self.rows

    def write(self, document: Document) -> None:
        self.write_row(_row(document))
        text = document.text
        self.bytes += len(text) if text.isascii() else len(text.encode())


class DroppedWriter(RowWriter):
    """Writes what a stage dropped: {"stage","reason","evidence","id","text","source",...}."""

    def write(self, stage: str, dropped: Dropped) -> None:
        why = {"stage": stage, "reason": dropped.reason, "evidence": dropped.evidence}
        self.write_row(why | _row(dropped.document))


def read_shard(path: str | Path) -> Iterator[Document]:
    """Yields the documents that a ShardWriter wrote.

    Raises TruncatedShardError, or ValueError with path and line, before anything damaged is passed on.
    """
    for line, row in _numbered_rows(path):
        yield _document(row, path, line)


def read_dropped(path: str | Path) -> Iterator[tuple[str, Dropped]]:
    """Yields (stage, dropped document) as a DroppedWriter wrote them; raises as `read_shard`."""
    for line, row in _numbered_rows(path):
        try:
            stage, reason, evidence = row.pop("stage"), row.pop("reason"), row.pop("evidence")
        except KeyError as error:
            raise _damaged(path, line, f"it has no {error}") from None
        yield stage, Dropped(_document(row, path, line), reason, evidence)


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects that a RowWriter wrote; raises as `read_shard`."""
    for _, row in _numbered_rows(path):
        yield row


def numbered(name: str, number: int, count: int) -> str:
    """The name of the shard with this number among `count`; in the order of their numbers.

    >>> numbered("web", 7, count=20), numbered("web", 7, count=2_000_000)
    ('web-00007', 'web-0000007')
    """
    return f"{name}-{number:0{max(5, len(str(count - 1)))}d}"


def _line(row: dict[str, Any]) -> bytes:
    """As JSON in UTF-8, with the newline; raises ValueError or TypeError for what is not JSON."""
    try:
        line = orjson.dumps(row, option=_OPTIONS)
        if b"null" not in line:  # NaN would be null
            return line
    except orjson.JSONEncodeError:  # also for integers of more than 64 bits
        pass
    return _encode(row).encode() + b"\n"


def _parsed(line: bytes) -> Any:
    """What `_line` wrote; raises ValueError."""
    try:
        value = orjson.loads(line)
    except ValueError:  # also for what is nested deeply
        return json.loads(line)
    return json.loads(line) if _has_large_float(value) else value


def _has_large_float(value: Any) -> bool:
    """Which may have been an integer of more than 64 bits."""
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
    return {
        "id": document.id,
        "text": document.text,
        "source": document.source,
        "category": document.category,
        "meta": document.meta,
    }


def _document(row: dict[str, Any], path: str | Path, line: int) -> Document:
    try:
        document = Document(**row)
    except TypeError as error:  # names the key that is missing or too many
        raise _damaged(path, line, str(error)) from error
    if not isinstance(document.id, str) or not isinstance(document.text, str):
        raise _damaged(path, line, "id and text must be strings")
    return document


def _numbered_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    path = storage_path(path)
    number = 0
    try:
        for number, (_, line, _) in enumerate(split_lines(read_chunks(path)), start=1):
            try:
                row = _parsed(line)
            except ValueError as error:
                raise _damaged(path, number, str(error)) from error
            if not isinstance(row, dict):
                raise _damaged(path, number, f"expected an object, got {type(row).__name__}")
            yield number, row
        if not number:
            with path.open("rb") as file:
                if not file.read(1):
                    what = "is empty, while a shard without documents is an empty frame"
                    raise TruncatedShardError(f"{path} {what}")
    except TruncatedInputError as error:
        raise TruncatedShardError(str(error)) from error


def _damaged(path: str | Path, line: int, what: str) -> ValueError:
    return ValueError(f"{path}, line {line}: {what}. The shard has to be made again.")

"""Readers of raw files as rows: JSON Lines, JSON arrays, Parquet, text, Markdown and HTML.

A text, Markdown or HTML file is one row. Input that is not a valid row is yielded as `BadInput`
with its location and its first bytes, and reading continues with the next row. Damage to a file
that makes it unknown how much is missing raises TruncatedInputError or CorruptInputError.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.reading import html
from data_pipeline.storage.compressed import (
    HEAD_BYTES,
    CorruptInputError,
    TruncatedInputError,
    lines_between,
    read_chunks,
    split_lines,
)
from data_pipeline.storage.document import BadInput
from data_pipeline.storage.object_store import is_remote

BOM = b"\xef\xbb\xbf"
ROW_FORMATS = (".jsonl", ".json", ".parquet")
TEXT_FORMATS = (".txt", ".md", ".html", ".htm")
COMPRESSIONS = (".gz", ".zst")
PARQUET_BATCH_ROWS = 256  # held in memory at once


@dataclass(slots=True)
class RawRow:
    """One row of raw input.

    Attributes:
      number: identifies a row without an id of its own, independently of how the file is split: its
        byte offset, in Parquet its index. None for a file that is one row.
      fields: the fields of the row.
      location: where the row is in its file: {"offset": bytes} or {"row": index}.
      raw: the bytes of the row; b"" if the format has none.
    """

    number: int | None
    fields: dict[str, Any]
    location: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""


class Piece(NamedTuple):
    """A part of one file: the bytes or row groups start .. stop - 1, and its size in bytes."""

    start: int
    stop: int
    bytes: int


def content_suffix(path: Path) -> str:
    """Returns the suffix without that of the compression, or "" if the file cannot be read.

    >>> content_suffix(Path("a.jsonl.gz")), content_suffix(Path("a.pdf"))
    ('.jsonl', '')
    """
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        suffix = Path(path.stem).suffix.lower()
        return suffix if suffix in ROW_FORMATS + TEXT_FORMATS and suffix != ".parquet" else ""
    return suffix if suffix in ROW_FORMATS + TEXT_FORMATS else ""


def read_file(
    path: Path,
    name: str,
    max_bytes: int,
    text_columns: tuple[str, ...] = (),
    piece: Piece | None = None,
) -> Iterator[RawRow | BadInput]:
    """Yields the rows of one file; the row of a text, Markdown or HTML file is {"text": ...}.

    Args:
      path: the file, plain or compressed.
      name: the name of the file in `BadInput` and errors.
      max_bytes: a longer line or text file is not held in memory, and is yielded as `BadInput`.
      text_columns: columns that a Parquet file must have as strings.
      piece: one of `split_into_pieces`, to read only its rows. A file without rows is yielded as
        `BadInput`, a piece without rows is not.

    Raises:
      TruncatedInputError: the file ends early.
      CorruptInputError: the file is damaged.
      ValueError: a Parquet file lacks a text column.
    """
    if piece is not None:
        yield from _read_piece(path, name, max_bytes, text_columns, piece)
        return
    match content_suffix(path):
        case ".jsonl":
            rows = _json_lines(split_lines(read_chunks(path, name), max_bytes), name, max_bytes)
        case ".json":
            rows = _json(read_chunks(path, name), name, max_bytes)
        case ".parquet":
            rows = _parquet(path, name, text_columns)
        case ".html" | ".htm":
            chunks = read_chunks(path, name)
            rows = _single_document(chunks, name, max_bytes, html.decode, html.main_text)
        case _:
            rows = _single_document(read_chunks(path, name), name, max_bytes)
    first = next(rows, None)
    yield BadInput("empty_file", name, 0, "no rows in it", b"") if first is None else first
    yield from rows


def split_into_pieces(path: Path, size: int, max_piece_bytes: int) -> list[Piece]:
    """Splits a file into pieces that can be read independently; [] if it cannot be split.

    Uncompressed JSON Lines are split anywhere, because each line is read with the piece in which it
    begins. Parquet is split between row groups, which may be larger than `max_piece_bytes`. A .gz
    or .zst file can only be read from its start, and so can a .json file, whose first bytes
    determine whether it is an array.

    Args:
      path: the file.
      size: its size in bytes.
      max_piece_bytes: the approximate size of a piece.
    """
    match path.suffix.lower():
        case ".jsonl":
            count = -(-size // max_piece_bytes)  # rounded up
            edges = [size * k // count for k in range(count + 1)]
            pieces = [Piece(start, stop, stop - start) for start, stop in itertools.pairwise(edges)]
        case ".parquet":
            pieces = _row_groups(path, max_piece_bytes)
        case _:
            pieces = []
    return pieces if len(pieces) > 1 else []


def _read_piece(
    path: Path, name: str, max_bytes: int, text_columns: tuple[str, ...], piece: Piece
) -> Iterator[RawRow | BadInput]:
    """Yields the rows of one piece; see `read_file`."""
    if content_suffix(path) == ".parquet":
        yield from _parquet(path, name, text_columns, range(piece.start, piece.stop))
    else:
        lines = lines_between(path, piece.start, piece.stop, max_bytes)
        yield from _json_lines(lines, name, max_bytes)


def _json_lines(
    lines: Iterable[tuple[int, bytes, int]], name: str, max_bytes: int
) -> Iterator[RawRow | BadInput]:
    """Yields the rows of lines (offset, line, length) that are not blank."""
    for offset, line, length in lines:
        if line.removeprefix(BOM).strip():
            yield _json_row(offset, line, length, name, max_bytes)


def _json_row(offset: int, raw: bytes, length: int, name: str, max_bytes: int) -> RawRow | BadInput:
    """Parses one JSON object; `raw` holds only its head if `length` exceeds `max_bytes`."""
    if length > max_bytes:
        return _too_long(name, offset, length, max_bytes, raw)
    location: dict[str, Any] = {"offset": offset}
    if raw.startswith(BOM):  # also inside a file: a concatenation of files with byte order marks
        raw = raw[len(BOM) :]
        location["byte_order_mark"] = True
    try:
        fields = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return invalid_utf8(name, offset, raw, error)
    except (ValueError, RecursionError) as error:
        if b"\0" in raw:
            position = offset + raw.index(b"\0")
            detail = f"a NUL at byte {position}"
            return BadInput("nul_character", name, offset, detail, raw[:HEAD_BYTES])
        return BadInput("invalid_json", name, offset, str(error), raw[:HEAD_BYTES])
    if not isinstance(fields, dict):
        detail = f"expected an object, got {type(fields).__name__}"
        return BadInput("not_an_object", name, offset, detail, raw[:HEAD_BYTES])
    return RawRow(offset, fields, location, raw)


def _json(chunks: Iterator[bytes], name: str, max_bytes: int) -> Iterator[RawRow | BadInput]:
    """Yields the rows of a .json file: an array of objects, one object, or misnamed JSON Lines."""
    head = next(chunks, b"")
    start = head.removeprefix(BOM).lstrip()
    chunks = itertools.chain([head], chunks)
    if start.startswith(b"["):
        for offset, element, length in split_array(chunks, max_bytes, name):
            yield _json_row(offset, element, length, name, max_bytes)
    elif _is_object(start.split(b"\n", 1)[0]):
        yield from _json_lines(split_lines(chunks, max_bytes), name, max_bytes)
    else:
        content, length = _join(chunks, max_bytes)
        if content.removeprefix(BOM).strip():
            yield _json_row(0, content, length, name, max_bytes)


def _is_object(line: bytes) -> bool:
    """Returns whether a line is a complete JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def split_array(
    chunks: Iterable[bytes], max_bytes: int, name: str
) -> Iterator[tuple[int, bytes, int]]:
    r"""Yields (offset, element, length) of a JSON array, holding one element at a time.

    Elements are found by their brackets, commas and quotes, and are not parsed.

    Args:
      chunks: the content, in chunks of any size.
      max_bytes: an element with `length > max_bytes` is cut to its first 4096 bytes.
      name: the name of the file in errors.

    Raises:
      TruncatedInputError: the array is not closed.
      CorruptInputError: there is text after the array.

    >>> list(split_array([b'[{"a":', b' "]"}, 2]'], max_bytes=99, name="a.json"))
    [(1, b'{"a": "]"}', 10), (13, b'2', 1)]
    """
    scanner = _ArrayScanner()
    element: _Element | None = None  # the element that is being read; None before the array
    base = 0  # bytes of content before the chunk
    for chunk in chunks:
        start = 0  # of the part of the chunk that belongs to the element
        for end in scanner.delimiters(chunk):
            if element is not None and (result := element.close(chunk[start : end - 1])):
                yield result
            element, start = _Element(base + end, max_bytes), end
        if scanner.is_closed:
            if rest := chunk[start:].strip():
                raise CorruptInputError(f"{name} has content after its JSON array: {rest[:40]!r}")
        elif element is not None:
            element.append(chunk[start:])
        base += len(chunk)
    if not scanner.is_closed:
        raise TruncatedInputError(
            f"{name} ends inside its JSON array, after {base:,} bytes of content. "
            "Copy, download or create it again."
        )


class _ArrayScanner:
    """A search for the delimiters of a JSON array's elements, which continues over chunks."""

    # The rest of a string, to its end or to a backslash at the end of the chunk.
    _IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+["\\]', re.DOTALL)
    # The next character that changes the state, between elements and inside an element.
    _BETWEEN = re.compile(rb'["{}\[\],]')
    _INSIDE = re.compile(rb'["{}\[\]]')

    def __init__(self) -> None:
        """Starts before the array."""
        self.is_closed = False
        self._depth = 0  # number of open brackets, 1 between elements
        self._in_string = False
        self._escaped = False  # whether the previous chunk ended with a backslash in a string

    def delimiters(self, chunk: bytes) -> Iterator[int]:
        """Yields the position after each delimiter: the array's brackets and its commas."""
        position, self._escaped = int(self._escaped), False
        while not self.is_closed:
            if self._in_string:
                match = self._IN_STRING.match(chunk, position)
            else:
                match = (self._BETWEEN if self._depth < 2 else self._INSIDE).search(chunk, position)
            if match is None:
                return
            position = match.end()
            symbol = chunk[position - 1]
            if symbol in b'"':
                self._in_string = not self._in_string
            elif symbol in b"\\":
                self._escaped = True
            elif symbol in b",":
                yield position
            elif symbol in b"{[":
                self._depth += 1
                if self._depth == 1:
                    yield position
            else:
                self._depth -= 1
                self.is_closed = self._depth == 0
                if self.is_closed:
                    yield position


class _Element:
    """An element of a JSON array, collected from parts; of a too long one only the head is held."""

    def __init__(self, start: int, max_bytes: int) -> None:
        """Starts an element at the byte `start` of the content, white space included."""
        self._start = start
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._length = 0

    def append(self, part: bytes) -> None:
        """Appends a part that is followed by others."""
        self._parts.append(part)
        self._length += len(part)
        if self._length > self._max_bytes:
            self._parts = [b"".join(self._parts)[:HEAD_BYTES]]

    def close(self, part: bytes) -> tuple[int, bytes, int] | None:
        """Appends the last part; returns (offset, element, length), or None if it is empty."""
        content = b"".join([*self._parts, part])
        length = self._length + len(part)
        stripped = content.strip()
        if not stripped:
            return None
        offset = self._start + len(content) - len(content.lstrip())
        if length > self._max_bytes:
            return offset, stripped[:HEAD_BYTES], length
        return offset, stripped, len(stripped)


def _decode_utf8(content: bytes) -> str:
    """Decodes UTF-8, with or without a byte order mark."""
    return content.removeprefix(BOM).decode()


def _single_document(
    chunks: Iterable[bytes],
    name: str,
    max_bytes: int,
    decode: Callable[[bytes], str] = _decode_utf8,
    extract: Callable[[str], str] = str,
) -> Iterator[RawRow | BadInput]:
    """Yields the row of a file that is one document; none if it is empty.

    Args:
      chunks: the content.
      name: the name of the file in `BadInput`.
      max_bytes: the maximum length of the content.
      decode: converts the content, with its byte order mark, to text without one.
      extract: selects the part of the text that is the document.
    """
    content, length = _join(chunks, max_bytes)
    location: dict[str, Any] = {"offset": 0}
    raw = content.removeprefix(BOM)
    if content.startswith(BOM):
        location["byte_order_mark"] = True
    if length > max_bytes:
        yield _too_long(name, 0, length, max_bytes, raw)
    elif raw.strip():
        try:
            text = decode(content)
            # The C library that parses HTML would end the text at a NUL, so it is not called; the
            # NUL makes the document bad input later.
            extracted = text if "\0" in text else extract(text)
            yield RawRow(None, {"text": extracted}, location, raw)
        except UnicodeDecodeError as error:
            yield invalid_utf8(name, 0, raw, error)
        except html.NoMainTextError as error:
            yield BadInput("no_main_text", name, 0, str(error), raw[:HEAD_BYTES])


def _join(chunks: Iterable[bytes], max_bytes: int) -> tuple[bytes, int]:
    """Returns the content and its length; only the head of a content longer than `max_bytes`."""
    parts: list[bytes] = []
    length = 0
    for chunk in chunks:
        parts.append(chunk)
        length += len(chunk)
        if length > max_bytes:
            parts = [b"".join(parts)[:HEAD_BYTES]]
    return b"".join(parts), length


def _parquet(
    path: Path, name: str, text_columns: tuple[str, ...], groups: range | None = None
) -> Iterator[RawRow | BadInput]:
    """Yields the rows of a Parquet file, or of its row groups `groups`."""
    import pyarrow as pa
    from pyarrow import parquet

    with path.open("rb") as source:
        try:
            file = parquet.ParquetFile(source, pre_buffer=is_remote(path))
        except (pa.ArrowException, OSError) as error:
            raise CorruptInputError(f"{name} is no complete Parquet file: {error}") from error
        _check_columns(file.schema_arrow, name, text_columns)
        metadata = file.metadata
        groups = range(metadata.num_row_groups) if groups is None else groups
        number = sum(metadata.row_group(k).num_rows for k in range(groups.start))
        try:
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, list(groups), use_threads=False):
                yield from table_rows(batch, number, name)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            rows = f"{number:,} of {metadata.num_rows:,} rows"
            raise CorruptInputError(f"{name} cannot be read beyond {rows}: {error}") from error


def _row_groups(path: Path, max_piece_bytes: int) -> list[Piece]:
    """Groups neighboring row groups into pieces of at most `max_piece_bytes`, if they allow it.

    A file without a footer gives no pieces; the worker that reads it raises the error.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with path.open("rb") as source:
        try:
            metadata = parquet.read_metadata(source)
        except (pa.ArrowException, OSError):
            return []
    pieces: list[Piece] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = range(group.num_columns)
        size = sum(group.column(column).total_compressed_size for column in columns)
        if pieces and pieces[-1].bytes + size <= max_piece_bytes:
            pieces[-1] = Piece(pieces[-1].start, number + 1, pieces[-1].bytes + size)
        else:
            pieces.append(Piece(number, number + 1, size))
    return pieces


def _check_columns(schema: Any, name: str, text_columns: tuple[str, ...]) -> None:
    """Raises ValueError if a text column is missing or does not hold strings."""
    import pyarrow as pa

    for column in text_columns:
        if column not in schema.names:
            raise ValueError(
                f"{name} has no column {column!r}, only {', '.join(schema.names)}. "
                "Name the columns that make the text in the source's text_fields."
            )
        dtype = schema.field(column).type
        dtype = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
        if str(dtype) not in ("string", "large_string", "string_view", "null"):
            raise ValueError(
                f"{name}: column {column!r} holds {dtype}, expected string. "
                "Name the columns that make the text in the source's text_fields."
            )


def table_rows(batch: Any, number: int, name: str) -> Iterator[RawRow | BadInput]:
    """Yields the rows of an Arrow record batch.

    Rows of Parquet and Arrow have no byte offset: `location` and `BadInput.offset` are the index of
    the row, from 0.

    Args:
      batch: an Arrow record batch or table.
      number: the index of its first row.
      name: the name of the file in `BadInput`.
    """
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # Arrow does not validate UTF-8; find the invalid row
        for i in range(batch.num_rows):
            try:
                fields = batch.slice(i, 1).to_pylist()[0]
                yield RawRow(number + i, fields, {"row": number + i})
            except UnicodeDecodeError as error:
                yield invalid_utf8(name, number + i, error.object, error)
        return
    for i, fields in enumerate(rows, start=number):
        yield RawRow(i, fields, {"row": i})


def _too_long(name: str, offset: int, length: int, max_bytes: int, raw: bytes) -> BadInput:
    """Returns the bad input of a line, element or file that is too long."""
    detail = f"{length:,} bytes, reading.max_line_bytes is {max_bytes:,}"
    return BadInput("line_too_long", name, offset, detail, raw[:HEAD_BYTES])


def invalid_utf8(name: str, offset: int, raw: bytes, error: UnicodeDecodeError) -> BadInput:
    """Returns the bad input of bytes that are not UTF-8."""
    detail = f"byte 0x{error.object[error.start]:02x}, {error.start} bytes in: {error.reason}"
    return BadInput("invalid_utf8", name, offset, detail, raw[:HEAD_BYTES])

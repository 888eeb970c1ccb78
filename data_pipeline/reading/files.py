"""Raw files as rows: JSON Lines, a JSON array, Parquet, and text, Markdown or HTML as one row.

What cannot be read as a row is yielded as `Bad` with its place and its first bytes, and reading
goes on with the next line. What is wrong with a whole file, so that it is not known what is
missing, raises: TruncatedInputError, CorruptInputError, or ValueError for a Parquet column.
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
ROWS = (".jsonl", ".json", ".parquet")
TEXTS = (".txt", ".md", ".html", ".htm")
COMPRESSIONS = (".gz", ".zst")
PARQUET_ROWS = 256  # held in memory at once


@dataclass(slots=True)
class RawRow:
    """`number` names a row without an id of its own, however the file is split: its byte offset, in
    Parquet its row from 0; None for a file that is one row. `place` finds the row again."""

    number: int | None
    fields: dict[str, Any]
    place: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""


class Piece(NamedTuple):
    """A part of one file: bytes or row groups start..stop, and how many bytes that are."""

    start: int
    stop: int
    bytes: int


def kind(path: Path) -> str:
    """The extension under a compression's: ".jsonl" of "a.jsonl.gz"; "" for what is not read."""
    extension = path.suffix.lower()
    if extension in COMPRESSIONS:
        extension = Path(path.stem).suffix.lower()
        return extension if extension in ROWS + TEXTS and extension != ".parquet" else ""
    return extension if extension in ROWS + TEXTS else ""


def read_file(
    path: Path,
    name: str,
    max_bytes: int,
    text_columns: tuple[str, ...] = (),
    piece: Piece | None = None,
) -> Iterator[RawRow | BadInput]:
    """Yields the rows of one file; a text, Markdown or HTML file is {"text": ...}.

    `name` stands for the file in `Bad` and errors. No line or text file longer than `max_bytes` is
    held. `text_columns`: what a Parquet file must have as strings. `piece`: one of `pieces`, whose
    rows alone are read; a piece without any is not called an empty file.
    """
    if piece is not None:
        yield from _read_piece(path, name, max_bytes, text_columns, piece)
        return
    match kind(path):
        case ".jsonl":
            rows = _json_lines(split_lines(read_chunks(path, name), max_bytes), name, max_bytes)
        case ".json":
            rows = _json(read_chunks(path, name), name, max_bytes)
        case ".parquet":
            rows = _parquet(path, name, text_columns)
        case ".html" | ".htm":
            rows = _whole(read_chunks(path, name), name, max_bytes, html.decode, html.main_text)
        case _:
            rows = _whole(read_chunks(path, name), name, max_bytes)
    first = next(rows, None)
    yield BadInput("empty_file", name, 0, "no rows in it", b"") if first is None else first
    yield from rows


def pieces(path: Path, size: int, most_bytes: int) -> list[Piece]:
    """How a file of `size` bytes is shared out, in pieces of about so many; [] where it cannot be.

    Uncompressed JSON Lines are cut anywhere, as a line is read where it begins; Parquet between
    row groups, which may be larger than `most_bytes`. A .gz or .zst file can be read from its
    begin only, and whether a .json file is an array shows there too.
    """
    match path.suffix.lower():
        case ".jsonl":
            count = -(-size // most_bytes)
            cuts = [size * k // count for k in range(count + 1)]
            found = [Piece(start, stop, stop - start) for start, stop in itertools.pairwise(cuts)]
        case ".parquet":
            found = _row_groups(path, most_bytes)
        case _:
            found = []
    return found if len(found) > 1 else []


def _read_piece(
    path: Path, name: str, max_bytes: int, text_columns: tuple[str, ...], piece: Piece
) -> Iterator[RawRow | BadInput]:
    if kind(path) == ".parquet":
        yield from _parquet(path, name, text_columns, range(piece.start, piece.stop))
    else:
        lines = lines_between(path, piece.start, piece.stop, max_bytes)
        yield from _json_lines(lines, name, max_bytes)


def _json_lines(
    lines: Iterable[tuple[int, bytes, int]], name: str, max_bytes: int
) -> Iterator[RawRow | BadInput]:
    for offset, line, length in lines:
        if line.removeprefix(BOM).strip():  # a blank line holds nothing that could be lost
            yield _json_row(offset, line, length, name, max_bytes)


def _json_row(offset: int, raw: bytes, length: int, name: str, max_bytes: int) -> RawRow | BadInput:
    """One JSON object with its place, or why it is none."""
    if length > max_bytes:
        return _too_long(name, offset, length, max_bytes, raw)
    place: dict[str, Any] = {"offset": offset}
    if raw.startswith(BOM):  # also inside a file: files with one are concatenated
        raw = raw[len(BOM) :]
        place["byte_order_mark"] = True
    try:
        fields = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return _invalid_utf8(name, offset, raw, error)
    except (ValueError, RecursionError) as error:
        if b"\0" in raw:
            at = offset + raw.index(b"\0")
            return BadInput("nul_character", name, offset, f"a NUL at byte {at}", raw[:HEAD_BYTES])
        return BadInput("invalid_json", name, offset, str(error), raw[:HEAD_BYTES])
    if not isinstance(fields, dict):
        what = f"expected an object, got {type(fields).__name__}"
        return BadInput("not_an_object", name, offset, what, raw[:HEAD_BYTES])
    return RawRow(offset, fields, place, raw)


def _json(chunks: Iterator[bytes], name: str, max_bytes: int) -> Iterator[RawRow | BadInput]:
    """A JSON array of objects, one object, or (a common misnomer) JSON Lines."""
    head = next(chunks, b"")
    start = head.removeprefix(BOM).lstrip()
    chunks = itertools.chain([head], chunks)
    if start.startswith(b"["):
        for offset, element, length in split_array(chunks, max_bytes, name):
            yield _json_row(offset, element, length, name, max_bytes)
    elif _is_object(start.split(b"\n", 1)[0]):
        yield from _json_lines(split_lines(chunks, max_bytes), name, max_bytes)
    else:
        content, length = _gather(chunks, max_bytes)
        if content.removeprefix(BOM).strip():
            yield _json_row(0, content, length, name, max_bytes)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


# What can end or open something: in a string; among an array's elements; deeper than that.
_IN_STRING = re.compile(rb'["\\]')
_BETWEEN = re.compile(rb'["{}\[\],]')
_DEEPER = re.compile(rb'["{}\[\]]')


def split_array(
    chunks: Iterable[bytes], max_bytes: int, name: str
) -> Iterator[tuple[int, bytes, int]]:
    r"""Yields (offset, element, length) of a JSON array without holding the whole of it.

    As with `split_lines`, an element with `length > max_bytes` is cut. Raises
    TruncatedInputError for an array that is never closed, CorruptInputError for text after it.

    >>> list(split_array([b'[{"a":', b' "]"}, 2]'], max_bytes=99, name="a.json"))
    [(1, b'{"a": "]"}', 10), (13, b'2', 1)]
    """
    depth, base, closed = 0, 0, False
    quoted = escaped = False
    parts: list[bytes] = []  # of the element that goes on from chunk to chunk
    start = length = 0
    for chunk in chunks:
        at, mark = int(escaped), 0
        escaped = False
        while not closed:
            pattern = _IN_STRING if quoted else _BETWEEN if depth < 2 else _DEEPER
            match = pattern.search(chunk, at)
            if match is None:
                break
            symbol, at = match[0], match.end()
            if symbol == b"\\":
                escaped = at == len(chunk)
                at += 1
            elif symbol == b'"':
                quoted = not quoted
            elif symbol in b"{[":
                depth += 1
                if depth == 1:
                    start, mark = base + at, at
            else:
                depth -= symbol in b"}]"
                closed = depth == 0
                if depth == 0 or symbol == b",":
                    parts.append(chunk[mark : at - 1])
                    length += at - 1 - mark
                    element = b"".join(parts)
                    if stripped := element.strip():
                        offset = start + len(element) - len(element.lstrip())
                        if length > max_bytes:
                            yield offset, stripped[:HEAD_BYTES], length
                        else:
                            yield offset, stripped, len(stripped)
                    start, mark, length, parts = base + at, at, 0, []
        if closed:
            if rest := chunk[mark:].strip():
                raise CorruptInputError(f"{name} goes on after its JSON array: {rest[:40]!r}")
            mark = len(chunk)
        elif depth:
            parts.append(chunk[mark:])
            length += len(chunk) - mark
            if length > max_bytes:
                parts = [b"".join(parts)[:HEAD_BYTES]]
        base += len(chunk)
    if not closed:
        raise TruncatedInputError(
            f"{name} ends inside its JSON array, after {base:,} bytes of content. "
            "It has to be copied, downloaded or made again."
        )


def _whole(
    chunks: Iterable[bytes],
    name: str,
    max_bytes: int,
    decode: Callable[[bytes], str] = bytes.decode,
    extract: Callable[[str], str] = str,
) -> Iterator[RawRow | BadInput]:
    """A file that is one document."""
    content, length = _gather(chunks, max_bytes)
    place: dict[str, Any] = {"offset": 0}
    if content.startswith(BOM):
        content = content[len(BOM) :]
        place["byte_order_mark"] = True
    if length > max_bytes:
        yield _too_long(name, 0, length, max_bytes, content)
    elif content.strip():
        try:
            text = decode(content)
            # A NUL ends the text for the C library that parses HTML: it has to be seen before.
            yield RawRow(None, {"text": text if "\0" in text else extract(text)}, place, content)
        except UnicodeDecodeError as error:
            yield _invalid_utf8(name, 0, content, error)
        except html.NoMainTextError as error:
            yield BadInput("no_main_text", name, 0, str(error), content[:HEAD_BYTES])


def _gather(chunks: Iterable[bytes], max_bytes: int) -> tuple[bytes, int]:
    """The content and its length; of one longer than `max_bytes` no more than the head is held."""
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
            for batch in file.iter_batches(PARQUET_ROWS, list(groups), use_threads=False):
                yield from table_rows(batch, number, name)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            rows = f"{number:,} of {metadata.num_rows:,} rows"
            raise CorruptInputError(f"{name} cannot be read beyond {rows}: {error}") from error


def _row_groups(path: Path, most_bytes: int) -> list[Piece]:
    """Neighbouring row groups up to so many bytes; of a file without a footer, which the worker
    that reads it will name, no pieces."""
    import pyarrow as pa
    from pyarrow import parquet

    with path.open("rb") as source:
        try:
            metadata = parquet.read_metadata(source)
        except (pa.ArrowException, OSError):
            return []
    found: list[Piece] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = range(group.num_columns)
        size = sum(group.column(column).total_compressed_size for column in columns)
        if found and found[-1].bytes + size <= most_bytes:
            found[-1] = Piece(found[-1].start, number + 1, found[-1].bytes + size)
        else:
            found.append(Piece(number, number + 1, size))
    return found


def _check_columns(schema: Any, name: str, text_columns: tuple[str, ...]) -> None:
    import pyarrow as pa

    for column in text_columns:
        if column not in schema.names:
            raise ValueError(
                f"{name} has no column {column!r}, only {', '.join(schema.names)}. "
                "Name the columns that make the text in the source's text_fields."
            )
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(kind) not in ("string", "large_string", "string_view", "null"):
            raise ValueError(
                f"{name}: column {column!r} holds {kind}, expected string. "
                "Name the columns that make the text in the source's text_fields."
            )


def table_rows(batch: Any, number: int, name: str) -> Iterator[RawRow | BadInput]:
    """Parquet rows have no byte offset: `place` and `Bad.offset` hold the row's number, from 0."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # Arrow does not check the UTF-8 it reads; find out which row it is
        for i in range(batch.num_rows):
            try:
                fields = batch.slice(i, 1).to_pylist()[0]
                yield RawRow(number + i, fields, {"row": number + i})
            except UnicodeDecodeError as error:
                yield _invalid_utf8(name, number + i, error.object, error)
        return
    for i, fields in enumerate(rows, start=number):
        yield RawRow(i, fields, {"row": i})


def _too_long(name: str, offset: int, length: int, max_bytes: int, raw: bytes) -> BadInput:
    detail = f"{length:,} bytes, reading.max_line_bytes is {max_bytes:,}"
    return BadInput("line_too_long", name, offset, detail, raw[:HEAD_BYTES])


def _invalid_utf8(name: str, offset: int, raw: bytes, error: UnicodeDecodeError) -> BadInput:
    detail = f"byte 0x{error.object[error.start]:02x}, {error.start} bytes in: {error.reason}"
    return BadInput("invalid_utf8", name, offset, detail, raw[:HEAD_BYTES])

"""Reads files as chunks and lines, plain or compressed.

A .gz or .zst file is verified to its end: one that ends early raises an error, so that a partial
copy is never taken for a complete file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from backports import zstd

CHUNK_BYTES = 1 << 20  # of content
READ_BYTES = 1 << 17  # of a compressed file, read at a time
TAIL_BYTES = 1 << 16  # read at a time to find the end of a line
HEAD_BYTES = 4096  # kept of a line that is too long
# `zstd --long=31` needs a window of 2 GiB. Memory is allocated only if a frame requires it.
_ANY_WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 31}


class CorruptInputError(ValueError):
    """The bytes of a file do not follow its format."""


class TruncatedInputError(CorruptInputError):
    """A file ends before its format says so: a copy or download was interrupted."""


def read_chunks(path: Path, name: str = "", chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the content of a file, decompressed by its suffix.

    Concatenated gzip members or zstd frames are read as one content.

    Args:
      path: a file; .gz and .zst are decompressed.
      name: replaces the path in error messages, unless "".
      chunk_bytes: maximum size of a chunk.

    Raises:
      TruncatedInputError: the file ends inside a member or frame.
      CorruptInputError: the file is not valid; both name the file and the bytes read so far.
    """
    name = name or str(path)
    done = 0
    try:
        with path.open("rb") as file:
            for chunk in _decompressed(file, path.suffix.lower(), chunk_bytes):
                yield chunk
                done += len(chunk)
    except EOFError as error:
        part = "the zstd frame at its end" if path.suffix.lower() == ".zst" else "a gzip member"
        raise TruncatedInputError(_message(name, f"ends inside {part}", done)) from error
    except (gzip.BadGzipFile, zlib.error) as error:  # BadGzipFile also for garbage after a member
        raise CorruptInputError(_message(name, f"is not valid gzip ({error})", done)) from error
    except zstd.ZstdError as error:
        raise CorruptInputError(_message(name, f"is not valid zstd ({error})", done)) from error


def lines_between(
    path: Path, start: int, stop: int, max_bytes: int = 1 << 62
) -> Iterator[tuple[int, bytes, int]]:
    """Yields the lines of an uncompressed file that begin at a byte in [start, stop).

    However a file is divided, each line belongs to exactly one piece: that in which it begins. Only
    the piece and the rest of its last line are read.

    Args:
      path: the file.
      start: first byte.
      stop: byte after the last one.
      max_bytes: longer lines are cut, as in `split_lines`.

    Yields:
      (offset in the file, line, length), as `split_lines`.
    """
    with path.open("rb") as file:
        first = _first_line(file, start, stop)
        chunks = _chunks_between(file, first, stop)
        for offset, line, length in split_lines(chunks, max_bytes):
            yield first + offset, line, length


def _first_line(file: BinaryIO, start: int, stop: int) -> int:
    """Returns the offset of the first line that begins in [start, stop), or `stop`."""
    if start == 0:
        return 0
    at = start - 1  # a line begins after each newline in [start - 1, stop - 1)
    file.seek(at)
    while chunk := file.read(min(TAIL_BYTES, stop - 1 - at)):
        if (newline := chunk.find(b"\n")) >= 0:
            return at + newline + 1
        at += len(chunk)
    return stop


def _chunks_between(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """Yields the bytes [start, stop), and the rest of a line that continues beyond them."""
    file.seek(start)
    end = b"\n"
    while chunk := file.read(min(CHUNK_BYTES, stop - start)):
        yield chunk
        start += len(chunk)
        end = chunk[-1:]
    while end != b"\n" and (chunk := file.read(TAIL_BYTES)):
        chunk = chunk[: chunk.find(b"\n") + 1] or chunk
        yield chunk
        end = chunk[-1:]


def split_lines(
    chunks: Iterable[bytes], max_bytes: int = 1 << 62
) -> Iterator[tuple[int, bytes, int]]:
    r"""Yields (offset, line without newline, length) for each line; offset and length in bytes.

    A line with `length > max_bytes` is cut to its first 4096 bytes. Memory stays below `max_bytes`
    plus two chunks.

    >>> list(split_lines([b"one\ntw", b"o\n\nlonger"], max_bytes=5))
    [(0, b'one', 3), (4, b'two', 3), (8, b'', 0), (9, b'longer', 6)]
    """
    start, length = 0, 0  # of the line that continues from chunk to chunk
    parts: list[bytes] = []
    for chunk in chunks:
        lines = chunk.split(b"\n")
        end = lines.pop()  # the bytes after the last newline
        if lines:
            length += len(lines[0])
            parts.append(lines[0])
            yield start, _cut(b"".join(parts), length, max_bytes), length
            start += length + 1
            for line in lines[1:]:
                yield start, _cut(line, len(line), max_bytes), len(line)
                start += len(line) + 1
            length, parts = 0, []
        length += len(end)
        parts.append(end)
        if length > max_bytes:
            parts = [b"".join(parts)[:HEAD_BYTES]]
    if length:
        yield start, _cut(b"".join(parts), length, max_bytes), length


def _cut(line: bytes, length: int, max_bytes: int) -> bytes:
    return line if length <= max_bytes else line[:HEAD_BYTES]


def _message(name: str, what: str, done: int) -> str:
    return f"{name} {what}, after {done:,} bytes of content. Copy, download or create it again."


def _decompressed(file: BinaryIO, suffix: str, chunk_bytes: int) -> Iterator[bytes]:
    """Yields the content of an open file by its suffix."""
    if suffix == ".zst":
        yield from _zstd_frames(file, chunk_bytes)
    elif suffix == ".gz":
        with gzip.GzipFile(fileobj=file) as content:
            while chunk := content.read(chunk_bytes):
                yield chunk
    else:
        while chunk := file.read(chunk_bytes):
            yield chunk


def _zstd_frames(file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """Yields the content of concatenated zstd frames.

    Raises:
      EOFError: the file ends inside a frame.
      zstd.ZstdError: a frame is not valid.
    """
    data = file.read(READ_BYTES)
    while data:
        frame = zstd.ZstdDecompressor(options=_ANY_WINDOW)
        while not frame.eof:
            if frame.needs_input and not data and not (data := file.read(READ_BYTES)):
                raise EOFError
            if chunk := frame.decompress(data, chunk_bytes):
                yield chunk
            data = b""
        data = frame.unused_data or file.read(READ_BYTES)

"""Files as chunks and chunks as lines: .gz and .zst are read to their verified end, never past it.

Python's gzip raises on a truncated file; python-zstandard's stream reader ends early without a
word. `read_chunks` raises for both, so that a half-copied file is never taken for a short one.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 4096  # what is kept of a line that is too long


class CorruptInput(ValueError):
    """A file's bytes are not what its format demands."""


class TruncatedInput(CorruptInput):
    """A file ends before its format says so: a copy or download was cut."""


def read_chunks(path: Path, name: str = "", chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the content of `path`, decompressed by its suffix, in pieces of at most `chunk_bytes`.

    Concatenated gzip members and zstd frames are one content. `name` stands for the path in errors.
    Raises TruncatedInput or CorruptInput with the file and how many bytes of content came before.
    """
    name = name or str(path)
    done = 0
    try:
        with path.open("rb") as file:
            for chunk in _decompressed(file, path.suffix.lower(), chunk_bytes):
                yield chunk
                done += len(chunk)
    except EOFError as error:  # gzip's word for a member without its end
        raise TruncatedInput(_message(name, "ends inside a gzip member", done)) from error
    except (gzip.BadGzipFile, zlib.error) as error:  # BadGzipFile also for garbage after a member
        raise CorruptInput(_message(name, f"is not valid gzip ({error})", done)) from error
    except _ZstdDamage as error:
        kind = TruncatedInput if error.truncated else CorruptInput
        raise kind(_message(name, str(error), done)) from error


def split_lines(
    chunks: Iterable[bytes], max_bytes: int = 1 << 62
) -> Iterator[tuple[int, bytes, int]]:
    r"""Yields (offset, line, length) with the newline taken off; offset and length in bytes.

    A line with `length > max_bytes` is cut to its first 4096 bytes; memory stays below `max_bytes`
    and a chunk or two.

    >>> list(split_lines([b"one\ntw", b"o\n\nlonger"], max_bytes=5))
    [(0, b'one', 3), (4, b'two', 3), (8, b'', 0), (9, b'longer', 6)]
    """
    start, length = 0, 0  # of the line that goes on from chunk to chunk
    parts: list[bytes] = []
    for chunk in chunks:
        lines = chunk.split(b"\n")
        end = lines.pop()  # what follows the last newline
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
    return (
        f"{name} {what}, after {done:,} bytes of content. "
        "It has to be copied, downloaded or made again."
    )


def _decompressed(file: BinaryIO, suffix: str, chunk_bytes: int) -> Iterator[bytes]:
    if suffix == ".zst":
        # `zstd --long=31` asks for a window of 2 GiB; memory is taken only as frames demand it.
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
            file, read_across_frames=True, closefd=False
        )
        try:
            while chunk := reader.read(chunk_bytes):
                yield chunk
        except zstandard.ZstdError as error:
            raise _ZstdDamage(f"is not valid zstd ({error})", truncated=False) from error
        _check_zstd_end(file)
    elif suffix == ".gz":
        with gzip.GzipFile(fileobj=file) as content:
            while chunk := content.read(chunk_bytes):
                yield chunk
    else:
        while chunk := file.read(chunk_bytes):
            yield chunk


class _ZstdDamage(Exception):
    def __init__(self, message: str, truncated: bool):
        super().__init__(message)
        self.truncated = truncated


def _check_zstd_end(file: BinaryIO) -> None:
    """Walks the frames by their headers, without decompressing, to the end of the file."""
    size = file.seek(0, 2)
    end = 0
    while end < size:
        frame, end = end, _frame_end(file, end)
        if end > size:
            what = f"ends inside the zstd frame that begins at byte {frame:,}"
            raise _ZstdDamage(what, truncated=True)


def _frame_end(file: BinaryIO, frame: int) -> int:
    """Where the frame at byte `frame` ends (RFC 8878, 3.1), beyond the file's size if it is cut."""
    file.seek(frame)
    head = file.read(18)  # the longest header
    if len(head) >= 8 and int.from_bytes(head[:4], "little") & ~15 == 0x184D2A50:  # skippable
        return frame + 8 + int.from_bytes(head[4:8], "little")
    try:
        has_checksum = zstandard.get_frame_parameters(head).has_checksum
        end = frame + zstandard.frame_header_size(head)
    except zstandard.ZstdError:
        return frame + 18  # the reader took all it had for a header, and it was not enough
    last = False
    while not last:
        file.seek(end)
        header = file.read(3)
        if len(header) < 3:
            return end + 3
        bits = int.from_bytes(header, "little")
        last, kind, length = bool(bits & 1), bits >> 1 & 3, bits >> 3
        end += 3 + (1 if kind == 1 else length)  # kind 1 is one byte, repeated
    return end + 4 * has_checksum

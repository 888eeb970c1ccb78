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
TAIL_BYTES = 1 << 16  # read at a time where only the end of a line is looked for
HEAD_BYTES = 4096  # what is kept of a line that is too long


class CorruptInputError(ValueError):
    """A file's bytes are not what its format demands."""


class TruncatedInputError(CorruptInputError):
    """A file ends before its format says so: a copy or download was cut."""


def read_chunks(path: Path, name: str = "", chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the content of `path`, decompressed by its suffix, in pieces of at most `chunk_bytes`.

    Concatenated gzip members and zstd frames are one content. `name` stands for the path in errors.
    Raises TruncatedInputError or CorruptInputError with the file and how many bytes of content came before.
    """
    name = name or str(path)
    done = 0
    try:
        with path.open("rb") as file:
            for chunk in _decompressed(file, path.suffix.lower(), chunk_bytes):
                yield chunk
                done += len(chunk)
    except EOFError as error:  # gzip's word for a member without its end
        raise TruncatedInputError(_message(name, "ends inside a gzip member", done)) from error
    except (gzip.BadGzipFile, zlib.error) as error:  # BadGzipFile also for garbage after a member
        raise CorruptInputError(_message(name, f"is not valid gzip ({error})", done)) from error
    except _ZstdError as error:
        kind = TruncatedInputError if error.truncated else CorruptInputError
        raise kind(_message(name, str(error), done)) from error


def lines_between(
    path: Path, start: int, stop: int, max_bytes: int = 1 << 62
) -> Iterator[tuple[int, bytes, int]]:
    """Yields, as `split_lines`, the lines of an uncompressed file that begin in start..stop.

    However a file is cut, each line is in the one piece in which it begins. Of the file no more is
    read than the piece and the rest of its last line.
    """
    with path.open("rb") as file:
        first = _first_line(file, start, stop)
        chunks = _chunks_between(file, first, stop)
        for offset, line, length in split_lines(chunks, max_bytes):
            yield first + offset, line, length


def _first_line(file: BinaryIO, start: int, stop: int) -> int:
    """Where the first line begins that begins in start..stop; `stop` if none does."""
    if start == 0:
        return 0
    at = start - 1  # a line begins behind each newline in start-1..stop-1
    file.seek(at)
    while chunk := file.read(min(TAIL_BYTES, stop - 1 - at)):
        if (newline := chunk.find(b"\n")) >= 0:
            return at + newline + 1
        at += len(chunk)
    return stop


def _chunks_between(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """The bytes start..stop, and on to the end of the line that goes on there."""
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
        frames = _ZstdFrames(file)
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(
            frames,  # type: ignore[arg-type]
            read_across_frames=True,
            closefd=False,
        )
        try:
            while chunk := reader.read(chunk_bytes):
                yield chunk
        except zstandard.ZstdError as error:
            raise _ZstdError(f"is not valid zstd ({error})", truncated=False) from error
        frames.check_end()
    elif suffix == ".gz":
        with gzip.GzipFile(fileobj=file) as content:
            while chunk := content.read(chunk_bytes):
                yield chunk
    else:
        while chunk := file.read(chunk_bytes):
            yield chunk


class _ZstdError(Exception):
    def __init__(self, message: str, truncated: bool):
        super().__init__(message)
        self.truncated = truncated


class _ZstdFrames:
    """A zstd file as it is read, its frames followed by their headers (RFC 8878, 3.1).

    Sees each byte once and decompresses none, so that an object need not be fetched twice.
    """

    LONGEST_HEADER = 18

    def __init__(self, file: BinaryIO):
        self._file = file
        self._frame = 0  # where the frame begins that was last seen
        self._next = 0  # where the next header of a frame or block begins
        self._end = 0  # of what was read
        self._held = b""  # a header's bytes, as long as they are too few
        self._in_frame = self._has_checksum = False

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        begin, self._end = self._end, self._end + len(data)
        while self._next < self._end:
            at = max(self._next - begin, 0)
            head = self._held + data[at : at + self.LONGEST_HEADER - len(self._held)]
            length = self._block(head) if self._in_frame else self._frame_header(head)
            self._held = b"" if length else head
            if not length:
                break
            self._next += length
        return data

    def check_end(self) -> None:
        """Raises _ZstdError where the file ends inside a frame."""
        if self._in_frame or self._next != self._end:
            what = f"ends inside the zstd frame that begins at byte {self._frame:,}"
            raise _ZstdError(what, truncated=True)

    def _frame_header(self, head: bytes) -> int:
        """The header's length, of a frame to be skipped all its length; 0: `head` is too short."""
        self._frame = self._next
        if len(head) >= 8 and int.from_bytes(head[:4], "little") & ~15 == 0x184D2A50:  # skippable
            return 8 + int.from_bytes(head[4:8], "little")
        try:
            self._has_checksum = zstandard.get_frame_parameters(head).has_checksum
            length = zstandard.frame_header_size(head)
        except zstandard.ZstdError:
            return 0
        self._in_frame = True
        return length

    def _block(self, head: bytes) -> int:
        """The length of a block with its header; 0: `head` is too short."""
        if len(head) < 3:
            return 0
        bits = int.from_bytes(head[:3], "little")
        last, kind, length = bool(bits & 1), bits >> 1 & 3, bits >> 3
        self._in_frame = not last
        # Kind 1 is one byte, repeated.
        return 3 + (1 if kind == 1 else length) + 4 * (last and self._has_checksum)

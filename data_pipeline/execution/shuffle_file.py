"""The file format of a shuffle: one file per shard with one part for each partition.

The worker of partition p reads part p of the files of all shards and nothing else. So no worker
holds all rows, and each shard writes one file rather than one per partition.

    8 bytes      magic and version
    8 (P + 2)    P, then the offset at which each of the P parts begins, and that of the end
    each part    its sha256 (32 bytes), then its bytes

The ledger has the hash of the whole file. A reader of one part verifies that part.

>>> write_shuffle_file(path, [b"for the first worker", b"", b"for the third"])  # doctest: +SKIP
>>> read_shuffle_partition(path, 2)                                             # doctest: +SKIP
b'for the third'
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.execution.manifest import CorruptStageError
from data_pipeline.storage.atomic import write_bytes

MAGIC = b"hareprt1"
_SHA256 = 32

PARTITION_BYTES = 256 << 20  # bytes of text per partition, if the configuration gives no number
MAX_PARTITIONS = 1024  # in that case; with more, the parts of a shard's file would become tiny

Arrays = dict[str, NDArray]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


def write_shuffle_file(path: Path, parts: Sequence[bytes]) -> str:
    """Writes a shuffle file atomically; returns the sha256 (hex) of all its bytes."""
    sizes = [_SHA256 + len(part) for part in parts]
    begin = len(MAGIC) + 8 * (len(parts) + 2)
    offsets = np.cumsum([begin, *sizes], dtype="<u8")
    head = MAGIC + np.array([len(parts)], "<u8").tobytes() + offsets.tobytes()
    pieces = [head]
    for part in parts:
        pieces += [hashlib.sha256(part).digest(), part]
    content = b"".join(pieces)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_shuffle_partition(path: Path, part: int) -> bytes:
    """Returns the bytes of one part; the rest of the file is not read.

    Raises CorruptStageError for a file that is missing, truncated or changed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC) + 8)
            if len(head) < len(MAGIC) + 8 or not head.startswith(MAGIC):
                raise _damaged(path, "it does not begin like a shuffle file")
            parts = int.from_bytes(head[len(MAGIC) :], "little")
            if not 0 <= part < parts:
                raise _damaged(path, f"got part {part}, expected one of its {parts} parts")
            file.seek(8 * part, io.SEEK_CUR)
            begin, end = np.frombuffer(file.read(16).ljust(16, b"\0"), "<u8").tolist()
            if not begin + _SHA256 <= end <= file.seek(0, io.SEEK_END):
                raise _damaged(path, f"part {part} is truncated")
            file.seek(begin)
            content = file.read(end - begin)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    digest, body = content[:_SHA256], content[_SHA256:]
    if hashlib.sha256(body).digest() != digest:
        raise _damaged(path, f"part {part} has changed since it was written")
    return body


def _damaged(path: Path, what: str) -> CorruptStageError:
    return CorruptStageError(f"{path}: {what}. Delete {path.parent.parent} and run again.")


def pack_arrays(arrays: Arrays) -> bytes:
    """Returns arrays by name as bytes, equal for equal arrays; b"" if all of them are empty."""
    if not any(len(array) for array in arrays.values()):
        return b""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(content: bytes) -> Arrays | None:
    """Returns the arrays that `pack_arrays` was given; None if all of them were empty."""
    if not content:
        return None
    with np.load(io.BytesIO(content)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def num_partitions(requested: int, text_bytes: int) -> int:
    """Returns the requested number of partitions; for 0, one per 256 MiB of text, at most 1024.

    >>> num_partitions(0, 3 << 30), num_partitions(7, 3 << 30), num_partitions(0, 0)
    (12, 7, 1)
    """
    return requested or min(max(1, -(-text_bytes // PARTITION_BYTES)), MAX_PARTITIONS)


def partition_of(keys: U64, partitions: int) -> I64:
    """Returns int64 [N]: the partition of each key.

    Keys are mixed first, so that any keys spread evenly. The constant is 2^64 divided by the golden
    ratio (Knuth's multiplicative hashing).
    """
    mixed = (keys ^ (keys >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(32)) % np.uint64(partitions)).astype(np.int64)


def split_by_partition(part_N: I64, partitions: int, *arrays: NDArray) -> list[tuple[NDArray, ...]]:
    """Returns the rows of each partition in their order.

    Args:
      part_N: the partition of each row.
      partitions: the number of partitions, P.
      *arrays: arrays with N rows.

    Returns:
      P tuples, each with the rows of every array that are in the partition.
    """
    if partitions == 1:
        return [arrays]
    order = np.argsort(part_N, kind="stable")
    ends = np.cumsum(np.bincount(part_N, minlength=partitions))[:-1]
    cut = [np.split(array[order], ends) for array in arrays]
    return list(zip(*cut, strict=True))

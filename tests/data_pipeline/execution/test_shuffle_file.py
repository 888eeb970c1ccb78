"""A part is read alone, checked, and what was written."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.execution.manifest import CorruptStageError, file_sha256
from data_pipeline.execution.shuffle_file import (
    num_partitions,
    pack_arrays,
    partition_of,
    read_shuffle_partition,
    split_by_partition,
    unpack_arrays,
    write_shuffle_file,
)

PARTS = [b"first", b"", b"the third \x00\xff" * 1000, b"4"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shards" / "web-00000.parts"


def test_each_part_is_what_was_written(path: Path) -> None:
    assert write_shuffle_file(path, PARTS) == file_sha256(path)
    assert [read_shuffle_partition(path, k) for k in range(len(PARTS))] == PARTS
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_reader_of_one_part_reads_no_other(path: Path) -> None:
    """What is damaged elsewhere is for others to see, so a part costs what it weighs."""
    write_shuffle_file(path, PARTS)
    content = bytearray(path.read_bytes())
    content[content.index(b"the third") + 3] ^= 1
    path.write_bytes(content)
    assert read_shuffle_partition(path, 0) == b"first"
    assert read_shuffle_partition(path, 3) == b"4"
    with pytest.raises(CorruptStageError, match="part 2 has changed since it was written"):
        read_shuffle_partition(path, 2)


def test_no_changed_byte_is_ever_passed_on(path: Path) -> None:
    write_shuffle_file(path, [b"one", b"two"])
    head = 8 + 8 * 4
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        seen = 0
        for part, content in enumerate([b"one", b"two"]):
            try:
                assert read_shuffle_partition(path, part) == content
            except CorruptStageError:
                seen += 1
        assert seen or at < head, f"byte {at}"


def test_a_cut_file_is_refused(path: Path) -> None:
    write_shuffle_file(path, [b"one", b"two"])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptStageError, match=r"Delete .* and run again"):
            read_shuffle_partition(path, 1)


def test_a_missing_file_and_a_part_that_is_not_there_are_named(path: Path) -> None:
    with pytest.raises(CorruptStageError, match=r"web-00000\.parts: it is missing"):
        read_shuffle_partition(path, 0)
    write_shuffle_file(path, PARTS)
    with pytest.raises(CorruptStageError, match="got part 4, expected one of its 4 parts"):
        read_shuffle_partition(path, 4)


def test_arrays_survive_in_the_same_bytes() -> None:
    arrays = {"a": np.arange(5, dtype=np.uint32), "b": np.empty((0, 2), np.uint64)}
    assert pack_arrays(arrays) == pack_arrays(arrays)
    again = unpack_arrays(pack_arrays(arrays))
    assert again is not None
    for name, array in arrays.items():
        assert np.array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    assert pack_arrays({"b": arrays["b"]}) == b""
    assert unpack_arrays(b"") is None


@pytest.mark.parametrize(
    ("asked", "text_bytes", "expected"),
    [(0, 0, 1), (0, 1 << 28, 1), (0, (1 << 28) + 1, 2), (0, 1 << 50, 1024), (5, 1 << 50, 5)],
)
def test_partitions_follow_from_the_text_unless_given(
    asked: int, text_bytes: int, expected: int
) -> None:
    assert num_partitions(asked, text_bytes) == expected


@pytest.mark.parametrize("partitions", [1, 3, 8])
@pytest.mark.parametrize("shift", [0, 32])
def test_splitting_keeps_every_row_once_and_in_order(partitions: int, shift: int) -> None:
    """Evenly too, for documents of one shard and for the first ones of many."""
    keys = np.arange(1000, dtype=np.uint64) << np.uint64(shift)
    part = partition_of(keys, partitions)
    cut = split_by_partition(part, partitions, keys, np.arange(1000))
    assert len(cut) == partitions
    for number, (own, rows) in enumerate(cut):
        assert np.array_equal(own, keys[part == number])
        assert np.array_equal(keys[rows], own)
        assert len(own) > 700 / partitions

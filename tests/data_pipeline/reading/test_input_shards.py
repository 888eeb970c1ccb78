"""However a source is cut up, each of its rows is read once, under the same id."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.config import Reading, Source
from data_pipeline.reading import input_shards as partitions
from data_pipeline.reading import sources
from data_pipeline.reading.files import split_into_pieces
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.storage import compressed
from data_pipeline.storage.compressed import lines_between, split_lines
from data_pipeline.storage.document import BadInput, Document

TOGETHER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Lines with everything that a cut could fall into: characters of several bytes, CRLF, nothing.
LINES = st.lists(
    st.sampled_from(["", "\r", "a", "häsin läuft", "\U0001f407" * 9, "x" * 300, "\x00", "\xa0é"]),
    max_size=30,
)


def read_all(source: Source, shard_bytes: int) -> list[Document | BadInput]:
    reading = Reading(shard_bytes=shard_bytes, max_line_bytes=200)
    shards = list_shards(source, reading)
    return [d for shard in shards for d in sources.read(shard, source, reading)]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=LINES, last_newline=st.booleans(), cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_every_line_is_in_the_piece_in_which_it_begins(
    tmp_path: Path, lines: list[str], last_newline: bool, cuts: list[int]
) -> None:
    content = ("\n".join(lines) + "\n" * last_newline).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(content)}), len(content)]
    parts = [list(lines_between(path, a, b, 100)) for a, b in itertools.pairwise(bounds)]
    assert [line for part in parts for line in part] == list(split_lines([content], 100))
    for part, (begin, end) in zip(parts, itertools.pairwise(bounds), strict=True):
        assert all(begin <= offset < end for offset, _, _ in part)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=LINES, crlf=st.booleans(), shard_bytes=st.integers(1, 400))
def test_the_union_of_the_shards_is_the_file(
    tmp_path: Path, texts: list[str], crlf: bool, shard_bytes: int
) -> None:
    end = "\r\n" if crlf else "\n"
    rows = [json.dumps({"text": text}, ensure_ascii=False) + end for text in [*texts, "the last"]]
    (tmp_path / "a.jsonl").write_bytes("".join(rows).encode())
    source = Source("web", path=str(tmp_path))
    assert read_all(source, shard_bytes) == read_all(source, 1 << 30)


@pytest.mark.parametrize("shard_bytes", [1, 2_000, 9_000, 1 << 20])
@pytest.mark.parametrize("row_group_size", [1, 7, 50, 1000])
def test_the_union_of_row_groups_is_the_file(
    tmp_path: Path, shard_bytes: int, row_group_size: int
) -> None:
    table = pa.table({"text": [f"{i * 7919} " * 20 for i in range(60)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    source = Source("web", path=str(tmp_path))
    documents = read_all(source, shard_bytes)
    assert documents == read_all(source, 1 << 30)
    assert [d.id for d in documents if isinstance(d, Document)] == [
        f"web/a.parquet:{i}" for i in range(60)
    ]


def test_large_files_alone_are_cut(tmp_path: Path) -> None:
    """Small files on both sides stay together; .gz, .json and text stay whole."""
    row = b'{"text": "0123456789"}\n'
    (tmp_path / "b.jsonl").write_bytes(row * 100)
    (tmp_path / "e.json").write_bytes(row * 100)
    (tmp_path / "f.jsonl.gz").write_bytes(row * 100)  # its content is looked at by its reader only
    for name in ("a1", "a2", "c1", "c2"):
        (tmp_path / f"{name}.txt").write_text("x" * 10)
    shards = list_shards(Source("web", path=str(tmp_path)), Reading(shard_bytes=1000))
    assert [(shard.items, shard.piece) for shard in shards] == [
        (("a1.txt", "a2.txt"), None),
        (("b.jsonl",), (0, 766, 766)),
        (("b.jsonl",), (766, 1533, 767)),
        (("b.jsonl",), (1533, 2300, 767)),
        (("c1.txt", "c2.txt"), None),
        (("e.json",), None),
        (("f.jsonl.gz",), None),
    ]


def test_a_piece_reads_no_more_than_itself_and_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b"%09d\n" % i for i in range(500_000)))
    read = 0

    class Counting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            data = super().read(size) or b""
            read += len(data)
            return data

    monkeypatch.setattr(Path, "open", lambda self, mode: Counting(self, mode))
    lines = list(lines_between(path, 2_000_005, 2_100_005))
    assert [lines[0][0], lines[-1][0], len(lines)] == [2_000_010, 2_100_000, 10_000]
    assert read < 100_000 + 2 * compressed.TAIL_BYTES
    # Pieces inside one line of many megabytes look for its end no further than their own.
    path.write_bytes(b"x" * 5_000_000)
    read = 0
    assert list(lines_between(path, 1_000_000, 1_100_000)) == []
    assert read <= 100_000


def test_ids_of_rows_do_not_depend_on_the_shards_and_names_sort(tmp_path: Path) -> None:
    rows = [b'{"text": "%d"}\n' % i for i in range(1000)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(rows))
    source = Source("web", path=str(tmp_path))
    shards = list_shards(source, Reading(shard_bytes=50))
    assert len(shards) > 200
    assert [shard.name for shard in shards] == sorted(shard.name for shard in shards)
    documents = read_all(source, 50)
    assert [d.id for d in documents if isinstance(d, Document)] == [
        f"web/a.jsonl:{sum(map(len, rows[:k]))}" for k in range(1000)
    ]


def test_a_truncated_parquet_file_is_not_split(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["text"] * 1000}), path, row_group_size=10)
    path.write_bytes(path.read_bytes()[:-10])
    assert split_into_pieces(path, path.stat().st_size, 100) == []
    (shard,) = list_shards(Source("web", path=str(path)), Reading(shard_bytes=100))
    assert shard.piece is None


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_listing_of_very_many_shards_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quadratic step would take minutes here."""
    many = [partitions.InputFile(f"{i:06d}.txt", 10, "v") for i in range(200_000)]
    monkeypatch.setattr(partitions, "_items", lambda source, unread: many)
    shards = list_shards(Source("web", path=str(tmp_path)), Reading(shard_bytes=10))
    assert len(shards) == len({shard.name for shard in shards}) == 200_000
    assert shards[-1].name == "web-199999"
    assert [shard.name for shard in shards] == sorted(shard.name for shard in shards)

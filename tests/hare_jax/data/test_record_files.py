from __future__ import annotations

import re
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from hare_jax.config import Stage, Training
from hare_jax.data import packed_dataset, record_files, retries
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.data.record_files import ReaderPool, RecordFile, Records
from tests.hare_jax.builders import B, T, write_mixture
from tests.hare_jax.builders import Row as PackedRow

STALE = "pread() failed: Stale file handle; reading somewhere"


@pytest.fixture
def files(tmp_path: Path) -> list[RecordFile]:
    """Seven files of 1, 2, ... 7 records, each of which is its number."""
    numbers, found = iter(range(100)), []
    for count in range(1, 8):
        path = tmp_path / f"{count}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(count):
            writer.write(str(next(numbers)).encode())
        writer.close()
        found.append(RecordFile(str(path), count))
    return found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened, as they are."""
    names: list[str] = []
    real = record_files.ArrayRecordReader

    def opening(path: str, **named: Any) -> Any:
        names.append(Path(path).name)
        return real(path, **named)

    monkeypatch.setattr(record_files, "ArrayRecordReader", opening)
    return names


def files_open_below(folder: Path) -> int:
    paths = []
    for number in Path("/proc/self/fd").iterdir():
        try:
            paths.append(number.readlink())
        except FileNotFoundError:  # that of the listing itself
            continue
    return sum(path.is_relative_to(folder) for path in paths)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("max_files", [1, 3, 100])
def test_records_are_numbered_through_files_of_which_few_are_open(
    files: list[RecordFile], tmp_path: Path, max_files: int, threads: int
) -> None:
    pool = ReaderPool(max_files)
    records = Records(files, pool)
    numbers = np.random.default_rng(0).integers(len(records), size=300).tolist()
    with ThreadPoolExecutor(threads) as workers:
        got = list(workers.map(records.__getitem__, numbers))
    assert got == [str(number).encode() for number in numbers]
    assert len(records) == 28
    assert len(pool) == files_open_below(tmp_path) == min(max_files, 7)


def test_indices_take_bounded_memory(
    files: list[RecordFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MAX_INDEX_BYTES", 8 * 9)
    pool = ReaderPool(100)
    records = Records(files, pool)
    for number in range(28):
        assert records[number] == str(number).encode()
    assert len(pool) == 1  # of 7 records; one of 6 and one of 7 have too many
    assert records[0] == b"0" and records[1] == b"1"
    assert len(pool) == 2  # of 1 and of 2


@pytest.mark.parametrize("number", [-1, 28])
def test_a_record_that_does_not_exist_is_refused(files: list[RecordFile], number: int) -> None:
    with pytest.raises(IndexError, match=f"record {number} of 28"):
        Records(files, ReaderPool(3))[number]


def many_files(folder: Path) -> Path:
    """A mixture of two sources, with 30 files of four rows each."""
    row = PackedRow([1, *range(3, 3 + T - 1), 2], [("web/0", 0, T + 1)])
    sources = {name: [[row] * 4 for _ in range(30)] for name in ("web", "code")}
    return write_mixture(folder, sources, {"all": {"web": 1.0, "code": 1.0}})


def read_all(dataset: PackedDataset) -> None:
    order = packed_dataset.make_order(
        dataset, Training(stages=[Stage("one", "all", 240 * T)], batch_size=B)
    )
    for _ in packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, B)):
        pass


def limit_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[int]:
    """Lets this process see other limits of open files; returns the soft limits that it sets."""
    limits = [soft]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[-1], hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both[0]))
    return limits


def test_few_files_are_open_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = many_files(tmp_path / "mixture")
    monkeypatch.setattr(record_files, "OTHER_FILES", 60)
    limits = limit_open_files(monkeypatch, 80, 100)
    dataset = PackedDataset(folder)
    assert limits[-1] == 100, "raised as far as allowed"
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "  the mixture has 60 files, of which 20 are kept open, since this process may open 100 "
        "files; ulimit -n 180 would let it keep 60 open and open files less often"
    )
    read_all(dataset)
    assert files_open_below(tmp_path) == 20


def test_the_limit_of_open_files_is_raised_to_what_is_useful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = limit_open_files(monkeypatch, 64, resource.RLIM_INFINITY)
    dataset = PackedDataset(many_files(tmp_path / "mixture"))
    read_all(dataset)
    assert limits == [64, 512 + 2 * 60]
    assert files_open_below(tmp_path) == 60
    assert capsys.readouterr().out == ""


def test_a_limit_that_no_run_can_have_is_refused_before_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_open_files(monkeypatch, 40, 40)
    monkeypatch.setattr(packed_dataset, "verify", None)
    with pytest.raises(ValueError, match=r"may open 40 files, expected at least 632: .*ulimit -n"):
        PackedDataset(many_files(tmp_path / "mixture"))


def test_a_start_opens_the_first_file_of_each_source_only(
    tmp_path: Path, opened: list[str]
) -> None:
    folder, memory = many_files(tmp_path / "mixture"), tmp_path / "memory"
    PackedDataset(folder, memory)
    assert len(set(opened)) == 120  # once, each is hashed and its records are counted
    opened.clear()
    dataset = PackedDataset(folder, memory)
    assert opened == [*names_of("web"), *names_of("code")]
    opened.clear()
    dataset.batch([(1, 7), (0, 119)])
    assert opened == ["code-00001.array_record", "web-00029.array_record"]
    dataset.spans([(1, 7)])
    assert opened[2:] == ["code-00001.spans.array_record"]
    opened.clear()
    PackedDataset(folder, memory, share=(1, 4))
    assert opened == names_of("code")
    opened.clear()
    PackedDataset(folder, memory, share=(3, 4))
    assert opened == []


def names_of(source: str) -> list[str]:
    return [f"{source}-00000.array_record", f"{source}-00000.spans.array_record"]


class FailingReader:
    """A reader whose reads fail as often as `failures` says."""

    failures = 0
    message = STALE
    made = 0

    def __init__(self, real: Any):
        """Wraps a reader."""
        self.real = real
        FailingReader.made += 1

    def __getattr__(self, name: str) -> Any:
        """Returns what the reader has."""
        return getattr(self.real, name)

    def read(self, positions: list[int]) -> list[bytes]:
        """Reads, or fails."""
        if FailingReader.failures:
            FailingReader.failures -= 1
            raise RuntimeError(FailingReader.message)
        return self.real.read(positions)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """(number of failures, message): the next reads of records fail. No wait is longer than 0 s."""
    real = record_files.ArrayRecordReader
    monkeypatch.setattr(
        record_files, "ArrayRecordReader", lambda path, **named: FailingReader(real(path, **named))
    )
    monkeypatch.setattr(retries, "WAITS", (0.0,) * 6)
    monkeypatch.setattr(retries, "WAITS_DAMAGED", (0.0,) * 2)
    monkeypatch.setattr(FailingReader, "made", 0)

    def fail(times: int, message: str = STALE) -> None:
        monkeypatch.setattr(FailingReader, "failures", times)
        monkeypatch.setattr(FailingReader, "message", message)

    return fail


def test_a_transient_error_changes_no_batch(
    bake: Callable[..., Path], failing: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = PackedDataset(bake())
    rows = [(0, record) for record in range(40)]
    want = dataset.batch(rows)
    before = retries.num_repeated()
    capsys.readouterr()
    failing(6)
    got = dataset.batch(rows)
    assert all((got[key] == value).all() for key, value in want.items())
    assert retries.num_repeated() - before == 6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert re.fullmatch(
        r"  reading record 0 of .*web-00000\.array_record failed: pread\(\) failed: Stale file "
        rf"handle.*; trying again in 0\.0 s \({before + 6} repeated reads in this process so far\)",
        lines[-1],
    )


def test_a_lasting_error_is_no_damage(
    bake: Callable[..., Path], failing: Callable[..., None]
) -> None:
    dataset = PackedDataset(bake())
    failing(7)
    with pytest.raises(OSError, match=r"record 3 of source 'web' cannot be read: .* could not be "):
        dataset.batch([(0, 3)])
    failing(7)
    with pytest.raises(OSError, match=r"Stale file handle.*may be good: check the disk or the net"):
        dataset.batch([(0, 3)])


def test_bytes_that_were_damaged_on_their_way_are_read_again(
    bake: Callable[..., Path], failing: Callable[..., None]
) -> None:
    dataset = PackedDataset(bake())
    damage = "Corrupted Riegeli/records file: chunk data hash mismatch"
    failing(2, damage)
    dataset.batch([(0, 3)])
    failing(3, damage)
    with pytest.raises(ValueError, match=r"is damaged: Corrupted.* copy or bake the data again"):
        dataset.batch([(0, 3)])


def test_after_an_error_the_file_is_opened_anew(
    files: list[RecordFile], failing: Callable[..., None]
) -> None:
    records = Records(files, ReaderPool(10))
    assert (records[0], FailingReader.made) == (b"0", 1)
    failing(1)
    assert (records[0], FailingReader.made) == (b"0", 2)


def test_open_files_of_others_shrink_the_pool(
    files: list[RecordFile], failing: Callable[..., None]
) -> None:
    pool = ReaderPool(10)
    records = Records(files, pool)
    for number in range(28):
        assert records[number] == str(number).encode()
    assert len(pool) == 7
    failing(1, "open() failed: Too many open files; opening somewhere")
    assert records[27] == b"27"
    assert pool.max_files == 3
    assert len(pool) == 3

"""The cache: what was put is there for good, whoever is killed and whoever else writes."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.storage.atomic import DiskFullError
from data_pipeline.teacher import cache as caches
from data_pipeline.teacher import machine
from data_pipeline.teacher.cache import CorruptCacheError, TeacherCache
from tests.builders import ROOT

# Puts numbered values and says so after each commit; `first` tells processes apart.
WRITE = """
import hashlib, sys
from pathlib import Path
from data_pipeline.teacher.cache import TeacherCache
folder, first = Path(sys.argv[1]), int(sys.argv[2])
with TeacherCache(folder) as cache:
    for number in range(first, first + 1_000_000):
        key = hashlib.sha256(b"%d" % number).digest()
        value = b"%d " % number * 500
        cache.put({key: value}, model="m", prompt_tokens=2, completion_tokens=3)
        print(number, flush=True)
"""


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def put(cache: TeacherCache, values: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return cache.put(values, model="m", prompt_tokens=1, completion_tokens=1)


def test_what_is_put_is_there_after_opening_again(tmp_path: Path) -> None:
    values = {key(n): bytes([n]) * n * 1000 for n in range(50)}
    with TeacherCache(tmp_path / "answers of mine") as cache:
        assert cache.get(list(values)) == {}
        assert put(cache, values) == values
    with TeacherCache(tmp_path / "answers of mine") as cache:
        assert cache.get([*values, key(99)]) == values
        assert len(cache) == 50
        assert cache.get([]) == {}
    files = {path.name for path in (tmp_path / "answers of mine").iterdir()}
    assert files == {"answers.sqlite", "machine.lock"}


def test_the_first_answer_stays(tmp_path: Path) -> None:
    """Two processes that asked the same at once then agree, now and in every later run."""
    with TeacherCache(tmp_path) as one, TeacherCache(tmp_path) as other:
        assert put(one, {key(1): b"first"}) == {key(1): b"first"}
        assert put(other, {key(1): b"second", key(2): b"2"}) == {key(1): b"first", key(2): b"2"}


def test_tokens_add_up_by_model(tmp_path: Path) -> None:
    for _ in range(2):
        with TeacherCache(tmp_path) as cache:
            cache.put({}, model="m", prompt_tokens=10, completion_tokens=3)
            cache.put({key(1): b""}, model="n", prompt_tokens=5, completion_tokens=1)
    with TeacherCache(tmp_path) as cache:
        assert [cache.spent(model) for model in "mno"] == [(20, 6), (10, 2), (0, 0)]


def test_a_million_answers_are_one_file_that_is_no_larger_than_they_are(tmp_path: Path) -> None:
    values = {key(n): hashlib.sha256(b"%d" % n).hexdigest().encode() * 20 for n in range(2000)}
    with TeacherCache(tmp_path) as cache:
        put(cache, values)
    assert {path.name for path in tmp_path.iterdir()} == {"answers.sqlite", "machine.lock"}
    assert (tmp_path / "answers.sqlite").stat().st_size < sum(map(len, values.values()))


def test_processes_that_are_killed_lose_nothing_that_was_said_to_be_kept(tmp_path: Path) -> None:
    for round_ in range(2):
        first = [10_000_000 * (2 * round_ + k) for k in range(2)]
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITE, str(tmp_path), str(number)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for number in first
        ]
        said: list[list[int]] = [[], []]

        def listen(k: int, writers: list = writers, said: list = said) -> None:
            for line in writers[k].stdout:
                said[k].append(int(line))
                if len(said[k]) == 20 + 10 * k:
                    writers[k].send_signal(signal.SIGKILL)

        threads = [threading.Thread(target=listen, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread, writer in zip(threads, writers, strict=True):
            thread.join()
            assert writer.wait() == -signal.SIGKILL
            writer.stdout.close()
        with TeacherCache(tmp_path) as cache:
            for numbers in said:
                assert len(numbers) >= 20
                found = cache.get([key(n) for n in numbers])
                assert found == {key(n): b"%d " % n * 500 for n in numbers}
            kept = len(cache)
            assert cache.spent("m") == (2 * kept, 3 * kept)  # answers and tokens go together
    with sqlite3.connect(tmp_path / "answers.sqlite") as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    base.close()


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_that_ends_anywhere_holds_every_commit_before_its_end(
    tmp_path_factory: pytest.TempPathFactory, killed: Path, data: st.DataObject
) -> None:
    """Of the commits 0, 1, ... of a killed process, the first ones are there, and all of each."""
    log = (killed / "answers.sqlite-wal").read_bytes()
    assert len(log) > 20_000
    end = data.draw(st.integers(0, len(log)))
    copy = tmp_path_factory.mktemp("copy")
    (copy / "answers.sqlite").write_bytes((killed / "answers.sqlite").read_bytes())
    (copy / "answers.sqlite-wal").write_bytes(log[:end])
    with TeacherCache(copy) as cache:
        kept = len(cache)
        assert set(cache.get([key(n) for n in range(kept)])) == {key(n) for n in range(kept)}
        assert cache.spent("m") == (2 * kept, 3 * kept)
        if end == len(log):
            assert kept >= 10
        put(cache, {key(10**9): b"goes on"})


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a process that was killed after ten commits."""
    folder = tmp_path_factory.mktemp("killed")
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), "0"], stdout=subprocess.PIPE, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        while writer.stdout.readline() != b"10\n":
            pass
        writer.kill()
    return folder


def test_another_machine_waits_for_its_turn(tmp_path: Path) -> None:
    here = pytest.raises(OSError, match=r"in use by the machine .* this is 'other'.*Wait")
    with TeacherCache(tmp_path), TeacherCache(tmp_path), here:
        machine.claim(tmp_path, "other")
    machine.claim(tmp_path, "other").close()
    with machine.claim(tmp_path, "other"), pytest.raises(OSError, match="by the machine 'other'"):
        TeacherCache(tmp_path)


def test_an_answer_whose_bytes_have_changed_is_asked_for_again(tmp_path: Path) -> None:
    with TeacherCache(tmp_path) as cache:
        put(cache, {key(1): b"one", key(2): b"two"})
    with sqlite3.connect(tmp_path / "answers.sqlite") as base:
        (packed,) = base.execute("SELECT value FROM answers WHERE key = ?", (key(1),)).fetchone()
        changed = packed[:-1] + bytes([packed[-1] ^ 1])
        base.execute("UPDATE answers SET value = ? WHERE key = ?", (changed, key(1)))
    base.close()
    with TeacherCache(tmp_path) as cache:
        assert cache.get([key(1), key(2)]) == {key(2): b"two"}
        assert put(cache, {key(1): b"anew"}) == {key(1): b"anew"}
        assert cache.get([key(1), key(2)]) == {key(1): b"anew", key(2): b"two"}


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    with TeacherCache(tmp_path) as cache:
        put(cache, {key(1): b"one"})
        cache._writing.execute("PRAGMA max_page_count = 8")
        noise = b"".join(key(n) for n in range(5000))
        with pytest.raises(DiskFullError, match=r"free some space.*answers\.sqlite"):
            put(cache, {key(2): noise})
        assert cache.get([key(1), key(2)]) == {key(1): b"one"}
        cache._writing.execute("PRAGMA max_page_count = 100000")
        assert put(cache, {key(2): noise}) == {key(2): noise}
        assert cache.spent("m") == (2, 2)


def test_files_that_are_no_cache_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "answers.sqlite"
    file.write_bytes(b"what is this? " * 1000)
    with pytest.raises(CorruptCacheError, match=r"answers\.sqlite is damaged.*move the file away"):
        TeacherCache(tmp_path)
    assert file.read_bytes() == b"what is this? " * 1000
    file.unlink()
    with sqlite3.connect(file) as base:
        base.execute("PRAGMA user_version = 7")
    base.close()
    with pytest.raises(CorruptCacheError, match="expected answers of a teacher in format 1, got"):
        TeacherCache(tmp_path)


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    with TeacherCache(tmp_path) as cache:
        put(cache, {key(n): key(n) * 50 for n in range(200)})
    file = tmp_path / "answers.sqlite"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CorruptCacheError, match=r"damaged.*\.recover"):
        TeacherCache(tmp_path)


def test_a_writer_that_never_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "LOCK_S", 0.05)
    with TeacherCache(tmp_path) as cache:
        other = sqlite3.connect(tmp_path / "answers.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match=r"is locked.*with locks"):
            put(cache, {key(1): b"one"})
        other.close()
        assert put(cache, {key(1): b"one"}) == {key(1): b"one"}

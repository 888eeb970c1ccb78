from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hare_jax.data import retries
from hare_jax.data import verify as module
from hare_jax.data.verify import verify


@pytest.fixture
def expected(tmp_path: Path) -> dict[Path, str]:
    """Three files, and what they should hash to."""
    files = {}
    for name in ("a", "b", "c"):
        path = tmp_path / name
        path.write_bytes(name.encode() * 100)
        files[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    return files


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, as they are."""
    names: list[str] = []
    check = module._check
    monkeypatch.setattr(
        module, "_check", lambda path, want: names.append(path.name) or check(path, want)
    )
    return names


def test_each_file_is_hashed_once(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    memory = tmp_path / "folder" / "memory"
    verify(expected, memory)
    assert sorted(hashed) == ["a", "b", "c"]
    verify(expected, memory)
    assert len(hashed) == 3, "nothing is read again"
    verify(expected)
    assert len(hashed) == 6, "without a memory all is read"


@pytest.mark.parametrize("change", ["size", "time", "manifest"])
def test_a_changed_file_is_hashed_again(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path, change: str
) -> None:
    memory = tmp_path / "memory"
    verify(expected, memory)
    hashed.clear()
    path = tmp_path / "b"
    stat, content = path.stat(), path.read_bytes()
    if change == "size":
        path.write_bytes(content + b"!")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        path.write_bytes(content[:-1] + b"!")
    else:
        expected[path] = "0" * 64
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(path))}: got sha256 [0-9a-f]{{64}}, expected"
    ):
        verify(expected, memory)
    assert hashed == ["b"]
    with pytest.raises(ValueError, match="sha256"):  # what was wrong is not remembered as right
        verify(expected, memory)


def test_a_missing_file_is_named_before_any_is_read(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "c").unlink()
    with pytest.raises(FileNotFoundError, match=r"c: no such file, but mixture.json lists it"):
        verify(expected, tmp_path / "memory")
    assert hashed == []


@pytest.mark.parametrize("text", ["", "{", "[]", "[3]", '{"a": 1}', "7"])
def test_a_damaged_memory_costs_time_only(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path, text: str
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "verified-0.json").write_text(text)
    (memory / "verified-1.json").write_text(text)
    verify(expected, memory)
    assert len(hashed) == 3
    verify(expected, memory)
    assert len(hashed) == 3


def test_a_memory_serves_several_mixtures(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    one, *others = expected
    verify({one: expected[one]}, memory)
    verify({path: expected[path] for path in others}, memory)
    verify(expected, memory)
    assert len(hashed) == 3
    (path,) = memory.iterdir()
    assert [stamp[0] for stamp in json.loads(path.read_text())] == [str(p) for p in expected]


def test_processes_share_the_hashing_and_its_results(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    for process in (0, 1):
        verify(expected, memory, share=(process, 2))
    assert hashed == ["a", "c", "b"]
    verify(expected, memory)  # another number of processes
    assert len(hashed) == 3
    (tmp_path / "b").write_bytes(b"!")
    verify(expected, memory, share=(0, 2))
    with pytest.raises(ValueError, match="b: got sha256"):
        verify(expected, memory, share=(1, 2))


def test_processes_share_the_look_at_the_files(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "b").unlink()
    verify(expected, tmp_path / "memory", share=(0, 2))
    assert hashed == ["a", "c"]
    with pytest.raises(FileNotFoundError, match="b: no such file"):
        verify(expected, tmp_path / "memory", share=(1, 2))


def test_another_inode_is_the_same_file(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    verify(expected, tmp_path / "memory")
    for path in expected:  # as a bucket that is mounted again
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
        os.utime(copy, ns=times)
        copy.replace(path)
    verify(expected, tmp_path / "memory")
    assert len(hashed) == 3


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_an_interrupted_verification_continues(
    expected: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    memory, hashed = tmp_path / "memory", []
    monkeypatch.setattr(module, "RECORD_SECONDS", seconds)
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda *_: ThreadPoolExecutor(1))

    def interrupted(path: Path) -> None:
        if path.name == "c":
            if seconds:
                raise KeyboardInterrupt
            # A kill here leaves what was written so far; the thread is ahead by a file at most.
            deadline = time.monotonic() + 10
            while not (memory / "verified-0.json").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            shutil.copytree(memory, tmp_path / "killed")
        hashed.append(path.name)

    with suppress(KeyboardInterrupt):
        verify(expected, memory, also=interrupted)
    hashed.clear()
    again = memory if seconds else tmp_path / "killed"
    verify(expected, again, also=lambda path: hashed.append(path.name))
    assert hashed[-1] == "c" and "a" not in hashed


def test_the_record_does_not_grow_with_starts(
    expected: dict[Path, str], hashed: list[str], tmp_path: Path
) -> None:
    memory, sizes = tmp_path / "memory", []
    for start in range(3):
        for path in expected:
            os.utime(path, ns=(start, 10**18 + start))  # seen as changed
        for process in (0, 1):
            verify(expected, memory, share=(process, 2))
        sizes.append({path.name: path.stat().st_size for path in memory.iterdir()})
    assert len(hashed) == 9
    assert sizes[0] == sizes[1] == sizes[2] and set(sizes[0]) == {
        "verified-0.json",
        "verified-1.json",
    }
    (tmp_path / "a").unlink()  # baked data that was deleted
    del expected[tmp_path / "a"]
    os.utime(tmp_path / "b", ns=(0, 0))
    verify(expected, memory)
    names = [stamp[0] for stamp in json.loads((memory / "verified-0.json").read_text())]
    assert names == [str(tmp_path / "b"), str(tmp_path / "c")]


def test_a_file_that_is_wrong_otherwise_is_not_remembered(
    expected: dict[Path, str], tmp_path: Path
) -> None:
    def wrong(path: Path) -> None:
        if path.name == "b":
            raise ValueError("b has 3 records")

    for _ in range(2):
        with pytest.raises(ValueError, match="b has 3 records"):
            verify(expected, tmp_path / "memory", also=wrong)


def test_hashing_goes_on_after_a_transient_error(
    expected: dict[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0))
    opened, real = [], Path.open

    def failing(self: Path, *args: Any, **named: Any) -> Any:
        if self in expected and args == ("rb",):
            opened.append(self.name)
            if opened.count(self.name) < 3:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return real(self, *args, **named)

    monkeypatch.setattr(Path, "open", failing)
    verify(expected, tmp_path / "memory")
    assert sorted(opened) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert "Stale file handle" in capsys.readouterr().out
    opened.clear()
    monkeypatch.setattr(retries, "WAITS", (0.0,))
    with pytest.raises(OSError, match="Stale file handle"):
        verify(expected)


def test_progress_is_shown_where_it_takes_long(
    expected: dict[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verify(expected)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0)
    verify(expected)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"  hashed 0\.0 of 0\.0 GB of baked data, [\d,]+ MB/s", lines[-1])

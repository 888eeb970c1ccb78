from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("change", ["size", "time", "inode", "manifest"])
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
    elif change == "inode":
        other = tmp_path / "other"
        other.write_bytes(content[:-1] + b"!")
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(path)
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
    (memory / f"verified-{socket.gethostname()}-0.json").write_text(text)
    (memory / "verified-another-0.json").write_text(text)
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
    expected: dict[Path, str], hashed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    for process in (0, 1):
        verify(expected, memory, share=(process, 2))
    assert hashed == ["a", "c", "b"]
    # Another machine that sees the same files, and another number of processes.
    monkeypatch.setattr(module.socket, "gethostname", lambda: "host-7")
    verify(expected, memory)
    assert len(hashed) == 3
    (tmp_path / "b").write_bytes(b"!")
    verify(expected, memory, share=(0, 2))
    with pytest.raises(ValueError, match="b: got sha256"):
        verify(expected, memory, share=(1, 2))


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

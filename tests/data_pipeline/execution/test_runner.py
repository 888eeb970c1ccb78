"""A stage is done once for each thing that determines it, and goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.execution import manifest
from data_pipeline.execution.local_engine import LocalEngine
from data_pipeline.execution.manifest import CorruptStageError, Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.task import Task
from data_pipeline.storage.atomic import DiskFullError, write_text


def write_twice(task: Task) -> Ledger:
    """Writes the shard's name `config` times; refuses the shard named "bad" unless config is 1."""
    if task.shard == "bad" and task.settings != 1:
        raise ValueError("a bad shard")
    for file in task.inputs:
        file.verify()
    path = task.out / "shards" / f"{task.shard}.txt"
    write_text(path, task.shard * task.settings)
    ledger = Ledger(task.shard, files={f"shards/{path.name}": manifest.file_sha256(path)})
    ledger.of("web", "D1").kept = 1
    ledger.write(task.out)
    return ledger


def run(
    root: Path, config: int = 2, shards: tuple[str, ...] = ("a", "b"), **more: object
) -> Runner:
    with LocalEngine(2) as engine:
        runner = Runner(root, engine)
        tasks = [Task(shard, config, None) for shard in shards]
        runner.run(
            StageSpec(
                "twice",
                write_twice,
                tasks,
                config=config,
                inputs=more.get("inputs", []),
                extra=more.get("extra"),
            )
        )
    return runner


def refuse_odd(task: Task) -> Ledger:
    if int(task.shard) % 2:
        raise ValueError(f"shard {task.shard} is odd")
    return write_twice(replace(task, settings=1))


def troubled(task: Task) -> Ledger:
    """As `write_twice`; shard "b" has the trouble that a file says, as long as it is there."""
    trouble = Path(task.settings)
    if task.shard == "b" and trouble.exists():
        if trouble.read_text() == "out of memory":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does it
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    return write_twice(replace(task, settings=100))


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        ("full disk", DiskFullError, r"File too large\. Finished shards are kept.*b\.txt"),
        ("out of memory", RuntimeError, r"a worker process died.*Finished shards are\s+kept"),
    ],
)
def test_after_trouble_the_same_command_goes_on(
    tmp_path: Path, trouble: str, kind: type[Exception], said: str
) -> None:
    def stage(root: Path) -> Directory:
        tasks = [Task(name, str(tmp_path / "trouble"), None) for name in "abc"]
        with LocalEngine(1) as engine:
            return Runner(root, engine).run(StageSpec("s", troubled, tasks, config=None, inputs=[]))

    expected = stage(tmp_path / "undisturbed")
    (tmp_path / "trouble").write_text(trouble)
    with pytest.raises(kind, match=said):
        stage(tmp_path / "run")
    (path,) = (tmp_path / "run").iterdir()
    assert not (path / "manifest.json").exists()
    assert (path / "shards" / "a.txt").exists()
    finished = (path / "shards" / "a.txt").stat().st_mtime_ns
    (tmp_path / "trouble").unlink()
    made = stage(tmp_path / "run")
    assert made.manifest == expected.manifest
    assert (path / "shards" / "a.txt").stat().st_mtime_ns == finished
    for name in "abc":
        assert (path / "shards" / f"{name}.txt").read_text() == name * 100
    assert not list(path.rglob("*.partial"))


@pytest.mark.parametrize("shards", [2, 10, 60])
def test_all_refused_shards_are_named_at_the_end(tmp_path: Path, shards: int) -> None:
    tasks = [Task(f"{number:02d}", None, None) for number in range(shards)]

    def stage() -> None:
        with LocalEngine(2) as engine:
            Runner(tmp_path, engine).run(
                StageSpec("odd", refuse_odd, tasks, config=None, inputs=[], list_all_failures=True)
            )

    with pytest.raises(ValueError) as error:
        stage()
    lines = str(error.value).split("\n")
    odd = [f"shard {number:02d} is odd" for number in range(1, shards, 2)]
    if shards == 2:
        assert lines == odd
    else:
        assert lines[0] == (
            f"{len(odd)} of {shards} shards failed; the others are finished and kept."
        )
        assert [line.strip() for line in lines[1:21]] == odd[:20]
        assert lines[21:] == (["  ... and 10 more"] if shards == 60 else [])
    (path,) = tmp_path.iterdir()
    made = {file.name: file.stat().st_mtime_ns for file in (path / "shards").iterdir()}
    assert len(made) == shards - len(odd)
    with pytest.raises(ValueError):
        stage()
    assert made == {file.name: file.stat().st_mtime_ns for file in (path / "shards").iterdir()}


def times(directory: Directory) -> list[int]:
    return [file.path.stat().st_mtime_ns for file in directory.files()]


def test_what_is_there_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = run(tmp_path).directories
    made = times(first)
    capsys.readouterr()
    (second,) = run(tmp_path).directories
    assert second == first
    assert times(second) == made
    assert "served from cache" in capsys.readouterr().out


@pytest.mark.slow
def test_whatever_determines_the_result_leads_elsewhere(tmp_path: Path) -> None:
    (base,) = run(tmp_path).directories
    others = [
        run(tmp_path, config=3).directories[0],
        run(tmp_path, extra="fingerprint").directories[0],
        run(tmp_path, inputs=[base]).directories[0],
    ]
    assert len({base.path, *(other.path for other in others)}) == 4


def test_finished_shards_survive_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bad shard"):
        run(tmp_path, shards=("a", "bad", "b"))
    (path,) = tmp_path.iterdir()
    assert not (path / "manifest.json").exists()
    before = {  # a shard is finished when its ledger is written
        file.name: file.stat().st_mtime_ns
        for file in (path / "shards").glob("*.txt")
        if (path / "ledger" / f"{file.stem}.json").exists()
    }
    assert before  # two workers: before "bad" begins, "a" or "b" has ended; the other may be cut
    with pytest.raises(ValueError, match="a bad shard"):
        run(tmp_path, shards=("a", "bad", "b"))
    after = {file.name: file.stat().st_mtime_ns for file in (path / "shards").glob("*.txt")}
    assert before.items() <= after.items()


def test_a_shard_damaged_meanwhile_is_made_again(tmp_path: Path) -> None:
    (first,) = run(tmp_path).directories
    (first.path / "manifest.json").unlink()  # as if it had been killed just before
    (first.path / "shards" / "a.txt").write_text("a")
    (second,) = run(tmp_path).directories
    assert (first.path / "shards" / "a.txt").read_text() == "aa"
    assert second.manifest == first.manifest


def test_the_manifest_has_no_time_in_it(tmp_path: Path) -> None:
    (one,) = run(tmp_path / "1").directories
    (two,) = run(tmp_path / "2").directories
    assert (one.path / "manifest.json").read_bytes() == (two.path / "manifest.json").read_bytes()
    assert json.loads((one.path / "timing.json").read_text())["seconds"] > 0


def test_workers_check_their_input(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("changed")
    task = Task("a", 1, None, inputs=(ShardFile("x", tmp_path / "x", "0" * 64),))
    with LocalEngine(1) as engine, pytest.raises(CorruptStageError, match="has changed since"):
        Runner(tmp_path / "r", engine).run(
            StageSpec("twice", write_twice, [task], config=1, inputs=[])
        )

"""The local engine: workers do not change results, and do not outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.execution import local_engine
from data_pipeline.execution.local_engine import Failed, LocalEngine
from tests.builders import ROOT


def square(value: int) -> tuple[int, int]:
    return value * value, os.getpid()


def fail_at_three(value: int) -> int:
    if value == 3:
        raise ValueError("three is refused")
    return value


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("workers", [1, 2])
def test_results_do_not_depend_on_workers(workers: int) -> None:
    with LocalEngine(workers) as local_engine:
        answers = {task: result[0] for task, result in local_engine.run(square, range(20))}
        assert answers == {i: i * i for i in range(20)}


def test_work_is_done_elsewhere() -> None:
    with LocalEngine(1) as local_engine:
        ((_, (_, pid)),) = local_engine.run(square, [2])
    assert pid != os.getpid()


def test_the_first_error_is_raised_here() -> None:
    with (
        pytest.raises(ValueError, match="three is refused"),
        LocalEngine(2) as local_engine,
    ):
        list(local_engine.run(fail_at_three, range(6)))


def test_of_errors_seen_together_the_first_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine finds several tasks finished when it looks; what it says does not depend."""
    first = local_engine.wait
    monkeypatch.setattr(local_engine, "wait", lambda running, return_when: first(running))
    with LocalEngine(1) as local, pytest.raises(ValueError, match=r"invalid literal.*'a0'"):
        list(local.run(int, [f"a{k}" for k in range(8)], max_parallel=8))


def test_errors_of_a_kind_are_collected_and_others_raised() -> None:
    with LocalEngine(2) as local_engine:
        answers = dict(local_engine.run(fail_at_three, range(6), collect=(ValueError,)))
        failed = answers.pop(3)
        assert isinstance(failed, Failed)
        assert str(failed.error) == "three is refused"
        assert answers == {i: i for i in range(6) if i != 3}
        with pytest.raises(ValueError, match="three is refused"):
            list(local_engine.run(fail_at_three, range(6), collect=(OSError,)))


def work_in_turn(task: tuple[str, int]) -> int:
    """How many were at work when this one began, itself included."""
    folder, number = Path(task[0]), task[1]
    mark = folder / str(number)
    mark.touch()
    time.sleep(0.05)
    count = len(list(folder.iterdir()))
    mark.unlink()
    return count


def test_no_more_than_at_once(tmp_path: Path) -> None:
    tasks = [(str(tmp_path), number) for number in range(8)]
    with LocalEngine(3) as local_engine:
        assert max(n for _, n in local_engine.run(work_in_turn, tasks)) > 1
        assert {n for _, n in local_engine.run(work_in_turn, tasks, max_parallel=1)} == {1}
        assert max(n for _, n in local_engine.run(work_in_turn, tasks, max_parallel=2)) <= 2


def test_tasks_are_taken_as_they_are_needed() -> None:
    """A stage may have millions: they do not all wait in the pool."""
    taken = 0

    class Counting(list[int]):
        def __iter__(self) -> Iterator[int]:
            nonlocal taken
            for value in super().__iter__():
                taken += 1
                yield value

    with LocalEngine(1) as local_engine:
        run = local_engine.run(square, Counting(range(1000)))
        next(run)
        assert taken < 20
        assert len(list(run)) == 999


def test_a_killed_worker_is_explained() -> None:
    with (
        pytest.raises(RuntimeError, match=r"worker process died.*run the same command again"),
        LocalEngine(1) as local_engine,
    ):
        list(local_engine.run(die, [1]))


def test_negative_workers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"workers: got -1, expected 0"):
        LocalEngine(-1)


def test_workers_leave_with_a_killed_parent(tmp_path: Path) -> None:
    """Killing the parent (kill -9) leaves no process behind that would write into the next run."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from data_pipeline.execution.local_engine import LocalEngine\n"
        "def work(folder):\n"
        "    pathlib.Path(folder, 'pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    with LocalEngine(1) as engine:\n"
        "        list(engine.run(work, [sys.argv[1]]))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while alive(int(pid.read_text())):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"

"""Runs one pure shard function over many shards on whatever Apache Beam runs on (extra `beam`).

Create -> Reshuffle -> Map: nothing but numbers goes through Beam. A worker loads its task from the
stage's folder, writes the shard and its ledger there, and the ledgers are read back here, so that
a job of any number of shards stays a small one, and its files are those of the local engine.

    data/clean-3f2a91c07b55/
        job/tasks-....pickle        what is to be done, some hundred shards a file
        job/failed-web-00007.json   why a shard could not be made
        shards/ dropped/ ledger/    as ever; job/ is gone when the stage has ended
"""

from __future__ import annotations

import contextlib
import json
import pickle
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from data_pipeline.execution.code_version import code_version
from data_pipeline.execution.local_engine import JOB, Failed, Kinds
from data_pipeline.execution.manifest import read_ledgers
from data_pipeline.storage.atomic import list_names, remove_files, write_bytes, write_text

T = TypeVar("T")
R = TypeVar("R")

TASKS_A_FILE = 256
FAILED = "failed-"
# What an error is raised as here; one of another class is a mistake in the program.
_KINDS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "OSError": OSError,
    "RuntimeError": RuntimeError,
}


class WorkerError(Exception):
    """The traceback of an error, as the worker printed it."""


class BeamEngine:
    """A job for each stage, with Beam's own options: ("--runner=DirectRunner",).

    Raises ValueError for options without a runner, ImportError's advice where Beam is missing.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self.workers = 0  # not ours to know
        self.options = list(options)
        if not any(option.startswith("--runner=") for option in self.options):
            raise ValueError(
                f"beam_options: got {self.options}, expected Beam's own flags with a runner among "
                "them, such as ('--runner=DirectRunner',) or ('--runner=DataflowRunner', ...)"
            )

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: Kinds = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, ledger) when the job has ended; see `Engine.run`.

        Only tasks that are a runner's `Task` and write a ledger can be run here. An error of the
        kinds in `collect` is not tried again; what the runner tries again is any other.
        """
        if not tasks:
            return
        todo = cast(Sequence[Any], tasks)
        out: Path = todo[0].out
        try:
            work = _Work(
                function, out, collect, uuid.uuid4().hex, code_version(function.__module__)
            )
            for start in range(0, len(todo), TASKS_A_FILE):
                some = list(todo[start : start + TASKS_A_FILE])
                write_bytes(work.file(start), pickle.dumps(some))
            stopped = self._run_job(work, len(todo), max_parallel)
            ledgers = read_ledgers(out, [task.shard for task in todo])
            failures = _failures(out, ledgers.keys())
        finally:
            remove_files(out / JOB)
        for task in todo:
            if task.shard in ledgers:
                yield task, cast(R, ledgers[task.shard])
            elif task.shard in failures and isinstance(failures[task.shard], collect):
                yield task, Failed(failures[task.shard])
        for shard in sorted(failures):
            if not isinstance(failures[shard], collect):
                raise failures[shard]
        if stopped is not None:
            raise RuntimeError(
                f"the Beam job failed ({_first_line(stopped)}). Finished shards are kept: the same "
                "command goes on from here"
            ) from stopped
        missing = [t.shard for t in todo if t.shard not in ledgers and t.shard not in failures]
        if missing:
            raise RuntimeError(
                f"the Beam job ended well, and {len(missing)} of {len(todo)} shards are not in "
                f"{out}, the first {missing[0]}: its workers write somewhere else. Set the "
                "recipe's `output` to a folder that they and this machine share, such as "
                "gs://BUCKET/RUN"
            )

    def _run_job(self, work: _Work, count: int, max_parallel: int) -> Exception | None:
        """Runs the job to its end; returns what stopped it, if something did."""
        try:
            import apache_beam as beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise RuntimeError(
                f"engine=BEAM needs Apache Beam ({error}): pip install hare-jax[beam]"
            ) from error
        try:
            with beam.Pipeline(options=PipelineOptions(self.options)) as pipeline:
                numbers = pipeline | "shards" >> beam.Create(range(count), reshuffle=False)
                if max_parallel:
                    grouped = (
                        numbers
                        | "in turn" >> beam.Map(partial(_with_key, max_parallel))
                        | "at once" >> beam.GroupByKey()
                    )
                    grouped | "work" >> beam.Map(partial(_work_in_turn, work))
                else:
                    spread = numbers | "share out" >> beam.Reshuffle()
                    spread | "work" >> beam.Map(work)
        except Exception as error:  # every runner has errors of its own
            return error
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is kept between stages."""


def _with_key(max_parallel: int, number: int) -> tuple[int, int]:
    return number % max_parallel, number


def _work_in_turn(work: _Work, group: tuple[int, Iterable[int]]) -> None:
    """The tasks of one key, one after the other: there are as many keys as may be at work."""
    for number in sorted(group[1]):
        work(number)


@dataclass(frozen=True)
class _Work:
    """What a worker does with the number of a task."""

    function: Callable[[Any], Any]
    out: Path
    collect: Kinds
    job: str  # a name of its own for each job: what a worker has loaded may be of an earlier one
    code: dict[str, str]

    def file(self, number: int) -> Path:
        return self.out / JOB / f"tasks-{self.job}-{number // TASKS_A_FILE:05d}.pickle"

    def __call__(self, number: int) -> None:
        task = _load_tasks(self.file(number))[number % TASKS_A_FILE]
        try:
            _check_code(self.function.__module__, tuple(sorted(self.code.items())))
            self.function(task)
        except Exception as error:
            self._note(task.shard, error)
            if not isinstance(error, self.collect):
                raise

    def _note(self, shard: str, error: Exception) -> None:
        """Why a shard could not be made is left in the stage's folder."""
        kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "")
        record = {
            "kind": kind,
            "message": str(error) if kind else f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        with contextlib.suppress(OSError):  # it may be what failed
            write_text(self.out / JOB / f"{FAILED}{shard}.json", json.dumps(record))


@lru_cache
def _check_code(module: str, code: tuple[tuple[str, str], ...]) -> None:
    """Raises RuntimeError where this worker would not do exactly what the address promises."""
    here, there = code_version(module), dict(code)
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise RuntimeError(
                f"{name} is {here.get(name, 'missing')} on a worker, {there.get(name, 'missing')} "
                "where the run was started: build the workers' image from the same version of "
                "this package and constraints.txt"
            )


@lru_cache(maxsize=4)
def _load_tasks(file: Path) -> list[Any]:
    return cast(list[Any], pickle.loads(file.read_bytes()))


def _failures(out: Path, finished: Iterable[str]) -> dict[str, Exception]:
    """Why shards could not be made; one that was made when it was tried again is no failure."""
    found: dict[str, Exception] = {}
    names = {name for name in list_names(out / JOB) if name.startswith(FAILED)}
    for name in names - {f"{FAILED}{shard}.json" for shard in finished}:
        record = json.loads((out / JOB / name).read_text(encoding="utf-8"))
        error = _KINDS.get(record["kind"], RuntimeError)(record["message"])
        error.__cause__ = WorkerError(record["traceback"])
        found[name.removeprefix(FAILED).removesuffix(".json")] = error
    return found


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"

"""The Apache Beam engine: runs the shards of a stage on any Beam runner (extra `beam`).

Create -> Reshuffle -> Map: only numbers pass through Beam. A worker loads its task from the stage's
folder and writes the shard and its ledger there; this process reads the ledgers. So a job stays
small for any number of shards, and its files are those of the local engine.

    data/clean-3f2a91c07b55/
        job/tasks-....pickle        the tasks, 256 per file; job/ is removed when the stage ends
        job/failed-web-00007.json   the error of a shard
        shards/ dropped/ ledger/    as with the local engine
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
from typing import Any, TypeVar, cast

from data_pipeline.execution.check import BEAM_OPTIONS, names_runner
from data_pipeline.execution.code_version import code_version
from data_pipeline.execution.local_engine import JOB, ExecutionEngine, Failed, Kinds
from data_pipeline.execution.manifest import read_ledgers
from data_pipeline.storage.atomic import list_names, remove_files, write_bytes, write_text

T = TypeVar("T")
R = TypeVar("R")

TASKS_PER_FILE = 256
FAILED = "failed-"
# The classes of errors that are raised here as they were; any other one is a bug.
_KINDS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "OSError": OSError,
    "RuntimeError": RuntimeError,
}


class WorkerError(Exception):
    """The traceback of a worker's error, as the worker printed it."""


class BeamEngine(ExecutionEngine):
    """An engine that runs one Beam job for each stage.

    `run` raises RuntimeError if Beam is not installed.
    """

    def __init__(self, options: Sequence[str]) -> None:
        """Sets Beam's flags: ("--runner=DirectRunner",); raises ValueError without a runner."""
        self.workers = 0  # Beam decides
        self.options = list(options)
        if not names_runner(self.options):
            raise ValueError(f"beam_options: got {self.options}, expected {BEAM_OPTIONS}")

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: Kinds = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, ledger) when the job has ended; see `ExecutionEngine.run`.

        The tasks must be of class `Task` and write a ledger. Beam may retry a task after an error,
        but not after one of the kinds in `collect`.
        """
        if not tasks:
            return
        pending = cast(Sequence[Any], tasks)
        out: Path = pending[0].out
        try:
            work = _Work(
                function, out, collect, uuid.uuid4().hex, code_version(function.__module__)
            )
            for start in range(0, len(pending), TASKS_PER_FILE):
                batch = list(pending[start : start + TASKS_PER_FILE])
                write_bytes(work.file(start), pickle.dumps(batch))
            stopped = self._run_job(work, len(pending), max_parallel)
            ledgers = read_ledgers(out, [task.shard for task in pending])
            failures = _failures(out, ledgers.keys())
        finally:
            remove_files(out / JOB)
        for task in pending:
            if task.shard in ledgers:
                yield task, cast(R, ledgers[task.shard])
            elif task.shard in failures and isinstance(failures[task.shard], collect):
                yield task, Failed(failures[task.shard])
        for shard in sorted(failures):
            if not isinstance(failures[shard], collect):
                raise failures[shard]
        if stopped is not None:
            raise RuntimeError(
                f"the Beam job failed ({_first_line(stopped)}). Finished shards are kept: run "
                "the same command again"
            ) from stopped
        missing = [t.shard for t in pending if t.shard not in ledgers and t.shard not in failures]
        if missing:
            raise RuntimeError(
                f"the Beam job ended without an error, but {len(missing)} of {len(pending)} "
                f"shards are not in {out}, the first {missing[0]}: its workers write to another "
                "place. Set the recipe's `output` to a folder that they and this machine share, "
                "such as gs://BUCKET/RUN"
            )

    def _run_job(self, work: _Work, count: int, max_parallel: int) -> Exception | None:
        """Runs the job to its end; returns the error that stopped it, if any."""
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
                        | "keys" >> beam.Map(partial(_with_key, max_parallel))
                        | "groups" >> beam.GroupByKey()
                    )
                    grouped | "work" >> beam.Map(partial(_work_in_turn, work))
                else:
                    spread = numbers | "spread" >> beam.Reshuffle()
                    spread | "work" >> beam.Map(work)
        except Exception as error:  # every Beam runner has its own errors
            return error
        return None


def _with_key(max_parallel: int, number: int) -> tuple[int, int]:
    """Returns (key, number) with one of `max_parallel` keys."""
    return number % max_parallel, number


def _work_in_turn(work: _Work, group: tuple[int, Iterable[int]]) -> None:
    """Runs the tasks of one key one after the other: there is one key per concurrent task."""
    for number in sorted(group[1]):
        work(number)


@dataclass(frozen=True)
class _Work:
    """The function that a Beam worker calls with the number of a task."""

    function: Callable[[Any], Any]
    out: Path
    collect: Kinds
    job: str  # unique: a worker caches task files, which may be those of an earlier job
    code: dict[str, str]

    def file(self, number: int) -> Path:
        """Returns the file that has task `number`."""
        return self.out / JOB / f"tasks-{self.job}-{number // TASKS_PER_FILE:05d}.pickle"

    def __call__(self, number: int) -> None:
        """Runs a task and records its error, if any."""
        task = _load_tasks(self.file(number))[number % TASKS_PER_FILE]
        try:
            _check_code(self.function.__module__, tuple(sorted(self.code.items())))
            self.function(task)
        except Exception as error:
            self._note(task.shard, error)
            if not isinstance(error, self.collect):
                raise

    def _note(self, shard: str, error: Exception) -> None:
        """Writes the error of a shard into the stage's folder."""
        kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "")
        record = {
            "kind": kind,
            "message": str(error) if kind else f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
        with contextlib.suppress(OSError):  # writing may be what failed
            write_text(self.out / JOB / f"{FAILED}{shard}.json", json.dumps(record))


@lru_cache
def _check_code(module: str, code: tuple[tuple[str, str], ...]) -> None:
    """Raises RuntimeError if this worker has other code than the process that runs the stage."""
    actual, expected = code_version(module), dict(code)
    for name in sorted(actual.keys() | expected.keys()):
        if actual.get(name) != expected.get(name):
            raise RuntimeError(
                f"{name}: got {actual.get(name, 'missing')} on a worker, expected "
                f"{expected.get(name, 'missing')} as where the run was started: build the "
                "workers' image from the same version of this package and constraints.txt"
            )


@lru_cache(maxsize=4)
def _load_tasks(file: Path) -> list[Any]:
    """Returns the tasks of a file."""
    return cast(list[Any], pickle.loads(file.read_bytes()))


def _failures(out: Path, finished: Iterable[str]) -> dict[str, Exception]:
    """Returns the errors of shards, but for those that a retry finished."""
    failures: dict[str, Exception] = {}
    names = {name for name in list_names(out / JOB) if name.startswith(FAILED)}
    for name in names - {f"{FAILED}{shard}.json" for shard in finished}:
        record = json.loads((out / JOB / name).read_text(encoding="utf-8"))
        error = _KINDS.get(record["kind"], RuntimeError)(record["message"])
        error.__cause__ = WorkerError(record["traceback"])
        failures[name.removeprefix(FAILED).removesuffix(".json")] = error
    return failures


def _first_line(error: Exception) -> str:
    """Returns the class of an error and the first line of its message."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"

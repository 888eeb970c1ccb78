"""The execution of one stage: its address, the shards that are finished, the rest, its manifest."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_pipeline.execution import manifest as manifests
from data_pipeline.execution.code_version import code_version
from data_pipeline.execution.local_engine import JOB, ExecutionEngine, Failed
from data_pipeline.execution.manifest import Counts, Directory, Ledger
from data_pipeline.execution.progress import console, human_bytes, human_time, progress
from data_pipeline.execution.task import AnyTask
from data_pipeline.storage.atomic import remove_files, remove_temporary_files, write_text

MAX_LISTED = 20  # failed shards that an error message lists
MAX_DROP_REASONS, MAX_CHANGES = 4, 3  # that a stage's console line lists, the most frequent ones

TaskT = TypeVar("TaskT", bound=AnyTask)


@dataclass(frozen=True, slots=True)
class StageSpec(Generic[TaskT]):
    """A stage: its tasks, and everything that determines its result.

    The address of the stage is the hash of `name`, `config`, `inputs` and `extra`, and of the code
    of `function`'s module and all modules that it imports.

    Attributes:
      name: the stage's name, the first part of its directory's name.
      function: a module-level function, called in worker processes, that makes one shard.
      tasks: one for each shard, with distinct names.
      config: the settings that determine the result.
      inputs: the directories that the tasks read.
      extra: what else determines the result, such as the hash of a file.
      max_parallel: maximum number of shards processed concurrently; 0 leaves it to the engine.
      list_all_failures: process all shards even if some raise ValueError, and raise one error that
        lists them.
    """

    name: str
    function: Callable[[TaskT], Ledger]
    tasks: Sequence[TaskT]
    config: Any
    inputs: Sequence[Directory]
    extra: Any = None
    max_parallel: int = 0
    list_all_failures: bool = False


@dataclass(slots=True)
class Runner:
    """The stages of one run, in folders below `root`.

    Attributes:
      root: folder, or address in an object store, of all stages.
      engine: what calls the functions of stages.
      directories: the finished stages, in the order of the run.
    """

    root: Path
    engine: ExecutionEngine
    directories: list[Directory] = field(default_factory=list)

    def run(self, spec: StageSpec[TaskT]) -> Directory:
        """Returns the finished directory of a stage, and makes it unless it exists already.

        Raises:
          ValueError: a shard was refused; the finished ones are kept.
          CorruptStageError: a finished directory's manifest or an input does not verify.
          OSError: the disk is full or a file cannot be written; finished shards are kept.
        """
        made_by = _made_by(spec)
        address = manifests.digest(made_by)
        path = self.root / f"{spec.name}-{address[:12]}"
        directory = manifests.load(path)
        note = "unchanged, served from cache"
        if directory is None:
            started = time.monotonic()
            ledgers = self._finished(spec, path)
            ledgers |= self._compute(spec, path, ledgers.keys())
            shards = [ledgers[task.shard].to_json() for task in spec.tasks]
            directory = self._write_manifest(path, made_by, address, shards)
            seconds = time.monotonic() - started
            self._write_timing(path, seconds)
            note = human_time(seconds)
        console.print(_console_line(spec.name, directory, note))
        self.directories.append(directory)
        return directory

    def _finished(self, spec: StageSpec[TaskT], path: Path) -> dict[str, Ledger]:
        """Returns the ledgers of an interrupted run, and removes its temporary files."""
        names = {task.shard for task in spec.tasks}
        assert len(names) == len(spec.tasks), f"{spec.name}: two shards have one name"
        ledgers = manifests.finished_ledgers(path, names)
        for folder in ("shards", "dropped", "contaminated", "ledger"):
            remove_temporary_files(path / folder)
        remove_files(path / JOB)
        if ledgers:
            console.print(
                f"  {spec.name}: resuming, {len(ledgers)} of {len(names)} shards are finished"
            )
        return ledgers

    def _compute(
        self, spec: StageSpec[TaskT], path: Path, finished: Collection[str]
    ) -> dict[str, Ledger]:
        """Runs the tasks whose shards are not finished, and returns their ledgers."""
        tasks = [replace(task, out=path) for task in spec.tasks if task.shard not in finished]
        # The largest first, so that the last worker does not start the longest task at the end.
        tasks.sort(key=lambda task: (-task.size, task.shard))
        ledgers: dict[str, Ledger] = {}
        failures: dict[str, Exception] = {}
        with progress(spec.name, sum(task.size for task in tasks)) as advance:
            for task, result in self.engine.run(
                spec.function,
                tasks,
                max_parallel=spec.max_parallel,
                collect=(ValueError,) if spec.list_all_failures else (),
            ):
                if isinstance(result, Failed):
                    failures[task.shard] = result.error
                else:
                    ledgers[task.shard] = result
                advance(task.size)
        if failures:
            raise _error_of(failures, len(spec.tasks))
        return ledgers

    def _write_manifest(
        self, path: Path, made_by: dict[str, Any], address: str, shards: list[dict[str, Any]]
    ) -> Directory:
        """Writes the manifest, which makes the directory a finished one."""
        manifest = {**made_by, "address": address, "shards": shards}
        write_text(path / "manifest.json", json.dumps(manifest, indent=1))
        return Directory(path, manifest)

    def _write_timing(self, path: Path, seconds: float) -> None:
        """Writes timing.json, apart from the manifest: equal inputs must give equal manifests."""
        timing = {"seconds": round(seconds, 3), "workers": self.engine.workers}
        write_text(path / "timing.json", json.dumps(timing))


def _made_by(spec: StageSpec[TaskT]) -> dict[str, Any]:
    """Returns everything that determines the result of a stage, as JSON values."""
    return {
        "stage": spec.name,
        "schema": manifests.SCHEMA,
        "config": manifests.plain(spec.config),
        "code": code_version(spec.function.__module__),
        "inputs": {d.path.name: d.address for d in spec.inputs},
        "extra": manifests.plain(spec.extra),
    }


def _console_line(name: str, directory: Directory, note: str) -> str:
    """Returns the line about a finished stage: documents, bytes, drop reasons and changes.

    clean: 60 in, 41 kept (1.2 MB -> 0.9 MB), dropped: too_short 12, language 7 [0:03]
    """
    total = Counts()
    for counts in directory.counts().values():
        total.add(counts)
    parts = []
    if total.documents_in or total.bad:
        size = f"({human_bytes(total.bytes_in)} -> {human_bytes(total.bytes_kept)})"
        parts.append(f"{total.documents_in:,} in, {total.kept:,} kept {size}")
    parts += _most_frequent("dropped", total.dropped, MAX_DROP_REASONS)
    parts += _most_frequent("unreadable", total.bad, MAX_DROP_REASONS)
    parts += _most_frequent("changed", total.changed, MAX_CHANGES)
    numbers = f" {', '.join(parts)}" if parts else ""
    return f"[bold]{name}:[/]{numbers} [dim]\\[{note}][/]"


def _most_frequent(title: str, counter: Counter[str], limit: int) -> list[str]:
    """Returns a list of one text with the most frequent entries, or an empty list.

    >>> _most_frequent("dropped", Counter(too_short=1200, language=7, links=1), 2)
    ['dropped: too_short 1,200, language 7, ...']
    """
    if not counter:
        return []
    entries = [f"{name} {count:,}" for name, count in counter.most_common(limit)]
    return [f"{title}: {', '.join(entries)}" + (", ..." if len(counter) > limit else "")]


def _error_of(failures: dict[str, Exception], num_shards: int) -> Exception:
    """Returns the only error, or one that lists all of them by the names of their shards."""
    errors = [failures[shard] for shard in sorted(failures)]
    if len(errors) == 1:
        return errors[0]
    lines = [
        f"{len(errors)} of {num_shards} shards failed; the others are finished and kept.",
        *(f"  {error}" for error in errors[:MAX_LISTED]),
    ]
    if len(errors) > MAX_LISTED:
        lines.append(f"  ... and {len(errors) - MAX_LISTED} more")
    return ValueError("\n".join(lines))

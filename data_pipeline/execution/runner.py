"""Runs one stage: names its directory, skips what is finished, makes the rest, signs it off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.execution import manifest as manifests
from data_pipeline.execution.code_version import code_version
from data_pipeline.execution.local_engine import JOB, ExecutionEngine, Failed
from data_pipeline.execution.manifest import Counts, Directory, Ledger
from data_pipeline.execution.progress import console, human_bytes, human_time, progress
from data_pipeline.execution.task import AnyTask
from data_pipeline.storage.atomic import remove_files, remove_temporary_files, write_text

LISTED = 20  # refused shards that are named


TaskT = TypeVar("TaskT", bound=AnyTask)


@dataclass(slots=True)
class Runner:
    """Runs stages into `root`; `directories` lists what it made or found, in order."""

    root: Path
    engine: ExecutionEngine
    directories: list[Directory] = field(default_factory=list)

    def stage(
        self,
        name: str,
        function: Callable[[TaskT], Ledger],
        tasks: Sequence[TaskT],
        *,
        config: Any,
        inputs: Sequence[Directory],
        extra: Any = None,
        max_parallel: int = 0,
        list_all_failures: bool = False,
    ) -> Directory:
        """The finished directory of this stage, made now unless its address is already there.

        Args:
          function: a module-level function, called in worker processes.
          tasks: one a shard, with distinct names; `out` is filled in here.
          config, inputs, extra: with the code of `function`'s module, and of all that it imports,
            what determines the result; their hash is the directory's address.
          at_once: so many shards at most are made at the same time; 0: as the engine likes.
          list_all_failures: a shard that is refused (ValueError) stops no other, and all such
            shards are named together at the end, of many the first LISTED.

        Raises:
          ValueError: a shard was refused; the finished ones are kept.
          DamagedInput: a finished directory's manifest or an input does not verify.
          OSError: the disk is full or a file cannot be written; finished shards are kept.
        """
        made_by = {
            "stage": name,
            "schema": manifests.SCHEMA,
            "config": manifests.plain(config),
            "code": code_version(function.__module__),
            "inputs": {d.path.name: d.address for d in inputs},
            "extra": manifests.plain(extra),
        }
        address = manifests.digest(made_by)
        path = self.root / f"{name}-{address[:12]}"
        directory = manifests.load(path)
        if directory is not None:
            self._announce(name, directory, "unchanged, served from cache")
            self.directories.append(directory)
            return directory

        started = time.monotonic()
        names = {task.shard for task in tasks}
        assert len(names) == len(tasks), f"{name}: two shards have one name"
        ledgers = manifests.finished_ledgers(path, names)
        todo = [replace(task, out=path) for task in tasks if task.shard not in ledgers]
        for folder in ("shards", "dropped", "ledger", "contaminated"):
            remove_temporary_files(path / folder)
        remove_files(path / JOB)
        if ledgers:
            console.print(f"  {name}: {len(ledgers)} of {len(tasks)} shards were finished before")
        # The largest first, so that the last worker does not start the longest task at the end.
        todo.sort(key=lambda task: (-task.size, task.shard))
        with progress(name, sum(task.size for task in todo)) as advance:
            failures: dict[str, Exception] = {}
            collect = (ValueError,) if list_all_failures else ()
            for task, made in self.engine.run(
                function, todo, max_parallel=max_parallel, collect=collect
            ):
                if isinstance(made, Failed):
                    failures[task.shard] = made.error
                else:
                    ledgers[task.shard] = made
                advance(task.size)
        if failures:
            raise _all_of(failures, len(tasks))

        manifest = {
            **made_by,
            "address": address,
            "shards": [ledgers[task.shard].to_json() for task in tasks],
        }
        write_text(path / "manifest.json", json.dumps(manifest, indent=1))
        seconds = time.monotonic() - started
        # Time is no part of the manifest: the same input must give the same bytes.
        write_text(
            path / "timing.json",
            json.dumps({"seconds": round(seconds, 3), "workers": self.engine.workers}),
        )
        directory = Directory(path, manifest)
        self._announce(name, directory, human_time(seconds))
        self.directories.append(directory)
        return directory

    def _announce(self, name: str, directory: Directory, note: str) -> None:
        """One line a stage: what came in, what was kept, and the most frequent reasons why not."""
        total = Counts()
        for counts in directory.counts().values():
            total.add(counts)
        parts = []
        if total.documents_in or total.bad:
            parts.append(f"{total.documents_in:,} in, {total.kept:,} kept")
            parts.append(f"({human_bytes(total.bytes_in)} -> {human_bytes(total.bytes_kept)})")
        reasons = total.dropped + total.bad
        if reasons:
            most = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common(4))
            parts.append(f"without: {most}" + (", ..." if len(reasons) > 4 else ""))
        if total.changed:
            most = ", ".join(f"{what} {count:,}" for what, count in total.changed.most_common(3))
            parts.append(f"changed: {most}")
        console.print(f"[bold]{name:<14}[/] {' '.join(parts)}  [dim]\\[{note}][/]")


def _all_of(failures: dict[str, Exception], shards: int) -> Exception:
    """One error that says what each refused shard says; a single one is itself."""
    errors = [failures[shard] for shard in sorted(failures)]
    if len(errors) == 1:
        return errors[0]
    lines = [f"{len(errors)} of {shards} shards are refused; the others are finished and kept."]
    lines += [f"  {error}" for error in errors[:LISTED]]
    if len(errors) > LISTED:
        lines.append(f"  ... and {len(errors) - LISTED} more")
    return ValueError("\n".join(lines))

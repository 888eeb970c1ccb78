"""Builders for tests of the pipeline: texts, shards, stages, runners, and readers of results."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

from data_pipeline.config import Reading, Recipe, Source
from data_pipeline.execution import manifest
from data_pipeline.execution.local_engine import ExecutionEngine, Failed, LocalEngine
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile, file_sha256
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput
from data_pipeline.execution.task import Task
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import BadInput, Document, Dropped
from data_pipeline.storage.shards import (
    DroppedWriter,
    ShardWriter,
    read_dropped,
    read_shard,
)
from tests.builders import ROOT

if TYPE_CHECKING:
    from data_pipeline.pipeline import Curated
    from data_pipeline.report.flow import ReportStage

T = TypeVar("T")
R = TypeVar("R")

# ---- Texts

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("ando", "ire", "ultem", "okra", "esty")]


def nonsense(number: int, seed: int = 0) -> str:
    """Returns words that occur in no other text of a test, in one line."""
    rng = random.Random(seed)
    return " ".join(rng.choice(SYLLABLES) + rng.choice(SYLLABLES) for _ in range(number))


def nonsense_sentences(number: int, seed: int = 0) -> str:
    """Returns sentences of ten made-up words each, in one line."""
    return " ".join(f"{nonsense(10, seed * 1000 + k)}." for k in range(number))


# ---- Runners


class SerialEngine(ExecutionEngine):
    """Runs shards in this process, one after another; workers are not what the test is about."""

    workers = 1

    def run(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        *,
        max_parallel: int = 0,
        collect: tuple[type[Exception], ...] = (),
    ) -> Iterator[tuple[T, R | Failed]]:
        """Yields (task, result) in the order of the tasks; see `LocalEngine.run`."""
        for task in tasks:
            try:
                result: R | Failed = function(task)
            except collect as error:
                result = Failed(error)
            yield task, result


@contextmanager
def runner_at(root: Path, workers: int = 0) -> Iterator[Runner]:
    """Yields a runner with a pool of worker processes; 0 workers run in this process."""
    if workers:
        with LocalEngine(workers) as engine:
            yield Runner(root, engine)
    else:
        yield Runner(root, SerialEngine())


def curate_serially(recipe: Recipe, root: Path) -> Curated:
    """Runs a whole recipe in this process, whatever its engine and number of workers."""
    from data_pipeline import pipeline  # worker processes that import this module need less

    with mock.patch.object(pipeline, "engine_of", lambda _: SerialEngine()):
        return pipeline.run(recipe, root)


# ---- Documents, their shards and stages


def read_source(source: Source, reading: Reading | None = None) -> list[Document | BadInput]:
    """Returns the documents and the refused rows of all shards of a source."""
    from data_pipeline.reading import input_shards, sources  # worker processes need no readers

    reading = reading or Reading()
    shards = input_shards.list_shards(source, reading)
    return [row for shard in shards for row in sources.read(shard, source, reading)]


def documents_of(texts: Iterable[str], source: str = "web") -> list[Document]:
    """Returns one document per text, numbered from 0; the category is the source."""
    return [Document(f"{source}/{k}", text, source, source) for k, text in enumerate(texts)]


def write_shard(path: Path, documents: Sequence[Document]) -> ShardFile:
    """Writes one shard of documents."""
    with ShardWriter(path) as writer:
        for document in documents:
            writer.write(document)
    return ShardFile(path.name.split(".")[0], path, file_sha256(path))


def start_shard_and_die(path: Path) -> None:
    """Writes documents of a shard in a process that is killed before the shard is whole."""
    code = (
        "import os, sys; from data_pipeline.storage.shards import ShardWriter;"
        "from data_pipeline.storage.document import Document;"
        "w = ShardWriter(sys.argv[1]).__enter__();"
        "[w.write(Document(str(i), os.urandom(999).hex(), 's', 's')) for i in range(2000)];"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)


def _write_documents(task: Task) -> Ledger:
    with ShardOutput(task, "made") as output:
        for document in task.settings:
            output.count_input(document)
            output.write(document)
    return output.ledger


def stage_of_documents(
    runner: Runner,
    shards: Mapping[str, Sequence[Document]],
    name: str = "made",
    tiers: Mapping[str, str] | None = None,
) -> Directory:
    """Runs a stage whose shards hold the given documents, all of them kept.

    Args:
      runner: the runner that the next stage uses.
      shards: documents by name of the shard.
      name: the stage's name.
      tiers: tier by source.
    """
    tasks = [Task(shard, own, None, tiers=dict(tiers or {})) for shard, own in shards.items()]
    return runner.run(StageSpec(name, _write_documents, tasks, config=shards, inputs=[]))


def divided(documents: Sequence[Document], number: int) -> dict[str, Sequence[Document]]:
    """Returns the documents as `number` shards, dealt out in turn."""
    return {f"s-{k}": documents[k::number] for k in range(number)}


def kept_documents(stage: Directory) -> list[Document]:
    """Returns what a stage kept, in the order of its shards."""
    return [document for file in stage.files() for document in read_shard(file.path)]


def dropped_documents(stage: Directory) -> list[Dropped]:
    """Returns what a stage dropped, in the order of its shards."""
    return [row for file in stage.files("dropped") for _, row in read_dropped(file.path)]


def kept_by_id(stage: Directory) -> dict[str, Document]:
    """Returns what a stage kept; fails if two documents have one id."""
    documents = kept_documents(stage)
    by_id = {document.id: document for document in documents}
    assert len(by_id) == len(documents)
    return by_id


def dropped_by_id(stage: Directory) -> dict[str, Dropped]:
    """Returns what a stage dropped, by id of the document."""
    return {dropped.document.id: dropped for dropped in dropped_documents(stage)}


def document_files(stage: Directory) -> dict[str, bytes]:
    """Returns the bytes of all kept and dropped shards."""
    return {
        f"{folder}/{file.name}": file.path.read_bytes()
        for folder in ("shards", "dropped")
        for file in stage.files(folder)
    }


def result_files(root: Path, without: Sequence[str] = ("timing.json",)) -> dict[str, bytes]:
    """Returns the bytes of all files below `root`, by relative path.

    `without`: names of files or of folders that are no part of the result.
    """
    paths = {path.relative_to(root): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in paths.items()
        if not {*name.parts} & {*without}
    }


# ---- The report


def stage_of_ledgers(
    name: str, *ledgers: Ledger, parent: Path = Path("nowhere"), **fields: Any
) -> Directory:
    """Returns a finished stage that has ledgers and no files; `fields`: more of its manifest."""
    made = {"schema": manifest.SCHEMA, "stage": name, "address": name, "code": {}, "config": {}}
    shards = [ledger.to_json() for ledger in ledgers]
    return Directory(parent / name, {**made, "shards": shards, **fields})


def report_stage(name: str, *ledgers: Ledger) -> ReportStage:
    """Returns a finished stage that has ledgers and no files, as sections of the report take it."""
    from data_pipeline.report.flow import ReportStage  # worker processes need no report

    return ReportStage.all_of([stage_of_ledgers(name, *ledgers)])[0]


def stage_with_files(
    path: Path,
    name: str,
    shards: Iterable[tuple[Ledger, Sequence[Document], Sequence[Dropped]]],
    **fields: Any,
) -> Directory:
    """Writes a finished stage into `path`: for each ledger the kept and the dropped documents.

    The ledgers list the files; what they count is theirs. `fields`: more of the manifest.
    """
    ledgers = []
    for ledger, kept, dropped in shards:
        file = f"{ledger.shard}.jsonl.zst"
        with ShardWriter(path / "shards" / file) as writer:
            for document in kept:
                writer.write(document)
        with DroppedWriter(path / "dropped" / file) as side:
            for row in dropped:
                side.write(name, row)
        ledger.files = {f"shards/{file}": writer.sha256, f"dropped/{file}": side.sha256}
        ledgers.append(ledger)
    stage = stage_of_ledgers(name, *ledgers, parent=path.parent, **fields)
    write_text(path / "manifest.json", json.dumps(stage.manifest))
    return Directory(path, stage.manifest)


def report_page(folder: Path, directories: Sequence[Directory]) -> str:
    """Returns the HTML of the report of finished stages, written into `folder`."""
    from data_pipeline import report  # worker processes that import this module need no page

    path = report.write(folder / "report.html", directories=directories, title="t", command="c")
    return path.read_text(encoding="utf-8")

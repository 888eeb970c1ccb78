"""The output of one shard: kept documents, dropped documents and the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from data_pipeline.execution.manifest import Ledger, ShardFile
from data_pipeline.execution.task import AnyTask
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import BadInput, Document, Dropped
from data_pipeline.storage.shards import DroppedWriter, ShardWriter, read_shard

CHUNK = 256  # documents that a decision function gets at a time

Decision = Document | Dropped
Decide = Callable[[list[Document]], list[Decision]]
T = TypeVar("T")


class ShardOutput:
    """The two files and the ledger of one shard; the ledger is written last, and only on success.

    >>> with ShardOutput(task, "clean") as output:        # doctest: +SKIP
    ...     output.count_input(document)
    ...     output.write(Dropped(document, "too_short"))
    """

    def __init__(self, task: AnyTask, stage: str) -> None:
        """Prepares the output of `task`; `stage` is written with each dropped document."""
        self.task, self.stage = task, stage
        self.ledger = new_ledger(task)

    def __enter__(self) -> ShardOutput:
        """Opens both files."""
        name = f"{self.task.shard}.jsonl.zst"
        self._kept = ShardWriter(self.task.out / "shards" / name).__enter__()
        self._dropped = DroppedWriter(self.task.out / "dropped" / name).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Publishes both files and then the ledger, or removes them if there was an exception."""
        for writer in (self._dropped, self._kept):
            writer.__exit__(kind, error, traceback)
        if kind is None:
            self.ledger.files |= {
                f"{folder}/{writer.path.name}": writer.sha256
                for folder, writer in (("shards", self._kept), ("dropped", self._dropped))
            }
            self.ledger.write(self.task.out)

    def count_input(self, document: Document) -> None:
        """Counts a document that the stage has read."""
        counts = self.ledger.of(document.source, self.task.tiers.get(document.source, ""))
        counts.documents_in += 1
        counts.bytes_in += text_bytes(document)

    def write(self, decision: Decision) -> None:
        """Writes and counts a kept or a dropped document."""
        if isinstance(decision, Dropped):
            self._dropped.write(self.stage, decision)
            self.ledger.of(decision.document.source).dropped[decision.reason] += 1
        else:
            self._kept.write(decision)
            counts = self.ledger.of(decision.source, self.task.tiers.get(decision.source, ""))
            counts.kept += 1
            counts.bytes_kept += text_bytes(decision)

    def quarantine(self, bad: BadInput, source: str) -> None:
        """Writes input that could not become a document: its first bytes and its place."""
        text = bad.raw.decode("utf-8", "backslashreplace")
        evidence = {"file": bad.file, "offset": bad.offset, "detail": bad.detail}
        document = Document(f"{source}/{bad.file}@{bad.offset}", text, source, "")
        self._dropped.write(self.stage, Dropped(document, bad.reason, evidence))
        self.ledger.of(source).bad[bad.reason] += 1


def new_ledger(task: AnyTask) -> Ledger:
    """Returns the ledger of a task with the hashes of its input and no counts."""
    return Ledger(task.shard, inputs={file.name: file.sha256 for file in task.inputs})


def text_bytes(document: Document) -> int:
    """Returns the bytes of a document's text in UTF-8."""
    text = document.text
    return len(text) if text.isascii() else len(text.encode())


def documents_in(files: Iterable[ShardFile]) -> Iterator[Document]:
    """Yields the documents of shards; each file is verified against its manifest first."""
    for file in files:
        with file.verified() as path:
            yield from read_shard(path)


def documents_of(task: AnyTask) -> Iterator[Document]:
    """Yields the documents of a task's input, verified as in `documents_in`."""
    return documents_in(task.inputs)


def ids_of(file: ShardFile) -> set[str]:
    """Returns the ids of the documents of a shard."""
    return {document.id for document in documents_in([file])}


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yields lists of at most `size` values."""
    values = iter(values)
    while chunk := list(islice(values, size)):
        yield chunk


def transform(task: AnyTask, stage: str, decide: Decide) -> Ledger:
    """Writes the decision of `decide` about each of the task's documents.

    Args:
      task: the task.
      stage: name that is written with each dropped document.
      decide: returns a decision for each of a list of documents, in their order.

    Returns:
      The ledger.
    """
    with ShardOutput(task, stage) as output:
        for chunk in chunks(documents_of(task)):
            for document in chunk:
                output.count_input(document)
            for decision in decide(chunk):
                output.write(decision)
    return output.ledger


def add_file(ledger: Ledger, out: Path, name: str, text: str) -> None:
    """Writes a text file into a stage's folder and adds its hash to the ledger.

    Args:
      ledger: of the task that writes the file.
      out: the stage's folder.
      name: path of the file in that folder.
      text: its content.
    """
    write_text(out / name, text)
    ledger.files[name] = hashlib.sha256(text.encode()).hexdigest()

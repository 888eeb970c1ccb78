"""What every step does with a shard: stream its documents past a decision and keep the books."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from data_pipeline.execution.manifest import Ledger, ShardFile
from data_pipeline.execution.task import AnyTask
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import BadInput, Document, Dropped
from data_pipeline.storage.shards import DroppedWriter, ShardWriter, read_shard

CHUNK = 256  # documents that a decision sees at a time

Decision = Document | Dropped
Decide = Callable[[list[Document]], list[Decision]]


class ShardOutput:
    """The two files and the ledger of one shard; the ledger is written last, and only on success.

    >>> with Books(task, "clean") as books:        # doctest: +SKIP
    ...     books.came(document)
    ...     books.settle(Dropped(document, "too_short"))
    """

    def __init__(self, task: AnyTask, stage: str) -> None:
        self.task, self.stage = task, stage
        self.ledger = new_ledger(task)

    def __enter__(self) -> ShardOutput:
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
        for writer in (self._dropped, self._kept):
            writer.__exit__(kind, error, traceback)
        if kind is None:
            self.ledger.files |= {
                f"{folder}/{writer.path.name}": writer.sha256
                for folder, writer in (("shards", self._kept), ("dropped", self._dropped))
            }
            self.ledger.write(self.task.out)

    def count_input(self, document: Document) -> None:
        counts = self.ledger.of(document.source, self.task.tiers.get(document.source, ""))
        counts.documents_in += 1
        counts.bytes_in += text_bytes(document)

    def write(self, answer: Decision) -> None:
        """Writes what a decision answered to where it belongs."""
        if isinstance(answer, Dropped):
            self._dropped.write(self.stage, answer)
            self.ledger.of(answer.document.source).dropped[answer.reason] += 1
        else:
            self._kept.write(answer)
            counts = self.ledger.of(answer.source, self.task.tiers.get(answer.source, ""))
            counts.kept += 1
            counts.bytes_kept += text_bytes(answer)

    def quarantine(self, bad: BadInput, source: str) -> None:
        """Keeps what never became a document: as much of it as was read, and where it lies."""
        text = bad.raw.decode("utf-8", "backslashreplace")
        evidence = {"file": bad.file, "offset": bad.offset, "detail": bad.detail}
        document = Document(f"{source}/{bad.file}@{bad.offset}", text, source, "")
        self._dropped.write(self.stage, Dropped(document, bad.reason, evidence))
        self.ledger.of(source).bad[bad.reason] += 1


def new_ledger(task: AnyTask) -> Ledger:
    """The empty ledger of a task, with what it reads."""
    return Ledger(task.shard, inputs={file.name: file.sha256 for file in task.inputs})


def text_bytes(document: Document) -> int:
    text = document.text
    return len(text) if text.isascii() else len(text.encode())


def documents_in(files: Iterable[ShardFile]) -> Iterator[Document]:
    """The documents of these shards, each file checked against its manifest first."""
    for file in files:
        with file.verified() as path:
            yield from read_shard(path)


def documents_of(task: AnyTask) -> Iterator[Document]:
    return documents_in(task.inputs)


def ids_of(file: ShardFile) -> set[str]:
    return {document.id for document in documents_in([file])}


def chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    documents = iter(documents)
    while chunk := list(islice(documents, CHUNK)):
        yield chunk


def transform(task: AnyTask, stage: str, decide: Decide) -> Ledger:
    """Streams the task's documents past `decide`."""
    with ShardOutput(task, stage) as output:
        for chunk in chunks(documents_of(task)):
            for document in chunk:
                output.count_input(document)
            for answer in decide(chunk):
                output.write(answer)
    return output.ledger


def add_file(ledger: Ledger, out: Path, name: str, text: str) -> None:
    write_text(out / name, text)
    ledger.files[name] = hashlib.sha256(text.encode()).hexdigest()

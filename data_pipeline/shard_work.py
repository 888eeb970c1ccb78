"""What a worker does with one shard, stage by stage: a pure function of its task each.

They stream documents past a decision and keep the books; the decisions themselves are made in
curation/ and decontamination/.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from types import TracebackType

from data_pipeline import manifest as manifests
from data_pipeline.config import (
    Baking,
    Cleaning,
    Decontamination,
    Deduplication,
    HeldOut,
    NlpTasks,
    Reading,
    Source,
    Tier,
)
from data_pipeline.curation import chance, clean, dedup, items, nlp_tasks, sources
from data_pipeline.decontamination import benchmarks, index, probe, rules
from data_pipeline.disk import write_text
from data_pipeline.document import Bad, Document, Dropped
from data_pipeline.manifest import Ledger, ShardFile
from data_pipeline.mixture.bake import bake_part
from data_pipeline.runner import Task
from data_pipeline.shards import DroppedWriter, ShardWriter, read_shard

CHUNK = 256  # documents that a decision sees at a time

Answer = Document | Dropped
Decide = Callable[[list[Document]], list[Answer]]


class Books:
    """The two files and the ledger of one shard; the ledger is written last, and only on success.

    >>> with Books(task, "clean") as books:        # doctest: +SKIP
    ...     books.came(document)
    ...     books.settle(Dropped(document, "too_short"))
    """

    def __init__(self, task: Task, stage: str) -> None:
        self.task, self.stage = task, stage
        self.ledger = account_of(task)

    def __enter__(self) -> Books:
        name = f"{self.task.shard}.jsonl.zst"
        for folder in ("shards", "dropped"):
            (self.task.out / folder).mkdir(parents=True, exist_ok=True)
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
            self.ledger.files = {
                f"{folder}/{writer.path.name}": writer.sha256
                for folder, writer in (("shards", self._kept), ("dropped", self._dropped))
            }
            self.ledger.write(self.task.out)

    def came(self, document: Document) -> None:
        counts = self.ledger.of(document.source, self.task.tiers.get(document.source, ""))
        counts.documents_in += 1
        counts.bytes_in += text_bytes(document)

    def settle(self, answer: Answer) -> None:
        """Writes what a decision answered to where it belongs."""
        if isinstance(answer, Dropped):
            self._dropped.write(self.stage, answer)
            self.ledger.of(answer.document.source).dropped[answer.reason] += 1
        else:
            self._kept.write(answer)
            counts = self.ledger.of(answer.source, self.task.tiers.get(answer.source, ""))
            counts.kept += 1
            counts.bytes_kept += text_bytes(answer)

    def quarantine(self, bad: Bad, source: str) -> None:
        """Keeps what never became a document: as much of it as was read, and where it lies."""
        text = bad.raw.decode("utf-8", "backslashreplace")
        evidence = {"file": bad.file, "offset": bad.offset, "detail": bad.detail}
        document = Document(f"{source}/{bad.file}@{bad.offset}", text, source, "")
        self._dropped.write(self.stage, Dropped(document, bad.reason, evidence))
        self.ledger.of(source).bad[bad.reason] += 1


def account_of(task: Task) -> Ledger:
    """The empty ledger of a task, with what it reads."""
    return Ledger(task.shard, inputs={file.name: file.sha256 for file in task.inputs})


@cache
def load_index(file: ShardFile) -> index.Index:
    """Checked and read once in a process: a worker looks through many shards with one index."""
    file.verify()
    return index.Index.load(file.path)


def text_bytes(document: Document) -> int:
    text = document.text
    return len(text) if text.isascii() else len(text.encode())


def documents_in(files: Iterable[ShardFile]) -> Iterator[Document]:
    """The documents of these shards, each file checked against its manifest first."""
    for file in files:
        file.verify()
        yield from read_shard(file.path)


def documents_of(task: Task) -> Iterator[Document]:
    return documents_in(task.inputs)


def ids_of(file: ShardFile) -> set[str]:
    return {document.id for document in documents_in([file])}


def chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    documents = iter(documents)
    while chunk := list(islice(documents, CHUNK)):
        yield chunk


def transform(task: Task, stage: str, decide: Decide) -> Ledger:
    """Streams the task's documents past `decide`."""
    with Books(task, stage) as books:
        for chunk in chunks(documents_of(task)):
            for document in chunk:
                books.came(document)
            for answer in decide(chunk):
                books.settle(answer)
    return books.ledger


# -- the stages, in the order in which a document meets them -----------------------------------


def read(task: Task) -> Ledger:
    """Raw input to documents; what cannot be read is quarantined with its place and reason.

    Raises ValueError where more than `max_bad_fraction` of the shard's rows are bad.
    """
    source: Source
    reading: Reading
    source, reading, shard = task.config
    good = bad = 0
    with Books(task, "read") as books:
        for row in sources.read(shard, source, reading):
            if isinstance(row, Bad):
                bad += 1
                books.quarantine(row, shard.source)
            else:
                good += 1
                books.task.tiers[row.source] = source.tier.value
                books.came(row)
                books.settle(row)
        if bad > reading.max_bad_fraction * (good + bad):
            reasons = {r: n for c in books.ledger.sources.values() for r, n in c.bad.items()}
            raise ValueError(
                f"shard {task.shard}: {bad} of {good + bad} rows are bad ({reasons}), more than "
                f"the allowed share of {reading.max_bad_fraction:g}. Mend the input, leave files "
                f"out with the source's `exclude`, or raise "
                f"--config.data.reading.max_bad_fraction"
            )
    return books.ledger


def cleaning(task: Task) -> Ledger:
    config: Cleaning = task.config
    decide_one = clean.build(config)
    with Books(task, "clean") as books:
        for document in documents_of(task):
            books.came(document)
            answer = decide_one(document)
            if isinstance(answer, Document):
                changed = books.ledger.of(answer.source).changed
                changed.update(answer.meta.pop("replaced", {}))
            books.settle(answer)
    return books.ledger


def signatures(task: Task) -> Ledger:
    config: Deduplication = task.config
    ledger = account_of(task)
    path = task.out / "shards" / f"{task.shard}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    dedup.signatures(documents_of(task), config).save(path)
    ledger.files[f"shards/{path.name}"] = manifests.file_sha256(path)
    ledger.write(task.out)
    return ledger


def duplicates(task: Task) -> Ledger:
    """The one global step: which row of which shard goes, over the signatures of all shards.

    `task.inputs` are the signature files; `task.side` the shards of documents by the same names.
    """
    config: Deduplication
    config, source_order = task.config
    for file in task.inputs:
        file.verify()
    tables = [dedup.Signatures.load(file.path) for file in task.inputs]

    def shingles_of(shard: int, rows: list[int]) -> list[dedup.U64]:
        return dedup.shingles(documents_in([task.side[task.inputs[shard].name]]), rows, config)

    decisions = dedup.find_duplicates(tables, shingles_of, source_order, config)
    ledger = account_of(task)
    for file, decided in zip(task.inputs, decisions, strict=True):
        add_file(ledger, task.out, f"shards/{file.name}.json", json.dumps(decided.to_json()))
    ledger.write(task.out)
    return ledger


def deduplicate(task: Task) -> Ledger:
    task.side["decisions"].verify()
    decided = dedup.Decisions.from_json(json.loads(task.side["decisions"].path.read_text()))
    decide_one = dedup.build(decided)
    with Books(task, "deduplicate") as books:
        for row, document in enumerate(documents_of(task)):
            books.came(document)
            answer = decide_one(row, document)
            if isinstance(answer, Document) and "renamed_from" in answer.meta:
                books.ledger.of(answer.source).changed["duplicate_id"] += 1
            books.settle(answer)
    return books.ledger


def candidates(task: Task) -> Ledger:
    """The documents of a shard whose hash falls under the held-out fraction; the rest passes by."""
    config: HeldOut = task.config
    with Books(task, "candidates") as books:
        for document in documents_of(task):
            if chance.number(config.seed, "held out", document.id) < config.fraction * 2**64:
                books.came(document)
                books.settle(document)
    return books.ledger


def held_out(task: Task) -> Ledger:
    """Of all candidates, the `max_documents` of each source with the smallest hashes."""
    config: HeldOut = task.config
    chosen: dict[str, list[tuple[int, int, Document]]] = {}
    for number, document in enumerate(documents_of(task)):
        heap = chosen.setdefault(document.source, [])
        hashed = chance.number(config.seed, "held out", document.id)
        heapq.heappush(heap, (-hashed, number, document))
        if len(heap) > config.max_documents:
            heapq.heappop(heap)
    with Books(task, "held_out") as books:
        for source in sorted(chosen):
            for _, _, document in sorted(chosen[source], key=lambda entry: entry[2].id):
                books.came(document)
                books.settle(document)
    return books.ledger


def make_items(task: Task) -> Ledger:
    """items.jsonl: multiple-choice items of the held-out documents.

    `task.side`: the candidates, a sample of all documents, that tell what is boilerplate.
    """
    config: HeldOut = task.config
    made = items.make(documents_of(task), config, sample=documents_in(task.side.values()))
    ledger = account_of(task)
    lines = (json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in made)
    add_file(ledger, task.out, "items.jsonl", "".join(lines))
    ledger.extra = {"items": dict(Counter(item.task for item in made))}
    ledger.write(task.out)
    return ledger


def make_index(task: Task) -> Ledger:
    """The n-grams of all benchmarks for one n, as a file that every worker loads."""
    config: Decontamination
    config, protected, n = task.config
    for file in task.inputs:
        file.verify()
    everything = [item for benchmark in protected for item in benchmarks.read(benchmark)]
    built = index.build_index(everything, n, config)
    path = task.out / "shards" / f"{task.shard}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    built.save(path)
    ledger = account_of(task)
    ledger.files[f"shards/{path.name}"] = manifests.file_sha256(path)
    ledger.extra = {
        "items": dict(Counter(item.benchmark for item in everything)),
        "unindexed": built.unindexed,
    }
    ledger.write(task.out)
    return ledger


def decontaminate(task: Task) -> Ledger:
    """Takes out the held-out documents, and whatever holds evaluation data.

    `task.side`: "held_out", and an index for each n, by its number of words.
    """
    config: Decontamination = task.config
    held_out = ids_of(task.side["held_out"])
    decide_by_n: dict[int, Decide] = {}

    def decide(documents: list[Document]) -> list[Answer]:
        answers: list[Answer] = [
            Dropped(document, "held_out") if document.id in held_out else document
            for document in documents
        ]
        if not config.enabled:
            return answers
        by_n: dict[int, list[int]] = {}
        for k, answer in enumerate(answers):
            if isinstance(answer, Document):
                by_n.setdefault(config.ngram_words[task.tiers[answer.source]], []).append(k)
        for n, rows in by_n.items():
            if n not in decide_by_n:
                decide_by_n[n] = rules.build(config, load_index(task.side[str(n)]))
            for k, answer in zip(rows, decide_by_n[n]([documents[k] for k in rows]), strict=True):
                answers[k] = answer
        return answers

    return transform(task, "decontaminate", decide)


def measure(task: Task) -> Ledger:
    """probe.json: what share of planted leaks the rules of this run find."""
    config: Decontamination
    config, protected, n = task.config
    held_out = ids_of(task.side["held_out"])
    everything = [item for benchmark in protected for item in benchmarks.read(benchmark)]
    rest = (document for document in documents_of(task) if document.id not in held_out)
    found = probe.measure(everything, rest, config, load_index(task.side[str(n)]))
    ledger = account_of(task)
    add_file(ledger, task.out, "probe.json", json.dumps({"n": n} | found, indent=1))
    ledger.write(task.out)
    return ledger


def write_tasks(task: Task) -> Ledger:
    """D3: tasks in natural language, made from the documents of D1 and D2."""
    config: NlpTasks = task.config
    make = nlp_tasks.build(config)
    with Books(task, "nlp_tasks") as books:
        for document in documents_of(task):
            if task.tiers[document.source] == Tier.D3.value:
                continue
            for made in make(document):
                books.came(made)
                books.settle(made)
    return books.ledger


def bake(task: Task) -> Ledger:
    """One part of one source: its documents as TFRecord, packed rows and spans."""
    config: Baking
    config, source = task.config
    documents = (document for document in documents_of(task) if document.source == source)
    part = bake_part(task.shard, source, documents, task.out / "shards", config)
    ledger = account_of(task)
    ledger.files = {
        f"shards/{part.file}": part.sha256,
        f"shards/{part.spans}": part.spans_sha256,
        f"shards/{part.tfrecord}": part.tfrecord_sha256,
    }
    ledger.extra = dataclasses.asdict(part)
    ledger.write(task.out)
    return ledger


def add_file(ledger: Ledger, out: Path, name: str, text: str) -> None:
    write_text(out / name, text)
    ledger.files[name] = manifests.file_sha256(out / name)

"""Baked data -> the batch of step s.

A baked directory holds mixture.json and, for each source, ArrayRecord files of packed rows. All
that mixture.json says of them is checked when they are opened: nothing is trained on by mistake.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain

from hare_jax.config import Model, Training
from hare_jax.data.batch import Batch, decode_record, from_records
from hare_jax.data.order import Order, StageSchedule
from hare_jax.data.verify import verify

SCHEMA = 1


@dataclass(slots=True)
class PackedSource:
    """One source as mixture.json has it; `tokens` counts targets, `records` rows."""

    name: str
    category: str
    tier: str
    documents: int
    tokens: int
    records: int
    files: list[dict[str, Any]]


@dataclass(slots=True)
class Span:
    """A piece of a document in a batch: `length` tokens of it from token `offset` on."""

    row: int
    source: str
    record_id: int
    document_id: str
    offset: int
    length: int


class PackedDataset:
    """A baked directory, verified: fingerprint, schema, and every file's presence, bytes and count.

    `memory` and `share`: which bytes need not be hashed, since they were before or since another
    process does it: see verify.py.
    Raises FileNotFoundError or ValueError at the first mismatch, naming the file and both values.
    """

    def __init__(
        self, directory: Path, memory: Path | None = None, share: tuple[int, int] = (0, 1)
    ):
        self.directory = Path(directory)
        manifest = _read_manifest(self.directory / "mixture.json")
        self.fingerprint: str = manifest["fingerprint"]
        self.tokenizer: dict[str, Any] = manifest["tokenizer"]
        self.sequence_length: int = manifest["sequence_length"]
        self.tokens_per_record: int = manifest["tokens_per_record"]
        self.dtype: str = manifest["dtype"]
        self.mixtures: dict[str, dict[str, float]] = manifest["mixtures"]
        self.sources = [PackedSource(**source) for source in manifest["sources"]]
        verify(self._hashes(), memory, share)
        self._rows = [self._open(source, "file") for source in self.sources]
        self._spans = [self._open(source, "spans") for source in self.sources]
        for source_id, source in enumerate(self.sources):
            if source.records:
                self._check_first(source_id)

    def _hashes(self) -> dict[Path, str]:
        """File -> the sha256 that the manifest says."""
        files = [file for source in self.sources for file in source.files]
        return {
            self.directory / self.tokenizer["file"]: self.tokenizer["sha256"],
            **{self.directory / file["file"]: file["sha256"] for file in files},
            **{self.directory / file["spans"]: file["spans_sha256"] for file in files},
        }

    def _open(self, source: PackedSource, key: str) -> Any:
        """Random access to all the records of a source, its files one after the other."""
        for file in source.files:
            path = self.directory / file[key]
            got = len(grain.sources.ArrayRecordDataSource([str(path)]))
            if got != file["records"]:
                raise ValueError(f"{path}: got {got} records, mixture.json says {file['records']}")
        got = sum(file["records"] for file in source.files)
        if got != source.records:
            raise ValueError(
                f"{self.directory / 'mixture.json'}: the files of {source.name!r} have {got} "
                f"records, the source says {source.records}"
            )
        paths = [str(self.directory / file[key]) for file in source.files]
        return grain.sources.ArrayRecordDataSource(paths) if paths else ()

    def _check_first(self, source_id: int) -> None:
        """Compares the first record of a source with what the manifest says of all of them."""
        problem = next(self._problems(source_id), None)
        if problem:
            raise ValueError(
                f"{self.directory}: the first record of source {self.sources[source_id].name!r} "
                f"has {problem}, unlike what mixture.json says; bake the data again"
            )

    def _problems(self, source_id: int) -> Iterator[str]:
        if self.tokens_per_record != self.sequence_length + 1:
            yield f"{self.tokens_per_record} tokens for sequence_length={self.sequence_length}"
        row, lengths = decode_record(self._record(source_id, 0), self.tokens_per_record, self.dtype)
        tokenizer, spans = self.tokenizer, self.spans([(source_id, 0)])
        if row.max() >= tokenizer["vocab_size"]:
            yield f"token {row.max()} of a vocabulary of {tokenizer['vocab_size']}"
        if [span.length for span in spans] != lengths.tolist():
            yield f"segments of {lengths.tolist()} tokens for the documents {spans}"
        for span, end in zip(spans, lengths.cumsum(), strict=True):
            first, last = row[end - span.length], row[end - 1]
            if span.offset == 0 and first != tokenizer["bos_id"]:
                yield f"a document that begins with {first}, not BOS {tokenizer['bos_id']}"
            # A piece shorter than a row is a document's last.
            if span.length < self.tokens_per_record and last != tokenizer["eos_id"]:
                yield f"a document that ends with {last}, not EOS {tokenizer['eos_id']}"

    def check_model(self, model: Model) -> None:
        """Raises ValueError where the model's vocabulary is not the tokenizer's."""
        if self.tokenizer["vocab_size"] != model.vocab_size:
            raise ValueError(
                f"{self.directory / 'mixture.json'}: baked with a tokenizer of "
                f"{self.tokenizer['vocab_size']} pieces, but the model has "
                f"vocab_size={model.vocab_size}; set the one to the other, or bake again"
            )

    def batch(self, picks: Sequence[tuple[int, int]]) -> Batch:
        """The records [(source_id, record_id), ...] as a batch of as many rows."""
        return from_records(
            [self._record(source_id, record_id) for source_id, record_id in picks],
            record_ids=[record_id for _, record_id in picks],
            source_ids=[source_id for source_id, _ in picks],
            tokens_per_record=self.tokens_per_record,
            dtype=self.dtype,
        )

    def _record(self, source_id: int, record_id: int) -> bytes:
        """Records have checksums of their own: bytes that go bad later are noticed here."""
        try:
            return self._rows[source_id][record_id]
        except RuntimeError as error:
            raise ValueError(
                f"{self.directory}: record {record_id} of source {self.sources[source_id].name!r} "
                f"cannot be read: {error}; bring the data again"
            ) from error

    def spans(self, picks: Sequence[tuple[int, int]]) -> list[Span]:
        """The documents that lie in those records, in the order of rows."""
        return [
            Span(row, self.sources[source_id].name, record_id, *span)
            for row, (source_id, record_id) in enumerate(picks)
            for span in json.loads(self._spans[source_id][record_id])
        ]


def make_order(baked: PackedDataset, training: Training) -> Order:
    """The order of a run over this data. Raises ValueError where stages and data do not fit."""
    records = {source.name: source.records for source in baked.sources}
    return Order(training, records, baked.mixtures, baked.sequence_length)


def plan(baked: PackedDataset, order: Order, max_epochs: float) -> list[dict[str, Any]]:
    """What each stage will draw, as plan.json has it:

        {"name", "mixture", "tokens", "steps", "sources": [{"name", "tier", "weight", "tokens",
         "epochs"}]}

    `weight` is the share of rows, `tokens` of a source are targets, `epochs` of a stage alone.
    Raises ValueError where a source would be repeated more than `max_epochs` times in all.
    """
    for source, rows in zip(baked.sources, order.rows_drawn_in_total(), strict=True):
        if rows > max_epochs * source.records:
            raise ValueError(
                f"source {source.name!r} would be repeated {rows / source.records:.1f} times, "
                f"training.max_epochs is {max_epochs:g}: lower its weight or the stages' tokens, "
                "or raise training.max_epochs"
            )
    return [_plan_stage(baked, order, stage) for stage in order.stages]


def _plan_stage(baked: PackedDataset, order: Order, stage: StageSchedule) -> dict[str, Any]:
    sources = [
        {
            "name": source.name,
            "tier": source.tier,
            "weight": weight / sum(stage.weights),
            "tokens": round(rows * source.tokens / source.records),
            "epochs": rows / source.records,
        }
        for source, weight, rows in zip(
            baked.sources, stage.weights, order.rows_drawn(stage), strict=True
        )
        if weight
    ]
    return {
        "name": stage.name,
        "mixture": stage.mixture,
        "tokens": stage.steps * order.batch_size * baked.sequence_length,
        "steps": stage.steps,
        "sources": sources,
    }


def trace(baked: PackedDataset, order: Order, step: int) -> list[Span]:
    """The documents that the global batch of a step is made of."""
    return baked.spans(order.records_of_step(step))


def batches(
    baked: PackedDataset, order: Order, *, first_step: int, rows: slice, threads: int = 0
) -> Iterator[Batch]:
    """The batches of the steps from `first_step` on, read ahead by threads; 0: up to four.

    `rows`: the part of each global batch that this process needs.
    """
    steps = grain.MapDataset.source(_Steps(baked, order, rows))[first_step:]
    threads = threads or min(4, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(steps.to_iter_dataset(options))


@dataclass(slots=True)
class _Steps:
    """The batches of a run as a source with random access, which is all that grain asks for."""

    baked: PackedDataset
    order: Order
    rows: slice

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> Batch:
        return self.baked.batch(self.order.records_of_step(step)[self.rows])


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a directory of baked data")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); bake the data again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{path}: schema {got!r}, expected {SCHEMA}; bake the data again")
    claimed = manifest.get("fingerprint")
    got = fingerprint(manifest)
    if got != claimed:
        raise ValueError(
            f"{path}: the contents have fingerprint {got}, but it says {claimed}; the file was "
            "changed after it was baked: bake the data again"
        )
    return manifest


def fingerprint_of(directory: Path) -> str:
    """The fingerprint of a baked directory's mixture.json, whose other files are not looked at."""
    return str(_read_manifest(Path(directory) / "mixture.json")["fingerprint"])


def fingerprint(manifest: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of all of mixture.json but its own `fingerprint`."""
    body = {key: value for key, value in manifest.items() if key != "fingerprint"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

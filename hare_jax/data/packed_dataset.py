"""Packed datasets: the folders that the bake stage writes, read as batches by step.

Such a folder holds mixture.json and, for each source, ArrayRecord files of packed rows. Everything
that mixture.json states about these files is checked when they are hashed. After that, opening the
folder takes no longer with more files: counts come from mixture.json, and files are opened when
they are read (record_files.py).
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
from hare_jax.data.record_files import ReaderPool, Records, listed, plan_pool
from hare_jax.data.retries import retried
from hare_jax.data.verify import verify

SCHEMA = 1


@dataclass(slots=True)
class PackedSource:
    """One source of a mixture, as mixture.json lists it."""

    name: str
    category: str
    tier: str
    documents: int
    tokens: int  # targets: every token of a document but its first
    records: int  # packed rows
    files: list[dict[str, Any]]  # {"file", "sha256", "spans", "spans_sha256", "records"}


@dataclass(slots=True)
class Span:
    """A piece of one document in one row of a batch."""

    row: int
    source: str
    record_id: int  # number of the record within its source
    document_id: str
    offset: int  # first token of the piece, counted in tokens of the document with BOS and EOS
    length: int  # tokens


class PackedDataset:
    """A verified packed dataset: its manifest, and random access to the records of each source."""

    def __init__(
        self, directory: Path, cache_dir: Path | None = None, share: tuple[int, int] = (0, 1)
    ):
        """Opens `directory` and verifies its fingerprint, schema, files, hashes and counts.

        Args:
          directory: the folder with mixture.json.
          cache_dir: where hashes that were verified before are stored; None: no cache. See
            verify.py.
          share: (i, n) verifies the i-th of n parts of the files and of the sources, so that n
            processes share the work.

        Raises:
          FileNotFoundError: if a file is missing.
          ValueError: at the first mismatch, naming the file and both values.
        """
        self.directory = Path(directory)
        manifest = _read_manifest(self.directory / "mixture.json")
        self.fingerprint: str = manifest["fingerprint"]
        self.tokenizer: dict[str, Any] = manifest["tokenizer"]
        self.sequence_length: int = manifest["sequence_length"]
        self.tokens_per_record: int = manifest["tokens_per_record"]
        self.dtype: str = manifest["dtype"]
        self.mixtures: dict[str, dict[str, float]] = manifest["mixtures"]
        self.sources = [PackedSource(**source) for source in manifest["sources"]]
        self._check_sums()
        files = {
            key: [listed(self.directory, source.files, key) for source in self.sources]
            for key in ("file", "spans")
        }
        # Before any file is hashed, which may take hours.
        max_files, note = plan_pool([file for of_source in files["file"] for file in of_source])
        if note and share[0] == 0:
            print(note, flush=True)
        pool = ReaderPool(max_files)
        by_path = {Path(f.path): f for key in files for of_source in files[key] for f in of_source}

        def check_count(path: Path) -> None:
            if path in by_path:  # all but the tokenizer
                pool.check(by_path[path])

        verify(self._hashes(), cache_dir, share, also=check_count)
        self._rows = [Records(of_source, pool) for of_source in files["file"]]
        self._spans = [Records(of_source, pool) for of_source in files["spans"]]
        for source_id in range(share[0], len(self.sources), share[1]):
            if self.sources[source_id].records:
                self._check_first(source_id)

    def _hashes(self) -> dict[Path, str]:
        """Returns the sha256 that the manifest states, by file."""
        files = [file for source in self.sources for file in source.files]
        return {
            self.directory / self.tokenizer["file"]: self.tokenizer["sha256"],
            **{self.directory / file["file"]: file["sha256"] for file in files},
            **{self.directory / file["spans"]: file["spans_sha256"] for file in files},
        }

    def _check_sums(self) -> None:
        """Raises ValueError if the files of a source are not listed with all of its records."""
        for source in self.sources:
            got = sum(file["records"] for file in source.files)
            if got != source.records:
                raise ValueError(
                    f"{self.directory / 'mixture.json'}: the files of {source.name!r} have {got} "
                    f"records, expected {source.records}, the sum that is listed for the source"
                )

    def _check_first(self, source_id: int) -> None:
        """Raises ValueError if the first record of a source contradicts the manifest."""
        problem = next(self._problems(source_id), None)
        if problem:
            raise ValueError(
                f"{self.directory}: the first record of source {self.sources[source_id].name!r} "
                f"has {problem}, which contradicts mixture.json; bake the data again"
            )

    def _problems(self, source_id: int) -> Iterator[str]:
        """Yields each contradiction between the first record of a source and the manifest."""
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
            # Only the last piece of a document can be shorter than a row.
            if span.length < self.tokens_per_record and last != tokenizer["eos_id"]:
                yield f"a document that ends with {last}, not EOS {tokenizer['eos_id']}"

    def check_model(self, model: Model) -> None:
        """Raises ValueError if the model's vocabulary size differs from the tokenizer's."""
        if self.tokenizer["vocab_size"] != model.vocab_size:
            raise ValueError(
                f"{self.directory / 'mixture.json'}: baked with a tokenizer of "
                f"{self.tokenizer['vocab_size']} pieces, but the model has "
                f"vocab_size={model.vocab_size}; set model.vocab_size to the former, or bake "
                "the data with another tokenizer"
            )

    def batch(self, rows: Sequence[tuple[int, int]]) -> Batch:
        """Reads the records [(source_id, record_id), ...] as a batch, one row per record."""
        return from_records(
            [self._record(source_id, record_id) for source_id, record_id in rows],
            record_ids=[record_id for _, record_id in rows],
            source_ids=[source_id for source_id, _ in rows],
            tokens_per_record=self.tokens_per_record,
            dtype=self.dtype,
        )

    def _record(self, source_id: int, record_id: int) -> bytes:
        """Reads the bytes of one record.

        ArrayRecord stores a checksum per record, so that damage after the opening is detected.

        Raises:
          ValueError: the record is damaged.
          OSError: it could not be read, however often it was tried.
        """
        try:
            return self._rows[source_id][record_id]
        except (ValueError, OSError) as error:
            raise type(error)(
                f"{self.directory}: record {record_id} of source {self.sources[source_id].name!r} "
                f"cannot be read: {error}"
            ) from error

    def spans(self, rows: Sequence[tuple[int, int]]) -> list[Span]:
        """Lists the pieces of documents in the records [(source_id, record_id), ...] by row."""
        return [
            Span(row, self.sources[source_id].name, record_id, *span)
            for row, (source_id, record_id) in enumerate(rows)
            for span in json.loads(self._spans[source_id][record_id])
        ]


def make_order(dataset: PackedDataset, training: Training) -> Order:
    """Schedules a run over this data; raises ValueError if its stages do not fit the data."""
    records = {source.name: source.records for source in dataset.sources}
    return Order(training, records, dataset.mixtures, dataset.sequence_length)


def plan(dataset: PackedDataset, order: Order, max_epochs: float) -> list[dict[str, Any]]:
    """Lists what each stage draws from each source: the "stages" of plan.json.

        {"name", "mixture", "tokens", "steps", "sources": [{"name", "tier", "weight", "tokens",
         "epochs"}]}

    `weight` is the source's share of the rows, `tokens` of a source counts targets, and `epochs`
    counts the repetitions within the stage.

    Args:
      dataset: the data.
      order: the schedule of the run over it.
      max_epochs: limit on the repetitions of a source over the whole run.

    Raises:
      ValueError: if a source would be repeated more than `max_epochs` times.
    """
    for source, rows in zip(dataset.sources, order.rows_drawn_in_total(), strict=True):
        if rows > max_epochs * source.records:
            raise ValueError(
                f"source {source.name!r} would be repeated {rows / source.records:.1f} times, "
                f"training.max_epochs is {max_epochs:g}: lower its weight or the stages' tokens, "
                "or raise training.max_epochs"
            )
    return [_plan_stage(dataset, order, stage) for stage in order.stages]


def _plan_stage(dataset: PackedDataset, order: Order, stage: StageSchedule) -> dict[str, Any]:
    """Returns the entry of one stage in plan.json; sources of weight 0 are omitted."""
    sources = [
        {
            "name": source.name,
            "tier": source.tier,
            "weight": weight / sum(stage.weights),
            "tokens": round(rows * source.tokens / source.records),
            "epochs": rows / source.records,
        }
        for source, weight, rows in zip(
            dataset.sources, stage.weights, order.rows_drawn(stage), strict=True
        )
        if weight
    ]
    return {
        "name": stage.name,
        "mixture": stage.mixture,
        "tokens": stage.steps * order.batch_size * dataset.sequence_length,
        "steps": stage.steps,
        "sources": sources,
    }


def trace(dataset: PackedDataset, order: Order, step: int) -> list[Span]:
    """Lists the pieces of documents in the global batch of a step, 0 for the first."""
    return dataset.spans(order.records_of_step(step))


def batches(
    dataset: PackedDataset, order: Order, *, first_step: int, rows: slice, threads: int = 0
) -> Iterator[Batch]:
    """Returns an iterator over the batches of the steps from `first_step` on.

    Args:
      dataset: the data.
      order: the schedule of the run over it.
      first_step: 0 for the first step of the run.
      rows: the rows of each global batch that this process needs.
      threads: threads that read ahead; 0: at most four, one per CPU.
    """
    steps = grain.MapDataset.source(_Steps(dataset, order, rows))[first_step:]
    threads = threads or min(4, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(steps.to_iter_dataset(options))


@dataclass(slots=True)
class _Steps:
    """The batches of a run as a random-access source, the interface that grain reads from."""

    dataset: PackedDataset
    order: Order
    rows: slice

    def __len__(self) -> int:
        """Returns the number of steps."""
        return self.order.steps

    def __getitem__(self, step: int) -> Batch:
        """Reads this process's rows of the batch of a step."""
        return self.dataset.batch(self.order.records_of_step(step)[self.rows])


def _read_manifest(path: Path) -> dict[str, Any]:
    """Reads mixture.json, and checks its schema version and its fingerprint."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a directory of baked data")
    try:
        manifest = json.loads(retried(lambda: path.read_text("utf-8"), str(path)))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); bake the data again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"{path}: schema {got!r}, expected {SCHEMA}; bake the data again")
    claimed = manifest.get("fingerprint")
    got = fingerprint(manifest)
    if got != claimed:
        raise ValueError(
            f"{path}: the contents have fingerprint {got}, expected {claimed}, which is written "
            "in it; the file was changed after it was baked: bake the data again"
        )
    return manifest


def sequence_length_of(directory: Path) -> int:
    """Returns the tokens per row of a folder's mixture.json, without a check of its other files."""
    return int(_read_manifest(Path(directory) / "mixture.json")["sequence_length"])


def fingerprint_of(directory: Path) -> str:
    """Returns the fingerprint in a folder's mixture.json, without a check of its other files."""
    return str(_read_manifest(Path(directory) / "mixture.json")["fingerprint"])


def fingerprint(manifest: dict[str, Any]) -> str:
    """Computes the sha256 of the canonical JSON of a manifest without its `fingerprint` field."""
    body = {key: value for key, value in manifest.items() if key != "fingerprint"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

"""Measures the tokens per second of the input pipeline (hare_jax/data/packed_dataset.py).

    python -m benchmarks.input_speed
    python -m benchmarks.input_speed --sequence 4096 --batch 1024 --threads 4
    python -m benchmarks.input_speed --mixture MIXTURE

Writes a mixture of --sources sources with --records rows of --sequence tokens each into a temporary
folder, as ArrayRecord files like those of the recipe; documents have --document tokens on average.
Or reads the rows of MIXTURE, a folder that the recipe wrote. Then takes --steps batches, --repeats
times, from `packed_dataset.batches`, as training does, with --threads prefetch threads; and, for
comparison, in this thread without grain. Every run must see all sources by their weights.

    tokens/s per core = rows x sequence x steps / CPU seconds of all threads of the process

CPU seconds are the measure because the device needs little of the host's time during training. The
best repeat is printed. Files are in the page cache: the time of a disk is not included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from hare_jax.config import Stage, Training
from hare_jax.data import packed_dataset
from hare_jax.data.batch import Batch

VOCAB_SIZE, BOS, EOS = 32_000, 1, 2


def bake(folder: Path, sources: int, records: int, sequence: int, document: int) -> Path:
    """Writes random documents of equally large sources, with weights 1, 2, 3, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(b"no tokenizer")
    rng = np.random.default_rng(0)
    names = [f"source{k}" for k in range(sources)]
    manifest = {
        "schema": packed_dataset.SCHEMA,
        "tokenizer": {
            "file": "tokenizer.model",
            "sha256": _sha256(folder / "tokenizer.model"),
            "vocab_size": VOCAB_SIZE,
            "bos_id": BOS,
            "eos_id": EOS,
            "unk_id": 0,
        },
        "sequence_length": sequence,
        "tokens_per_record": sequence + 1,
        "dtype": "uint16",
        "sources": [_source(folder, name, records, sequence, document, rng) for name in names],
        "mixtures": {"all": {name: k + 1.0 for k, name in enumerate(names)}},
    }
    manifest["fingerprint"] = packed_dataset.fingerprint(manifest)
    (folder / "mixture.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _source(
    folder: Path, name: str, records: int, sequence: int, document: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Writes the files of one source and returns its entry in the manifest."""
    rows_path = folder / f"{name}-00000.array_record"
    spans_path = folder / f"{name}-00000.spans.array_record"
    rows = ArrayRecordWriter(str(rows_path), "group_size:1")
    spans = ArrayRecordWriter(str(spans_path), "group_size:1")
    documents = 0
    for _ in range(records):
        lengths = _lengths(sequence + 1, document, rng)
        row = rng.integers(3, VOCAB_SIZE, sequence + 1).astype("<u2")
        ends = np.cumsum(lengths)
        row[ends - lengths], row[ends - 1] = BOS, EOS
        rows.write(row.tobytes() + lengths.astype("<u4").tobytes())
        placed = [(f"{name}/{documents + k}", 0, int(n)) for k, n in enumerate(lengths)]
        spans.write(json.dumps(placed).encode())
        documents += len(lengths)
    rows.close()
    spans.close()
    file = {
        "file": rows_path.name,
        "spans": spans_path.name,
        "records": records,
        "sha256": _sha256(rows_path),
        "spans_sha256": _sha256(spans_path),
    }
    return {
        "name": name,
        "category": "random",
        "tier": "D1",
        "documents": documents,
        "tokens": records * sequence,
        "records": records,
        "files": [file],
    }


def _lengths(tokens: int, document: int, rng: np.random.Generator) -> np.ndarray:
    """Returns lengths of documents of at least three tokens that fill a row."""
    drawn = 3 + rng.geometric(1 / document, tokens // 3)
    lengths = drawn[: int((np.cumsum(drawn) < tokens - 3).sum()) + 1]
    lengths[-1] = tokens - lengths[:-1].sum()
    return lengths


def _sha256(path: Path) -> str:
    """Returns the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timed(make: Callable[[], Iterator[Batch]], steps: int) -> tuple[float, float, np.ndarray]:
    """Returns (wall seconds, CPU seconds, rows by source) of `steps` batches after the first."""
    batches = make()
    next(batches)
    wall, cpu, seen = time.perf_counter(), time.process_time(), []
    for batch in islice(batches, steps):
        seen.append(np.bincount(batch["source_id_B"]))
    most = max(len(counts) for counts in seen)
    rows = np.sum([np.pad(counts, (0, most - len(counts))) for counts in seen], axis=0)
    return time.perf_counter() - wall, time.process_time() - cpu, rows


def main() -> None:
    """Parses the options and prints the rates."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixture", default="", help="a baked folder, instead of one made here")
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--records", type=int, default=500, help="rows of each source")
    parser.add_argument("--sequence", type=int, default=2048, help="tokens a row")
    parser.add_argument(
        "--document", type=int, default=600, help="tokens of a document, on average"
    )
    parser.add_argument("--batch", type=int, default=256, help="rows a step")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="that read ahead; 0: as training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.mixture) if options.mixture else Path(scratch, "baked")
        if not options.mixture:
            o = options
            bake(folder, o.sources, o.records, o.sequence, o.document)
        measure(packed_dataset.PackedDataset(folder), options)


def measure(dataset: packed_dataset.PackedDataset, options: argparse.Namespace) -> None:
    """Prints the rates of both ways of reading."""
    tokens = options.batch * dataset.sequence_length
    stages = [Stage("speed", mixture=min(dataset.mixtures), tokens=tokens * (options.steps + 1))]
    order = packed_dataset.make_order(dataset, Training(stages=stages, batch_size=options.batch))
    every = slice(0, options.batch)

    def as_training() -> Iterator[Batch]:
        return packed_dataset.batches(
            dataset, order, first_step=0, rows=every, threads=options.threads
        )

    def in_this_thread() -> Iterator[Batch]:
        return (dataset.batch(order.records_of_step(step)) for step in range(order.steps))

    runs = {"packed_dataset.batches": as_training, "in this thread": in_this_thread}
    found: dict[str, list[tuple[float, float, np.ndarray]]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, make in runs.items():
            found[name].append(timed(make, options.steps))
    print(
        f"{len(dataset.sources)} sources, {options.batch} rows of {dataset.sequence_length} tokens "
        f"per step, best of {options.repeats} times {options.steps} steps\n"
        "tokens/s per core = rows x sequence x steps / CPU seconds of all threads\n"
        f"  {'':<28} {'tokens/s per core':>17} {'tokens/s':>14}"
    )
    for name, times in found.items():
        cpu, wall = min(t[1] for t in times), min(t[0] for t in times)
        total = tokens * options.steps
        print(f"  {name:<28} {total / cpu:16,.0f} {total / wall:14,.0f}")
    shares = found["in this thread"][0][2] / (options.batch * options.steps)
    print("  rows of each source: " + " ".join(f"{share:.1%}" for share in shares))


if __name__ == "__main__":
    main()

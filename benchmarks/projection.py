"""Projects memory, disk and core hours of a trillion tokens from rates measured on this machine.

    python -m benchmarks.projection FOLDER --benchmarks B

Runs the recipe over at most --megabytes (20) of the folder's text and prints Markdown tables. Core
hours are --text-bytes (4.2e12, a trillion tokens of 4.2 bytes) divided by the measured bytes per
second. Memory of the global stages is measured on random keys of 200,000 documents, a share
--candidates (0.3) of which are in a group: the peak of tracemalloc per document, times --documents
(1.3e9), divided by the number of partitions.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks import recipe
from benchmarks.corpus import arguments, load, megabytes_of
from data_pipeline.config import Deduplication
from data_pipeline.deduplication import candidate_groups, signatures, survivors
from data_pipeline.deduplication.candidate_groups import Groups, Links
from data_pipeline.execution.manifest import Directory
from data_pipeline.storage.document import Document
from data_pipeline.text.ngrams import ngrams, words

T = TypeVar("T")

SOME = 200_000  # documents of the random keys
PARTITIONS = (256, 1024, 4096)
ORDER = {  # stage -> the function whose seconds are its own
    "read": "read_shard",
    "line_counts": "count_shard",
    "clean": "clean_shard",
    "signatures": "sign_shard",
    "links": "find_links",
    "groups": "connect_groups",
    "members": "gather_members",
    "duplicates": "find_duplicates",
    "deduplicate": "deduplicate_shard",
    "decontaminate": "decontaminate_shard",
    "bake": "bake_shards",
}


@dataclass(slots=True)
class Cost:
    """The cost of one of many equal things: bytes at the peak, and CPU seconds."""

    bytes: float
    seconds: float


def cost(function: Callable[[], T], number: int) -> tuple[T, Cost]:
    """Returns the cost per thing; runs twice, because tracemalloc slows the function down."""
    begin = time.process_time()
    function()
    seconds = time.process_time() - begin
    tracemalloc.start()
    made = function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return made, Cost(peak / number, seconds / number)


def random_keys(share: float, config: Deduplication) -> signatures.Signatures:
    """Returns keys of documents, a share of which has all bands in common with one other."""
    random = np.random.default_rng(0)
    bands_NB = random.integers(1 << 62, size=(SOME, config.bands)).astype(np.uint64)
    pairs = int(SOME * share / 2)
    bands_NB[pairs : 2 * pairs] = bands_NB[:pairs]
    exact_N2 = random.integers(1 << 62, size=(SOME, 2)).astype(np.uint64)
    names_N = random.integers(1 << 62, size=SOME).astype(np.uint64)
    return signatures.Signatures(exact_N2, bands_NB, names_N)


def decided(documents: Sequence[Document], config: Deduplication) -> tuple[Cost, float]:
    """Returns the cost per byte of text of finding survivors among pairs, and n-grams per byte."""
    some = list(documents)
    copies = [Document(f"{d.id}'", d.text + " And one more.", d.source, d.category) for d in some]
    text_bytes = 2e6 * megabytes_of(some)
    near = np.tile(np.arange(len(some), dtype=np.uint64), 2)
    number = np.arange(2 * len(some), dtype=np.uint64)
    own = Groups(number, near, near, np.ones(len(number), bool))
    arrays = survivors.collect_members([*some, *copies], own, config).to_arrays()
    _, found = cost(
        lambda: survivors.decide([survivors.Members.from_arrays(arrays)], [], config),
        int(text_bytes),
    )
    held = sum(array.nbytes for array in arrays.values()) / text_bytes
    grams = ngrams(words([d.text for d in some]), config.ngram_words)
    # What is read lies in memory too, and tracemalloc did not see it come.
    return Cost(found.bytes + held, found.seconds), 2 * len(grams.hashes_S) / text_bytes


def disk(directory: Directory) -> int:
    """Returns the bytes on disk of a directory."""
    return sum(
        (directory.path / name).stat().st_size
        for ledger in directory.ledgers()
        for name in ledger.files
    )


def stage_rows(measured: recipe.RunCost, text_bytes: float) -> list[str]:
    """Returns rows: stage, MB per CPU second, core hours, bytes on disk per byte of text."""
    seconds = {name: own for step in measured.seconds.values() for name, own in step.items()}
    on_disk = {d.path.name.rpartition("-")[0]: disk(d) for d in measured.directories}
    rows = ["| stage | MB/s a core | core hours | TB on disk |", "| --- | --- | --- | --- |"]
    total = 0.0
    for stage, function in ORDER.items():
        if function not in seconds:
            continue
        rate = measured.megabytes * 1e6 / seconds[function]
        hours = text_bytes / rate / 3600
        total += hours
        disk_tb = on_disk.get(stage, 0) / (measured.megabytes * 1e6) * text_bytes / 1e12
        rows.append(f"| {stage} | {rate / 1e6:.1f} | {hours:,.1f} | {disk_tb:.3f} |")
    return [*rows, f"| all | {text_bytes / total / 3.6e9:.2f} | {total:,.0f} | |"]


def main() -> None:
    """Parses the options and prints the tables."""
    options = arguments(
        str(__doc__),
        benchmarks=("", "a folder with a subfolder for each known benchmark"),
        text_bytes=(4.2e12, "of UTF-8"),
        documents=(1.3e9, "in all"),
        candidates=(0.3, "share of the documents that are in a group of candidates"),
    )
    config = Deduplication()
    corpus = load(options.folder, options.field, options.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        measured = recipe.measure(corpus, options.benchmarks, Path(folder))
        rows = stage_rows(measured, options.text_bytes)
    (keys,) = random_keys(options.candidates, config).by_partition(1)
    links, linking = cost(lambda: candidate_groups.find_links([(0, keys)]), SOME)
    of_one = Links(links.near_E2, links.names_E2, links.copies_C)
    # Each member's links come from several partitions: here from four.
    connected, connecting = cost(lambda: candidate_groups.connect([of_one] * 4), len(links.near_E2))
    deciding, grams = decided(corpus[: len(corpus) // 4], config)
    members = options.candidates * options.documents
    member_bytes = options.candidates * options.text_bytes
    print(f"\nFor {options.text_bytes:.2g} bytes in {options.documents:.2g} documents:\n")
    print("\n".join(rows))
    print(
        f"\nGlobal stages, {options.candidates:.0%} of the documents candidates, "
        f"{grams:.3f} n-grams a byte of text:\n"
    )
    heads = " | ".join(f"GB a worker, P = {p}" for p in PARTITIONS)
    print(f"| stage | bytes at the peak | of | {heads} |\n| --- | --- | --- {'| --- ' * 3}|")
    for stage, found, unit, number in (
        ("links", linking, "document", options.documents),
        ("duplicates", deciding, "byte of candidates' text", member_bytes),
    ):
        sizes = " | ".join(f"{found.bytes * number / p / 1e9:.2f}" for p in PARTITIONS)
        print(f"| {stage} | {found.bytes:.1f} | {unit} | {sizes} |")
    whole = connecting.bytes * members / 1e9
    print(f"| groups (one worker) | {connecting.bytes:.1f} | member | {whole:.0f} | same | same |")
    print(
        f"\ngroups takes {connecting.seconds * 1e6:.2f} microseconds a member: "
        f"{connecting.seconds * members / 3600:.2f} hours of one core ({len(connected.number_M)} "
        "members measured)."
    )


if __name__ == "__main__":
    main()

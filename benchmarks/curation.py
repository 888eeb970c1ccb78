"""Speed of curation beside what people use for it, on one core, in one run.

    python -m benchmarks.curation FOLDER                 a folder of .jsonl, .jsonl.gz, .jsonl.zst
    python -m benchmarks.curation FOLDER --benchmarks B  B has a subfolder for each known benchmark
    python -m benchmarks.curation                        this Python installation's own sources

Reads up to --megabytes (20) of the field "text", the same number of documents of each file. Times
are CPU seconds of this process, the best of --repeats (3); "x" is the ratio to the first row of a
table. Peers: datasketch's MinHash and MinHashLSH, a Python dict of n-gram strings for
decontamination. What is timed begins with texts in memory and ends with the answer.
"""

from __future__ import annotations

import argparse
import json
import re
import sysconfig
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import xxhash
from datasketch import MinHash, MinHashLSH

from data_pipeline.config import Decontamination, Deduplication
from data_pipeline.curation import dedup
from data_pipeline.decontamination import benchmarks, rules
from data_pipeline.decontamination.benchmarks import Item
from data_pipeline.decontamination.index import build_index
from data_pipeline.document import Document, Dropped
from data_pipeline.streams import read_chunks, split_lines

T = TypeVar("T")
WORD = re.compile(r"\w+")


class Table:
    """Prints one row for each contestant: its rate and its ratio to the first."""

    def __init__(self, title: str, megabytes: float, repeats: int):
        print(f"\n{title}")
        self.megabytes, self.repeats, self.first = megabytes, repeats, 0.0

    def row(self, name: str, function: Callable[[], T]) -> T:
        best = float("inf")
        for _ in range(self.repeats):
            begin = time.process_time()
            result = function()
            best = min(best, time.process_time() - begin)
        rate = self.megabytes / best
        self.first = self.first or rate
        print(f"  {name:<58} {rate:9.1f} MB/s {rate / self.first:7.1f} x", flush=True)
        return result


def load(paths: Sequence[Path], field: str, megabytes: float) -> list[Document]:
    """Up to so many megabytes of text, the same of each .jsonl file; of .py files the first."""
    documents = []
    left = 0.0
    for path in paths:
        texts: Iterable[str]
        if path.suffix == ".py":
            left, texts = left or megabytes * 1e6, [path.read_text(errors="replace")]
        else:
            left = megabytes * 1e6 / len(paths)
            texts = (json.loads(line)[field] for _, line, _ in split_lines(read_chunks(path)))
        for k, text in enumerate(texts):
            left -= len(text)
            if left < 0:
                break
            documents.append(Document(f"{path.name}/{k}", text, path.name, ""))
    return documents


def shingles(text: str, n: int) -> list[bytes]:
    found = WORD.findall(text.lower())
    return [" ".join(found[k : k + n]).encode() for k in range(max(1, len(found) - n + 1))]


def minhash(documents: list[Document], megabytes: float, repeats: int) -> None:
    config = Deduplication()
    table = Table(
        f"MinHash signatures, word {config.ngram_words}-grams, {config.permutations} permutations",
        megabytes,
        repeats,
    )

    def datasketch(hash_function: Any = None) -> list[MinHash]:
        return MinHash.bulk(
            [shingles(d.text, config.ngram_words) for d in documents],
            num_perm=config.permutations,
            scheme="affine32",
            hashfunc=hash_function,
        )

    sketches = table.row("datasketch, as it comes (sha1)", datasketch)
    table.row("datasketch with xxh32", lambda: datasketch(xxhash.xxh32_intdigest))
    ours = table.row(
        "hare-jax, signatures and exact hashes", lambda: dedup.signatures(documents, config)
    )

    table = Table(f"Duplicates of {len(documents)} documents from their signatures", megabytes, 1)

    def lsh() -> int:
        index = MinHashLSH(num_perm=config.permutations, params=(config.bands, config.rows))
        for k, sketch in enumerate(sketches):
            index.insert(k, sketch)
        return sum(j > i for i, sketch in enumerate(sketches) for j in index.query(sketch))

    def find() -> int:
        def sets(shard: int, rows: list[int]) -> list[dedup.U64]:
            return dedup.shingles(documents, rows, config)

        (decisions,) = dedup.find_duplicates([ours], sets, [], config)
        return len(decisions.dropped)

    pairs = table.row("datasketch LSH: candidate pairs only", lsh)
    dropped = table.row("hare-jax: verified, grouped, decided", find)
    print(f"  {pairs} candidate pairs; {dropped} documents to drop")


def decontamination(
    documents: list[Document], items: list[Item], megabytes: float, repeats: int
) -> None:
    config = Decontamination()
    n = config.ngram_words["D1"]
    table = Table(f"Decontamination, n = {n}, {len(items)} items", megabytes, repeats)
    of_items: dict[bytes, list[str]] = {}
    for item in items:
        for part in item.parts.values():
            for gram in shingles(part, n):
                of_items.setdefault(gram, []).append(item.id)
    index = build_index(items, n, config)
    decide = rules.build(config, index)

    def by_dict() -> int:
        flagged = 0
        for document in documents:
            grams = shingles(document.text, n)
            hits = sum(gram in of_items for gram in grams)
            flagged += hits > config.sample_share * len(grams)
        return flagged

    def by_rules() -> int:
        return sum(isinstance(answer, Dropped) for answer in decide(documents))

    few = table.row("Python dict of n-grams, sample share only", by_dict)
    more = table.row("hare-jax, all three rules with their evidence", by_rules)
    print(f"  {few} and {more} of {len(documents)} documents are contaminated")


def make_items(documents: list[Document]) -> list[Item]:
    """Where no benchmarks are given: a passage of every twentieth document, as if it were one."""
    texts = (" ".join(d.text.split()[20:80]) for d in documents[::20])
    return [Item(f"made/{k}", "made", {"question": text}) for k, text in enumerate(texts) if text]


def main() -> None:
    description, _, epilog = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--field", default="text")
    parser.add_argument("--benchmarks", default="")
    parser.add_argument("--megabytes", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found = sorted(p for p in Path(arguments.folder).rglob("*.jsonl*") if p.is_file())
    paths = found or sorted(Path(arguments.folder).rglob("*.py"))
    if not paths:
        parser.error(f"no .jsonl, .jsonl.gz or .jsonl.zst files in {arguments.folder}")
    documents = load(paths, arguments.field, arguments.megabytes)
    megabytes = sum(len(d.text.encode()) for d in documents) / 1e6
    print(f"{len(documents)} documents, {megabytes:.1f} MB of text, from {arguments.folder}")
    known = benchmarks.known(arguments.benchmarks)
    items = [item for benchmark in known for item in benchmarks.read(benchmark)]
    minhash(documents, megabytes, arguments.repeats)
    decontamination(documents, items or make_items(documents), megabytes, arguments.repeats)


if __name__ == "__main__":
    main()

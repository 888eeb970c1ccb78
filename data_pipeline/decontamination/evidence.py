"""Which items of benchmarks stand in the documents that a decontaminate* stage has looked through.

A decision names one item: the best, and of equal ones the first. A page that holds a whole test
set, or a question that stands in two files of a benchmark, would count as one. Here what was taken
out is looked at once more, for everything that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.config import Decontamination
from data_pipeline.decontamination.index import NgramIndex
from data_pipeline.decontamination.rules import CONTAMINATED, items_in
from data_pipeline.execution import manifest
from data_pipeline.execution.manifest import Directory, ShardFile
from data_pipeline.storage.document import Dropped
from data_pipeline.storage.shards import read_dropped, read_shard
from data_pipeline.text.ngrams import Words, batches, words

SETTINGS = ("absolute_hits", "item_share", "item_ngram_words", "item_bits")


def of_stage(path: Path) -> Iterator[tuple[str, str]]:
    """(benchmark, item) of all items that some document held, some of them more than once.

        ("gsm8k", "gsm8k/test/17")

    These are, of a document that was dropped, the item that the stage named and all others that it
    holds; of one that was cut, the items that its passages were cut for; and whatever says word by
    word the same as one of those.

    Raises ValueError where the stage, or the index that it used, is not there or is damaged.
    """
    stage = manifest.load(path)
    if stage is None:
        raise ValueError(f"{path}: got no finished stage, expected a manifest.json")
    settings = stage.manifest["config"][0]
    config = Decontamination(**{name: settings[name] for name in SETTINGS})
    n_of, tiers = settings["ngram_words"], stage.tiers()

    @cache
    def index(n: int) -> NgramIndex:
        return _index(stage, n)

    def n_by(source: str) -> int:
        return int(n_of.get(source, n_of[tiers[source]]))

    named: dict[int, set[tuple[str, str, str]]] = {}
    for file in stage.files("dropped"):
        by_n: dict[int, list[Dropped]] = {}
        for dropped in _contaminated(file):
            by_n.setdefault(n_by(dropped.document.source), []).append(dropped)
        for n, found in by_n.items():
            named.setdefault(n, set()).update(_part(dropped.evidence) for dropped in found)
            for batch in batches(dropped.document for dropped in found):
                for items in items_in(words([d.text for d in batch]), config, index(n)):
                    yield from sorted(items)
    for source, evidence in _cut(stage):
        named.setdefault(n_by(source), set()).add(_part(evidence))
    for n, parts in named.items():
        yield from sorted({(benchmark, item) for benchmark, item, _ in parts})
        for items in items_in(_words_of(parts, index(n)), config, index(n)):
            yield from sorted(items)


def _part(evidence: dict[str, Any]) -> tuple[str, str, str]:
    return evidence["benchmark"], evidence["item"], evidence["part"]


def _contaminated(file: ShardFile) -> Iterator[Dropped]:
    with file.verified() as path:
        for _, dropped in read_dropped(path):
            if dropped.reason == CONTAMINATED:
                yield dropped


def _cut(stage: Directory) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, evidence) of passages; the text that held them is not there any more."""
    cut = {ledger.shard for ledger in stage.ledgers() if "cut" in ledger.extra}
    for file in stage.files():
        if file.name in cut:
            with file.verified() as path:
                for document in read_shard(path):
                    for evidence in document.meta.get("cut_spans", ()):
                        yield document.source, evidence


def _words_of(parts: set[tuple[str, str, str]], index: NgramIndex) -> Words:
    """The parts as texts; those of rewrites are in another index."""
    number = {part: k for k, part in enumerate(index.parts)}
    hashes = [index.words_of(number[part]) for part in sorted(parts) if part in number]
    sizes = np.array([len(one) for one in hashes], np.int64)
    none = index.words.hashes_W[:0]
    return Words(np.concatenate([none, *hashes]), np.concatenate([[0], np.cumsum(sizes)]))


def _index(stage: Directory, n: int) -> NgramIndex:
    for name in stage.manifest["inputs"]:
        before = manifest.load(stage.path.parent / name)
        if before is not None and before.manifest["stage"] == "index":
            with before.file(f"shards/{n}.npz").verified() as path:
                return NgramIndex.load(path)
    raise ValueError(f"{stage.path}: the index that it used is not beside it any more")

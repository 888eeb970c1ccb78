"""The benchmark items that the documents of one shard contained, written beside the shard.

A decision names one item: the best match, and the first of equally good ones. But a page may
contain a whole test set, and a question may occur in two files of a benchmark. Therefore the
documents that were dropped or cut are searched once more, for all items that they contain.

The file `contaminated/SHARD.jsonl` of a decontamination stage has one line per item, sorted and
without repeats. It is listed in the shard's ledger with its hash. Evaluation reads it to score the
items that no document contained (hare_jax/evaluation/benchmarks/clean_subset.py):

    {"benchmark": "gsm8k", "item": "gsm8k/test/17"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipeline.config import Decontamination
from data_pipeline.decontamination.index import NgramIndex
from data_pipeline.decontamination.rules import items_in
from data_pipeline.storage.document import Dropped
from data_pipeline.text.ngrams import Words, batches, words

FOLDER = "contaminated"


class ContaminatedItemCollector:
    """The items that the contaminated documents of one shard contained.

    They are: the items that evidence names, all items that a dropped document contains, and the
    items of the same text as a named part. A document that was cut is not searched again, because
    the removed passages are its evidence.
    """

    def __init__(self, config: Decontamination) -> None:
        """Starts without items; `config` has the thresholds of the rules."""
        self._config = config
        self._items: set[tuple[str, str]] = set()
        self._indexes: dict[int, NgramIndex] = {}  # by n
        self._named_parts: dict[int, set[tuple[str, str, str]]] = {}  # by n

    def add_dropped(self, dropped: Sequence[Dropped], index: NgramIndex) -> None:
        """Adds the items of documents that were dropped as contaminated, decided with `index`."""
        self.add_evidence([one.evidence for one in dropped], index)
        for batch in batches(one.document for one in dropped):
            self._search(words([document.text for document in batch]), index)

    def add_evidence(self, evidence: Iterable[dict[str, Any]], index: NgramIndex) -> None:
        """Adds the items that evidence names."""
        self._indexes[index.n] = index
        named = self._named_parts.setdefault(index.n, set())
        named.update((one["benchmark"], one["item"], one["part"]) for one in evidence)

    def items(self) -> list[tuple[str, str]]:
        """Returns (benchmark, item) of all items, sorted and without repeats."""
        for n, parts in self._named_parts.items():
            self._items.update((benchmark, item) for benchmark, item, _ in parts)
            self._search(_words_of_parts(parts, self._indexes[n]), self._indexes[n])
        return sorted(self._items)

    def to_jsonl(self) -> str:
        """Returns the content of the file: one line per item."""
        return "".join(
            json.dumps({"benchmark": benchmark, "item": item}) + "\n"
            for benchmark, item in self.items()
        )

    def _search(self, text_words: Words, index: NgramIndex) -> None:
        """Adds all items that texts contain."""
        for items in items_in(text_words, self._config, index):
            self._items |= items


def _words_of_parts(parts: set[tuple[str, str, str]], index: NgramIndex) -> Words:
    """Returns the words of (benchmark, item, part), one text per part.

    Parts that only the index of paraphrases has (a question joined with its answer) are left out.
    """
    hashes = [index.words_of(k) for k, part in enumerate(index.parts) if tuple(part) in parts]
    offsets = np.cumsum([0, *(len(own) for own in hashes)], dtype=np.int64)
    return Words(np.concatenate([np.empty(0, np.uint64), *hashes]), offsets)

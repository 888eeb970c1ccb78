"""The decision about each document of a shard: kept, cut, or dropped and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import cut_spans, lengths, rules
from data_pipeline.decontamination.contaminated_items import ContaminatedItemCollector
from data_pipeline.decontamination.index_files import IndexFiles
from data_pipeline.execution.shard_output import Decide, Decision
from data_pipeline.storage.document import Document, Dropped

HELD_OUT = "held_out"


class Decider:
    """The decisions about the documents of one shard, and the items that they contained.

    The checks, in their order: held out, too long (by tier), contaminated. The n of the n-grams
    depends on a document's source or tier, so documents are grouped by n and each group is decided
    at once. If decontamination is off, held-out documents are dropped and all others are kept.
    """

    def __init__(
        self,
        config: Decontamination,
        index: IndexFiles | None,
        *,
        held_out_ids: Collection[str],
        tiers: Mapping[str, str],
        tokenizer: str,
    ) -> None:
        """Starts without decisions.

        Args:
          config: the rules and their thresholds.
          index: the indexes of the benchmarks; None if decontamination is off.
          held_out_ids: ids of the documents that are never trained on.
          tiers: the tier of each source.
          tokenizer: path of the SentencePiece model that counts tokens; "" is Mistral's.
        """
        if config.enabled and index is None:
            raise ValueError("decontamination is enabled: got no index of the benchmarks")
        self.items = ContaminatedItemCollector(config)
        self._config, self._index = config, index
        self._held_out_ids, self._tiers, self._tokenizer = held_out_ids, tiers, tokenizer
        self._decide_by_n: dict[int, Decide] = {}

    def decide(self, documents: Sequence[Document]) -> list[Decision]:
        """Returns the decision about each document, in order."""
        decisions = [self._check_alone(document) for document in documents]
        if self._index is None or not self._config.enabled:
            return decisions
        rows_by_n: dict[int, list[int]] = {}
        for row, decision in enumerate(decisions):
            if isinstance(decision, Document):
                rows_by_n.setdefault(self.ngram_words(decision.source), []).append(row)
        for n, rows in rows_by_n.items():
            if n not in self._decide_by_n:
                self._decide_by_n[n] = _build_decide(self._config, self._index, n)
            chosen = [documents[row] for row in rows]
            decided = self._decide_by_n[n](chosen)
            self._collect_items(self._index, n, chosen, decided)
            for row, decision in zip(rows, decided, strict=True):
                decisions[row] = decision
        return decisions

    def ngram_words(self, source: str) -> int:
        """Returns the n of a source: its own if it is configured, else that of its tier."""
        by_name = self._config.ngram_words
        return by_name[source] if source in by_name else by_name[self._tiers[source]]

    def _check_alone(self, document: Document) -> Decision:
        """Returns the document, or drops it if it is held out or too long."""
        if document.id in self._held_out_ids:
            return Dropped(document, HELD_OUT)
        if not self._config.enabled:
            return document
        max_tokens = self._config.max_tokens.get(self._tiers[document.source], 0)
        return lengths.too_long(document, max_tokens, self._tokenizer) or document

    def _collect_items(
        self, index: IndexFiles, n: int, documents: list[Document], decisions: list[Decision]
    ) -> None:
        """Records the items that contaminated documents contained."""
        dropped = [decision for decision in decisions if isinstance(decision, Dropped)]
        cut = [
            evidence
            for document, decision in zip(documents, decisions, strict=True)
            if isinstance(decision, Document)
            for evidence in cut_evidence(document, decision)
        ]
        if dropped or cut:
            ngram_index = index.load_ngrams(n)
            self.items.add_dropped(dropped, ngram_index)
            self.items.add_evidence(cut, ngram_index)


def cut_evidence(before: Document, after: Document) -> list[dict[str, Any]]:
    """Returns the evidence of the passages that were removed from a document, empty if none."""
    return [] if after is before else list(after.meta["cut_spans"])


def _build_decide(config: Decontamination, index: IndexFiles, n: int) -> Decide:
    """Returns the decision by the rules for n-grams of n words."""
    ngram_index, paraphrase_index = index.load_ngrams(n), index.load_paraphrases()
    if config.cut_spans.enabled:
        find = rules.build_find(config, ngram_index, paraphrase_index)
        return cut_spans.build_decide(config.cut_spans, find)
    return rules.build_decide(config, ngram_index, paraphrase_index)

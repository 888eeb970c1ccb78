"""Removal of the passages that match an item from a long document, which is then kept.

    Hares are fast. Janet's ducks lay 16 eggs per day. How much does she make? Foxes sleep.
    Hares are fast. Foxes sleep.

Whole sentences and lines are removed, with some more on both sides, since an answer follows its
question. The rest is searched again, until no match is left. A document that would lose too much is
dropped. The remaining sentences and lines do not change.

Shape letters: P pieces of a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from data_pipeline.config import CutSpans
from data_pipeline.decontamination.rules import CONTAMINATED, Match
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import words

MAX_ROUNDS = 20  # a document with more matching passages than this is dropped

# A sentence or a line, with the white space that follows it.
_PIECE = re.compile(r".+?(?:[.!?][\"'”’)\]]*\s+|\n\s*|\Z)", re.S)

Find = Callable[[Sequence[str]], dict[int, Match]]


def build_decide(
    config: CutSpans, find: Find
) -> Callable[[Sequence[Document]], list[Document | Dropped]]:
    """Returns a function that keeps, cuts or drops each of a list of documents, in order.

    A document that was cut has the evidence of all its removed passages in `meta["cut_spans"]`.

    Args:
      config: which documents are cut, and how much of them.
      find: a function from texts to {index of the text: match} of the contaminated ones. The words
        of a match are counted within its text.
    """

    def decide(documents: Sequence[Document]) -> list[Document | Dropped]:
        texts = [document.text for document in documents]
        num_words = np.diff(words(texts).offsets_D) if config.enabled else np.zeros(len(texts))
        matches: dict[int, list[Match]] = {}
        dropped: set[int] = set()
        pending = list(range(len(texts)))
        for round_ in range(MAX_ROUNDS + 1):
            new = {pending[k]: match for k, match in find([texts[d] for d in pending]).items()}
            for d, match in sorted(new.items()):
                matches.setdefault(d, []).append(match)
                if not config.enabled or num_words[d] < config.min_words or round_ == MAX_ROUNDS:
                    dropped.add(d)
                    continue
                texts[d] = remove_match(texts[d], match, config.margin_sentences)
                num_left = int(np.diff(words([texts[d]]).offsets_D)[0])
                if num_words[d] - num_left > config.max_share * num_words[d]:
                    dropped.add(d)
            pending = [d for d in sorted(new) if d not in dropped]
            if not pending:
                break
        return [
            _decision(document, texts[d], matches.get(d, []), d in dropped)
            for d, document in enumerate(documents)
        ]

    return decide


def _decision(
    document: Document, text: str, matches: list[Match], is_dropped: bool
) -> Document | Dropped:
    """Returns the document as it is, with its remaining text, or as dropped."""
    if is_dropped:
        return Dropped(document, CONTAMINATED, matches[0].evidence)
    if not matches:
        return document
    cut: list[dict[str, Any]] = [match.evidence for match in matches]
    return replace(document, text=text, meta={**document.meta, "cut_spans": cut})


def remove_match(text: str, match: Match, margin: int) -> str:
    """Returns the text without the sentences of a match, and `margin` more on both sides."""
    pieces = [piece[0] for piece in _PIECE.finditer(text)]
    ends_P = words(pieces).offsets_D[1:]  # the number of words up to the end of each piece
    # The pieces of the first and the last matching word: word w is in the first piece that ends
    # after it.
    first = int(np.searchsorted(ends_P, match.first, "right"))
    last = int(np.searchsorted(ends_P, match.first + match.count - 1, "right"))
    return "".join(pieces[: max(0, first - margin)]) + "".join(pieces[last + 1 + margin :])

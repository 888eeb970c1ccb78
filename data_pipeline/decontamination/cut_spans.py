"""Takes the passages that match an item out of a long document, instead of dropping all of it.

    Hares are fast. Janet's ducks lay 16 eggs per day. How much does she make? Foxes sleep.
    Hares are fast. Foxes sleep.

Sentences and lines go as wholes, with some on both sides, since an answer follows its question.
What is left is looked at again, until nothing is found; a document that would lose too much goes.
Nothing else of the text changes: what is left is the pieces of the text as they were.

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

ROUNDS = 20  # a document with more passages than this is no longer itself

# A piece ends after the white space that follows a sentence or a line.
_PIECE = re.compile(r".+?(?:[.!?][\"'”’)\]]*\s+|\n\s*|\Z)", re.S)

Find = Callable[[Sequence[str]], dict[int, Match]]


def build(config: CutSpans, find: Find) -> Callable[[Sequence[Document]], list[Document | Dropped]]:
    """A function from documents to what becomes of each, in order.

    Args:
      find: the matches of contaminated texts, by their place; words are counted in the text.

    A document that was cut has what was found in `meta["cut_spans"]`.
    """
    check(config)

    def decide(documents: Sequence[Document]) -> list[Document | Dropped]:
        texts = [document.text for document in documents]
        number = np.diff(words(texts).offsets_D) if config.enabled else np.zeros(len(texts))
        found: dict[int, list[Match]] = {}
        dropped: set[int] = set()
        todo = list(range(len(texts)))
        for round_ in range(ROUNDS + 1):
            matches = {todo[k]: m for k, m in find([texts[k] for k in todo]).items()}
            for d, match in sorted(matches.items()):
                found.setdefault(d, []).append(match)
                if number[d] < config.min_words or not config.enabled or round_ == ROUNDS:
                    dropped.add(d)
                    continue
                texts[d] = without(texts[d], match, config.margin_sentences)
                left = int(np.diff(words([texts[d]]).offsets_D)[0])
                if number[d] - left > config.max_share * number[d]:
                    dropped.add(d)
            todo = [d for d in sorted(matches) if d not in dropped]
            if not todo:
                break
        return [
            _answer(document, texts[d], found.get(d, []), d in dropped)
            for d, document in enumerate(documents)
        ]

    return decide


def _answer(document: Document, text: str, found: list[Match], dropped: bool) -> Document | Dropped:
    if dropped:
        return Dropped(document, CONTAMINATED, found[0].evidence)
    if not found:
        return document
    cut: list[dict[str, Any]] = [match.evidence for match in found]
    return replace(document, text=text, meta={**document.meta, "cut_spans": cut})


def without(text: str, match: Match, margin: int) -> str:
    """The text without the pieces that hold words of the match, and `margin` more on both sides."""
    pieces = [piece[0] for piece in _PIECE.finditer(text)]
    ends_P = words(pieces).offsets_D[1:]  # the number of words up to the end of each piece
    first = int(np.searchsorted(ends_P, match.first, "right"))
    last = int(np.searchsorted(ends_P, match.first + match.count - 1, "right"))
    return "".join(pieces[: max(0, first - margin)]) + "".join(pieces[last + 1 + margin :])


def check(config: CutSpans) -> None:
    """Raises ValueError for settings that make no sense."""
    if not 0 < config.max_share <= 1:
        raise ValueError(
            f"decontamination.cut_spans.max_share: got {config.max_share}, expected a share above "
            f"0 and at most 1; to drop documents as wholes, cut_spans.enabled = False"
        )
    if config.margin_sentences < 0 or config.min_words < 0:
        raise ValueError(
            f"decontamination.cut_spans: got margin_sentences = {config.margin_sentences} and "
            f"min_words = {config.min_words}; expected nothing below 0"
        )

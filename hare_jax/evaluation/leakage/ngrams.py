"""Can a model continue a benchmark's text word for word? N-gram accuracy (arXiv 2404.18824).

At K evenly spaced places of an item's text the model reads all that comes before and continues it
by n tokens, the most probable one each time. A place is a hit where these are the text's own ids;
an item's accuracy is the share of its places that are.

Nothing is generated. Greedy decoding gives the text's n tokens if and only if each of them is the
most probable one after all the text before it: up to the first that is not, decoding has read
exactly the text. So n-gram accuracy follows from one forward pass over the text, which the places
share as far as they begin alike. Of tokens that are exactly as probable, each counts as the first.

As GAIR-NLP/benbench has it, what a place reads is the text up to it as text again: its ids are
detokenized and tokenized, with BOS if there is one. Where these ids are others, the place has a
path of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hare_jax.config import LeakageDefinition
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Decode, Encode

FIRST = 2  # tokens before the first place, BOS not counted


class Definition(NamedTuple):
    """n-grams of `n` tokens at `starts` places; `max_length`: tokens the model reads at most."""

    kind: LeakageDefinition
    n: int
    starts: int
    max_length: int


class NgramAccuracy(NamedTuple):
    """What a model did with one item. `loss`: nats a token of its whole text."""

    accuracy: float
    loss: float
    hits: list[bool]


def prefix_lengths(length: int, definition: Definition) -> list[int]:
    """How many tokens come before each place, of a text of `length`; none in too short a text.

    >>> prefix_lengths(27, Definition(LeakageDefinition.IDS, n=5, starts=5, max_length=2048))
    [2, 7, 12, 17, 22]
    """
    n = definition.n
    last = min(length, definition.max_length) - n
    if length - n - 1 <= 0 or last < FIRST:
        return []
    return np.linspace(FIRST, last, definition.starts, dtype=int).tolist()


def requests(
    ids: Sequence[int], encode: Encode, decode: Decode, bos_id: int | None, definition: Definition
) -> list[ScoreRequest]:
    """A request a place, and one of the whole text for its loss; none in too short a text.

    Without BOS the loss is that of all tokens but the first.
    """
    at = prefix_lengths(len(ids), definition)
    if not at:
        return []
    ids = list(ids)
    bos = [] if bos_id is None else [bos_id]

    def before(start: int) -> list[int]:
        prefix = ids[:start]
        again = definition.kind is LeakageDefinition.BENBENCH
        return [*bos, *(encode(decode(prefix)) if again else prefix)]

    asked = [ScoreRequest(before(start), ids[start : start + definition.n]) for start in at]
    whole = [*bos, *ids[: definition.max_length]]
    return [*asked, ScoreRequest(whole[:1], whole[1:])]


def measure(
    items: Sequence[AuditItem],
    scores: Callable[[Sequence[ScoreRequest]], list[Score]],
    encode: Encode,
    decode: Decode,
    bos_id: int | None,
    definition: Definition,
) -> list[NgramAccuracy | None]:
    """One answer an item, in order; None where its text is too short. `scores`: the engine's."""
    asked = [requests(encode(i.text), encode, decode, bos_id, definition) for i in items]
    answers = iter(scores([request for of_item in asked for request in of_item]))
    measured: list[NgramAccuracy | None] = []
    for of_item in asked:
        *at_places, whole = (next(answers) for _ in of_item) if of_item else (None,)
        if whole is None:
            measured.append(None)
            continue
        hits = [score.is_greedy for score in at_places if score is not None]
        measured.append(
            NgramAccuracy(float(np.mean(hits)), -whole.log_likelihood / whole.tokens, hits)
        )
    return measured


def perplexity(losses: Sequence[float]) -> float:
    """exp of the mean over items of nats a token."""
    return math.exp(float(np.mean(losses)))

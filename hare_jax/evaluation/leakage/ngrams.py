"""N-gram accuracy: how often a model continues a benchmark's text word for word (arXiv 2404.18824).

The model reads K prefixes of an item's text, of evenly spaced lengths, and continues each by n
tokens, always with the most probable one. A prefix is a hit if the n tokens are those of the text.
The accuracy of an item is the share of its prefixes that are hits.

No text is generated. Greedy decoding yields the text's n tokens if and only if each of them is the
most probable one after all the text before it: until the first token that is not, decoding has read
exactly the text. So n-gram accuracy follows from one forward pass over the text, which its prefixes
share as far as their ids agree. If several tokens are equally probable, each counts as the most
probable one.

As in GAIR-NLP/benbench, a prefix is decoded to text and encoded again, with BOS if texts begin with
it. If this gives other ids than those of the whole text, the prefix is a separate path of the
prefix tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hare_jax.config import LeakageDefinition
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Decode, Encode, Tokenizer, beginning

SHORTEST_PREFIX = 2  # tokens, BOS not counted


class Definition(NamedTuple):
    """The definition of n-gram accuracy.

    Attributes:
      kind: which token ids a prefix has.
      n: tokens to continue a prefix by.
      num_prefixes: prefixes of each text.
      max_length: tokens that the model reads at most.
    """

    kind: LeakageDefinition
    n: int
    num_prefixes: int
    max_length: int


class NgramAccuracy(NamedTuple):
    """The result of one item. `hits`: of each prefix. `loss`: nats per token of the whole text."""

    accuracy: float
    loss: float
    hits: list[bool]


def prefix_lengths(length: int, definition: Definition) -> list[int]:
    """Returns the lengths in tokens of the prefixes of a text; [] if the text is too short.

    >>> prefix_lengths(27, Definition(LeakageDefinition.IDS, n=5, num_prefixes=5, max_length=2048))
    [2, 7, 12, 17, 22]

    `length`: of the text, in tokens.
    """
    n = definition.n
    longest = min(length, definition.max_length) - n
    if length - n - 1 <= 0 or longest < SHORTEST_PREFIX:
        return []
    return np.linspace(SHORTEST_PREFIX, longest, definition.num_prefixes, dtype=int).tolist()


def requests(
    ids: Sequence[int], encode: Encode, decode: Decode, bos_id: int | None, definition: Definition
) -> list[ScoreRequest]:
    """Returns one request per prefix, then one for the loss of the whole text.

    Args:
      ids: of the text, without BOS.
      encode: text -> ids, without BOS.
      decode: ids -> text.
      bos_id: the id of BOS; None: texts begin without it, and the loss is that of all tokens but
        the first.
      definition: what is measured.

    Returns:
      The requests; [] if the text is too short.
    """
    lengths = prefix_lengths(len(ids), definition)
    if not lengths:
        return []
    ids = list(ids)
    bos = [] if bos_id is None else [bos_id]

    def context(length: int) -> list[int]:
        prefix = ids[:length]
        if definition.kind is LeakageDefinition.BENBENCH:
            prefix = encode(decode(prefix))
        return [*bos, *prefix]

    continuations = [
        ScoreRequest(context(length), ids[length : length + definition.n]) for length in lengths
    ]
    # The first token of the text (BOS, if there is one) is the context of all others.
    text = [*bos, *ids[: definition.max_length]]
    return [*continuations, ScoreRequest(text[:1], text[1:])]


def measure(
    items: Sequence[AuditItem],
    scores: Callable[[Sequence[ScoreRequest]], list[Score]],
    tokenizer: Tokenizer,
    definition: Definition,
) -> list[NgramAccuracy | None]:
    """Measures the n-gram accuracy of items.

    Args:
      items: whose texts the model continues.
      scores: those of an engine.
      tokenizer: of the model.
      definition: what is measured.

    Returns:
      One result per item, in order; None if its text is too short.
    """
    encode, decode = tokenizer.encode, tokenizer.decode
    bos_id = next(iter(beginning(tokenizer)), None)
    by_item = [requests(encode(i.text), encode, decode, bos_id, definition) for i in items]
    remaining = iter(scores([request for of_item in by_item for request in of_item]))
    results: list[NgramAccuracy | None] = []
    for of_item in by_item:
        if not of_item:
            results.append(None)
            continue
        *of_prefixes, of_text = (next(remaining) for _ in of_item)
        hits = [score.is_greedy for score in of_prefixes]
        loss = -of_text.log_likelihood / of_text.tokens  # nats per token
        results.append(NgramAccuracy(float(np.mean(hits)), loss, hits))
    return results


def perplexity(losses: Sequence[float]) -> float:
    """Returns exp of the mean over items of their loss in nats per token."""
    return math.exp(float(np.mean(losses)))

"""Seeds: the passages that a teacher is inspired by, spread evenly over topics.

Of each category as many seeds are drawn as its weight allows, and in a category every topic gives
one in turn, in the order of a hash of the documents' ids, until there are enough; a topic that runs
out leaves its turns to the others. What is drawn depends on the documents, not on their shards.

>>> there = [Candidate(f"hares/{k}", "part", 0, "web", passages=1) for k in range(9)]
>>> there.append(Candidate("tides/0", "part", 1, "web", passages=1))
>>> limit = limits({("web", 0): 9, ("web", 1): 1}, {"web": 2})
>>> drawn = draw(there, limit, {"web": 2}, seed=0)
>>> len(drawn), drawn[1].document
(2, 'tides/0')
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from data_pipeline.config import Synthesis
from data_pipeline.storage.document import Document
from data_pipeline.text import passages, seeded_random

Key = tuple[str, int]  # category and topic


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that may give seeds: its topic, its category of prompts, how many it can give."""

    document: str
    shard: str
    topic: int
    category: str
    passages: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """So many seeds are to be cut from a document."""

    document: str
    shard: str
    topic: int
    category: str
    count: int


def passages_in(characters: int, config: Synthesis) -> int:
    """How many seeds a document of this length can give, by estimate; 0 where it is too short."""
    if characters < passages.CHARACTERS_PER_WORD * config.min_passage_words:
        return 0
    whole = characters // (passages.CHARACTERS_PER_WORD * config.max_passage_words)
    return max(1, min(config.per_document, whole))


def quotas(weights: Mapping[str, float], there: Iterable[str], documents: int) -> dict[str, int]:
    """How many seeds each category gives: by weight among those that are there.

    The largest remainders are rounded up, so that the sum is `documents`.

    >>> quotas({"web": 2, "law": 1, "math": 5}, ["law", "web"], 10)
    {'law': 3, 'web': 7}
    """
    names = sorted(name for name in set(there) if weights.get(name, 0) > 0)
    total = sum(weights[name] for name in names)
    exact = {name: documents * weights[name] / total for name in names}
    rounded = {name: int(exact[name]) for name in names}
    missing = documents - sum(rounded.values()) if names else 0
    for name in sorted(names, key=lambda n: (rounded[n] - exact[n], n))[:missing]:
        rounded[name] += 1
    return rounded


def limits(there: Mapping[Key, int], quota: Mapping[str, int]) -> dict[Key, int]:
    """How many seeds of each category and topic can be needed, given how many passages it has.

    Topics give in turns, so that none gives more than the level at which all together have enough.

    >>> limits({("web", 0): 90, ("web", 1): 2, ("web", 2): 50}, {"web": 10})
    {('web', 0): 4, ('web', 1): 2, ('web', 2): 4}
    """
    found: dict[Key, int] = {}
    for category, most in quota.items():
        sizes = {key: size for key, size in there.items() if key[0] == category}
        low, high = 0, most
        while low < high:  # the smallest level that is enough, or `most` where none is
            level = (low + high) // 2
            if sum(min(size, level) for size in sizes.values()) >= most:
                high = level
            else:
                low = level + 1
        found |= {key: min(size, low) for key, size in sizes.items()}
    return found


def draw(
    candidates: Iterable[Candidate], limit: Mapping[Key, int], quota: Mapping[str, int], seed: int
) -> list[Drawn]:
    """The documents that give seeds, in the order of their ids.

    Every document of a topic gives its first passage before one gives a second. Memory: about 600
    bytes a seed, however many candidates there are.

    Args:
      limit: what `limits` answers for these candidates.
      quota: how many seeds each category gives.
    """
    kept: dict[Key, list[tuple[int, int, str, str]]] = {}
    for candidate in candidates:
        key = (candidate.category, candidate.topic)
        most = limit.get(key, 0)
        heap = kept.setdefault(key, [])
        hashed = seeded_random.hash64(seed, "seed", candidate.document)
        for number in range(min(candidate.passages, most)):
            # The smallest entry of the heap is the one of the last number and the largest hash.
            entry = (-number, -hashed, candidate.document, candidate.shard)
            if len(heap) < most:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
    count: Counter[tuple[str, str, int, str]] = Counter()
    for category, most in quota.items():
        turns = [
            (turn, -hashed, document, shard, topic)
            for (name, topic), heap in kept.items()
            if name == category
            for turn, (_, hashed, document, shard) in enumerate(sorted(heap, reverse=True))
        ]
        for _, _, document, shard, topic in sorted(turns)[:most]:
            count[document, shard, topic, category] += 1
    return [Drawn(*which, number) for which, number in sorted(count.items())]


def cut(document: Document, drawn: Drawn, source: str, config: Synthesis) -> Iterator[Document]:
    """The seeds of a document: passages that do not overlap, of whole paragraphs or sentences.

    A seed is a document whose text is the passage; its id is SOURCE/DOCUMENT/NUMBER and its meta
    tells the document ("from", "from_source"), where the passage lies in it ("start", "end", in
    characters), its topic and its number. There are fewer than asked for where the document has no
    more passages of the right length.
    """
    found = passages.draw(
        document.text,
        (config.min_passage_words, config.max_passage_words),
        drawn.count,
        seeded_random.seeded(config.seed, "passage", document.id),
        code=drawn.category == "code",
    )
    for number, passage in enumerate(found):
        yield Document(
            f"{source}/{document.id}/{number}",
            passage.text,
            source,
            drawn.category,
            {
                "from": document.id,
                "from_source": document.source,
                "start": passage.start,
                "end": passage.start + len(passage.text),
                "topic": drawn.topic,
                "number": number,
            },
        )

"""Seeds: the passages in the prompts for synthetic text, spread evenly over topics.

The weight of a category determines its number of seeds. Within a category the topics provide seeds
round-robin, each in the order of a hash of the document ids, until there are enough; an exhausted
topic is skipped. The selection depends on the documents, not on their shards.

>>> candidates = [Candidate(f"hares/{k}", "part", 0, "web", passages=1) for k in range(9)]
>>> candidates.append(Candidate("tides/0", "part", 1, "web", passages=1))
>>> limit = topic_limits({("web", 0): 9, ("web", 1): 1}, {"web": 2})
>>> selected = draw(candidates, limit, {"web": 2}, seed=0)
>>> len(selected), selected[1].document
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

CategoryTopic = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that can provide seeds.

    Attributes:
      document: its id.
      shard: name of its shard.
      topic: its topic.
      category: its category of prompts.
      passages: estimated number of passages that can be cut from it.
    """

    document: str
    shard: str
    topic: int
    category: str
    passages: int


@dataclass(frozen=True, slots=True)
class SelectedDocument:
    """A candidate from which `count` seeds are cut."""

    document: str
    shard: str
    topic: int
    category: str
    count: int


def passages_in(characters: int, config: Synthesis) -> int:
    """Estimates how many seeds can be cut from a text of this length; 0 if it is too short."""
    if characters < passages.CHARACTERS_PER_WORD * config.min_passage_words:
        return 0
    num_longest = characters // (passages.CHARACTERS_PER_WORD * config.max_passage_words)
    return max(1, min(config.per_document, num_longest))


def quotas(weights: Mapping[str, float], categories: Iterable[str], count: int) -> dict[str, int]:
    """Distributes `count` seeds over the existing categories in proportion to their weights.

    By the largest-remainder method, so that the sum is `count`.

    >>> quotas({"web": 2, "law": 1, "math": 5}, ["law", "web"], 10)
    {'law': 3, 'web': 7}

    Args:
      weights: weight by category; a category without one gets no seeds.
      categories: the categories of the candidates.
      count: number of seeds.
    """
    names = sorted(name for name in set(categories) if weights.get(name, 0) > 0)
    total = sum(weights[name] for name in names)
    exact = {name: count * weights[name] / total for name in names}
    rounded = {name: int(exact[name]) for name in names}
    missing = count - sum(rounded.values()) if names else 0
    for name in sorted(names, key=lambda n: (rounded[n] - exact[n], n))[:missing]:
        rounded[name] += 1
    return rounded


def topic_limits(
    available: Mapping[CategoryTopic, int], quota: Mapping[str, int]
) -> dict[CategoryTopic, int]:
    """Returns the maximum number of seeds that each topic of a category has to provide.

    Topics provide seeds round-robin, so none has to provide more than the smallest number of
    rounds after which all topics together have provided the quota.

    >>> topic_limits({("web", 0): 90, ("web", 1): 2, ("web", 2): 50}, {"web": 10})
    {('web', 0): 4, ('web', 1): 2, ('web', 2): 4}

    Args:
      available: number of passages by category and topic.
      quota: number of seeds by category.
    """
    limit: dict[CategoryTopic, int] = {}
    for category, count in quota.items():
        sizes = {key: size for key, size in available.items() if key[0] == category}
        # Binary search for the smallest sufficient number of rounds; `count` if none suffices.
        low, high = 0, count
        while low < high:
            rounds = (low + high) // 2
            if sum(min(size, rounds) for size in sizes.values()) >= count:
                high = rounds
            else:
                low = rounds + 1
        limit |= {key: min(size, low) for key, size in sizes.items()}
    return limit


def draw(
    candidates: Iterable[Candidate],
    limit: Mapping[CategoryTopic, int],
    quota: Mapping[str, int],
    seed: int,
) -> list[SelectedDocument]:
    """Returns the documents that provide seeds, ordered by id.

    Every document of a topic provides its first passage before any provides a second one. Memory:
    approximately 600 bytes per seed, regardless of the number of candidates.

    Args:
      candidates: the documents, in any order.
      limit: `topic_limits` of these candidates.
      quota: number of seeds by category.
      seed: seed of the hash that orders the documents of a topic.
    """
    # Per category and topic a heap of (-number of the passage, -hash of the document, document,
    # shard): its root is the last of the passages that are kept so far, in round-robin order.
    kept: dict[CategoryTopic, list[tuple[int, int, str, str]]] = {}
    for candidate in candidates:
        key = (candidate.category, candidate.topic)
        max_seeds = limit.get(key, 0)
        heap = kept.setdefault(key, [])
        hashed = seeded_random.hash64(seed, "seed", candidate.document)
        for number in range(min(candidate.passages, max_seeds)):
            entry = (-number, -hashed, candidate.document, candidate.shard)
            if len(heap) < max_seeds:
                heapq.heappush(heap, entry)
            elif entry > heap[0]:
                heapq.heapreplace(heap, entry)
    count: Counter[tuple[str, str, int, str]] = Counter()
    for category, num_seeds in quota.items():
        # Sorting by `turn` first makes the topics alternate.
        turns = [
            (turn, -hashed, document, shard, topic)
            for (name, topic), heap in kept.items()
            if name == category
            for turn, (_, hashed, document, shard) in enumerate(sorted(heap, reverse=True))
        ]
        for _, _, document, shard, topic in sorted(turns)[:num_seeds]:
            count[document, shard, topic, category] += 1
    return [SelectedDocument(*document, number) for document, number in sorted(count.items())]


def cut(
    document: Document, selected: SelectedDocument, source: str, config: Synthesis
) -> Iterator[Document]:
    """Yields the seeds of a document: passages of whole paragraphs or sentences, without overlap.

    A seed is a document whose text is the passage. Its id is SOURCE/DOCUMENT/NUMBER. Its meta has
    the document ("from", "from_source"), the passage's position in it ("start", "end", in
    characters), its topic and its number. There are fewer than `selected.count` seeds if the
    document has no more passages of a permitted length.

    Args:
      document: the document.
      selected: the number of seeds, and the topic and category of the document.
      source: source of the seeds.
      config: the permitted lengths and the seed of the random selection.
    """
    cut_passages = passages.draw(
        document.text,
        (config.min_passage_words, config.max_passage_words),
        selected.count,
        seeded_random.seeded(config.seed, "passage", document.id),
        code=selected.category == "code",
    )
    for number, passage in enumerate(cut_passages):
        yield Document(
            f"{source}/{document.id}/{number}",
            passage.text,
            source,
            selected.category,
            {
                "from": document.id,
                "from_source": document.source,
                "start": passage.start,
                "end": passage.start + len(passage.text),
                "topic": selected.topic,
                "number": number,
            },
        )

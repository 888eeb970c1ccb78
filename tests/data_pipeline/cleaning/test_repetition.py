from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.cleaning.repetition import duplicate_ngrams, top_ngrams

NS = (2, 3, 4, 5, 7, 10)
texts = st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), max_size=40)


def grams(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def duplicate_share(words: list[str], n: int) -> float:
    """The definition, word by word."""
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for i, gram in enumerate(grams(words, n)):
        if gram in seen:
            covered[i : i + n] = [True] * n
        seen.add(gram)
    inside = sum(len(word) for word, hit in zip(words, covered, strict=True) if hit)
    return inside / max(1, sum(map(len, words)))


def top_share(words: list[str], n: int) -> float:
    counts = Counter(grams(words, n))
    most = max(counts.values(), default=0)
    longest = max((sum(map(len, g)) for g, c in counts.items() if c == most), default=0)
    return min(1.0, most * longest / sum(map(len, words))) if most > 1 else 0.0


@settings(deadline=None)
@given(texts)
def test_equals_the_definition(words: list[str]) -> None:
    nothing = dict.fromkeys(NS, -1.0)
    expected = {n: share for n in NS if (share := duplicate_share(words, n))}
    assert dict(duplicate_ngrams(words, dict.fromkeys(NS, 0.0))) == expected
    found = {n: share for n, share, _ in top_ngrams(words, nothing)}
    expected = {n: share for n in NS if (share := top_share(words, n))}
    assert found == expected


@settings(deadline=None)
@given(texts, st.floats(0, 1))
def test_a_limit_only_filters_results(words: list[str], most: float) -> None:
    limits = dict.fromkeys(NS, most)
    assert dict(duplicate_ngrams(words, limits)) == {
        n: share for n in NS if (share := duplicate_share(words, n)) > most
    }
    assert {n: share for n, share, _ in top_ngrams(words, limits)} == {
        n: share for n in NS if (share := top_share(words, n)) > most
    }


def test_the_most_frequent_ngram_is_named() -> None:
    text = "the hare runs and the hare rests and the hare eats"
    words = text.split()
    assert [(n, gram) for n, _, gram in top_ngrams(words, {2: 0.0, 3: 0.0})] == [
        (2, "the hare"),
        (3, "and the hare"),
    ]


def test_little_text() -> None:
    assert list(top_ngrams([], {2: 0.0})) == list(duplicate_ngrams([], {5: 0.0})) == []
    assert list(duplicate_ngrams(["a"] * 4, {5: 0.0})) == []
    assert list(top_ngrams(["a"], {2: 0.0})) == []
    assert list(top_ngrams(["a", "b"], {})) == []

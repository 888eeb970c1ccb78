"""Every pair of a group that is similar enough connects, in small groups and in large ones."""

import random
import time

import numpy as np
import pytest

from data_pipeline.deduplication import jaccard as similarity
from data_pipeline.deduplication.jaccard import connected_components, jaccard
from data_pipeline.text.ngrams import U64


def arrays(sets: list[list[int]]) -> list[U64]:
    return [np.array(sorted({*own}), np.uint64) for own in sets]


def all_pairs(sets: list[U64], threshold: float) -> list[int]:
    """The oracle: the smallest index of each component of all similar pairs."""
    group = list(range(len(sets)))
    for i, one in enumerate(sets):
        for j, other in enumerate(sets[:i]):
            common = len(np.intersect1d(one, other))
            if common >= threshold * (len(one) + len(other) - common) and group[i] != group[j]:
                low, high = sorted((group[i], group[j]))
                group = [low if g == high else g for g in group]
    return group


def templated(seed: int, number: int, threshold: float) -> list[U64]:
    """Returns pages of a few templates, and copies of some with a few changes.

    The template is more or less of a page, so that pairs lie on both sides of the threshold.
    """
    rng = random.Random(seed)
    sets = []
    for page in range(number):
        template = rng.randrange(4)
        size = rng.randrange(3, 60)
        own = [rng.randrange(10**9) for _ in range(max(1, round(size * rng.uniform(0, 0.4))))]
        sets.append([template * 1000 + k for k in range(size)] + own)
        if page % 3 == 0:
            copy = rng.choice(sets).copy()
            for _ in range(rng.randrange(max(2, round((1 - threshold) * len(copy))))):
                copy[rng.randrange(len(copy))] = rng.randrange(10**9)
            sets.append(copy)
    rng.shuffle(sets)
    return arrays(sets)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_prefixes_find_what_all_pairs_find(
    seed: int, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = templated(seed, 60, threshold)
    expected = all_pairs(sets, threshold)
    assert 5 < len({*expected}) < len(sets)
    for small in (0, 10**6):
        monkeypatch.setattr(similarity, "SMALL", small)
        assert connected_components(sets, threshold).tolist() == expected


@pytest.mark.parametrize("small", [0, 32])
@pytest.mark.parametrize(("size", "joined"), [(70, True), (69, False)])
def test_the_threshold_is_a_least_similarity(
    size: int, joined: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "SMALL", small)
    found = connected_components(arrays([list(range(100)), list(range(size))]), 0.7).tolist()
    assert found == ([0, 0] if joined else [0, 1])


def test_every_set_is_looked_at_though_its_neighbor_is_unlike() -> None:
    a, b = list(range(100)), list(range(1000, 1100))
    assert connected_components(arrays([a, b, b]), 0.7).tolist() == [0, 1, 1]
    assert connected_components(arrays([b, a, b, a, [7]]), 0.7).tolist() == [0, 1, 0, 1, 4]


def test_jaccard_is_exact() -> None:
    one, *others = arrays([list(range(10)), list(range(5, 20)), [99], list(range(10))])
    assert jaccard(one, others).tolist() == [5 / 20, 0.0, 1.0]


def count_comparisons(sets: list[U64], monkeypatch: pytest.MonkeyPatch) -> int:
    compared = 0

    def counting(one: U64, others: list[U64]) -> np.ndarray:
        nonlocal compared
        compared += len(others)
        return jaccard(one, others)

    monkeypatch.setattr(similarity, "jaccard", counting)
    connected_components(sets, 0.7)
    return compared


def test_many_pages_of_one_template_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of each page are the same: two million pairs of similarity 0.6."""
    number = 2000
    pages = arrays([[*range(75), *range(1000 + 25 * k, 1025 + 25 * k)] for k in range(number)])
    assert round(float(jaccard(pages[0], pages[1:2])[0]), 2) == 0.6
    assert count_comparisons(pages, monkeypatch) == 0


def test_many_copies_are_compared_about_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nineteen twentieths of each page are the same: all pairs are above the threshold."""
    number = 2000
    pages = arrays([[*range(95), *range(1000 + 5 * k, 1005 + 5 * k)] for k in range(number)])
    begin = time.process_time()
    assert number - 1 <= count_comparisons(pages, monkeypatch) <= 2 * number
    assert time.process_time() - begin < 20  # 0.3 s; all pairs would take a minute

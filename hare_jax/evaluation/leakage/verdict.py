"""From the accuracies of single items to a verdict on a set, with intervals by bootstrap.

    delta    accuracy on the original items less that on their rewritings; arXiv 2404.18824
    excess   delta less that of a control: items made and rewritten alike which the model cannot
             have seen. Without a control it is delta.

The rule: a set is *accused* where the whole interval of its excess lies above the threshold,
*acquitted* where none of it does, and otherwise *undecided*, as is every set of few items.

What a control is for: a model that has seen neither may still find the originals easier, since
people wrote them, or harder, since a language model's rewriting reads as it would write itself.
This is no leak; a control shows how large it is, and the threshold is then only a margin.

Rewritings that keep most n-grams of the originals are continued as well as these by a model that
knows them by heart. They may accuse, but their small excess acquits nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FEWEST_ITEMS = 20  # below, the bootstrap's intervals are too narrow to be told
MOST_COPIED = 0.75  # share of the rewritings' word 5-grams; above, no set is acquitted
RESAMPLED_AT_A_TIME = 1 << 22


class Verdict(enum.Enum):
    CONTAMINATED = "contaminated"
    CLEAN = "clean"
    INCONCLUSIVE = "inconclusive"


class Interval(NamedTuple):
    """An estimate, and between which two numbers it lies."""

    value: float
    low: float
    high: float


class Resampled(NamedTuple):
    """A difference of means, and what it is in each bootstrap sample of the items."""

    value: float
    samples: np.ndarray

    def minus(self, other: Resampled) -> Resampled:
        """The difference of two that were resampled apart."""
        return Resampled(self.value - other.value, self.samples - other.samples)

    def negated(self) -> Resampled:
        return Resampled(-self.value, -self.samples)

    def interval(self, confidence: float) -> Interval:
        """By percentiles."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.samples, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high))


def paired(
    original: ArrayLike, rewritten: ArrayLike, samples: int, seed: Sequence[int]
) -> Resampled:
    """Mean of original - rewritten over items; item k of the one belongs to item k of the other."""
    difference = np.subtract(original, rewritten)
    return Resampled(float(difference.mean()), _means(difference, samples, [*seed, 0]))


def unpaired(
    original: ArrayLike, rewritten: ArrayLike, samples: int, seed: Sequence[int]
) -> Resampled:
    """The same of items that do not belong together: both sides are resampled apart."""
    a, b = np.asarray(original, float), np.asarray(rewritten, float)
    resampled = _means(a, samples, [*seed, 0]) - _means(b, samples, [*seed, 1])
    return Resampled(float(a.mean() - b.mean()), resampled)


def _means(values: np.ndarray, samples: int, seed: list[int]) -> np.ndarray:
    """The mean of each of `samples` draws with replacement of as many values."""
    rng = np.random.default_rng(seed)

    def chunks() -> Iterator[np.ndarray]:
        at_a_time = max(1, RESAMPLED_AT_A_TIME // len(values))
        for start in range(0, samples, at_a_time):
            count = min(at_a_time, samples - start)
            yield values[rng.integers(len(values), size=(count, len(values)))].mean(axis=1)

    return np.concatenate(list(chunks()))


def judge(excess: Interval, threshold: float, items: int, copied: float) -> Verdict:
    """See above. `items`: how many the interval is made of; `copied`: of the rewritings' n-grams,
    the share that the originals have."""
    if items < FEWEST_ITEMS:
        return Verdict.INCONCLUSIVE
    if excess.low > threshold:
        return Verdict.CONTAMINATED
    acquits = excess.high <= threshold and copied <= MOST_COPIED
    return Verdict.CLEAN if acquits else Verdict.INCONCLUSIVE

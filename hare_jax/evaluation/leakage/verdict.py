"""A verdict on a set from the accuracies of its items, with intervals by bootstrap.

    delta    accuracy on the original items less that on their paraphrases; arXiv 2404.18824
    excess   delta less that of a control: items of the same kind, paraphrased in the same way, that
             the model cannot have seen. Without a control it is delta.

The rule: a set is *contaminated* if the whole interval of its excess lies above the threshold,
*clean* if none of it does, and otherwise *inconclusive*, as is every set of few items.

The control corrects for texts that a model finds easier or harder without having seen them: people
wrote the originals, while paraphrases by a language model read as such a model would write. A
control shows how large this difference is, and the threshold is then only a margin.

Paraphrases that keep most n-grams of the originals are continued as well as these by a model that
has memorized them. A large excess on them shows contamination, but a small one does not show that a
set is clean.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

MIN_ITEMS = 20  # with fewer, intervals by bootstrap are too narrow
MAX_OVERLAP = 0.75  # share of the paraphrases' word 5-grams; above, no set is called clean
VALUES_PER_CHUNK = 1 << 22  # drawn at once, to bound memory


class Verdict(enum.Enum):
    """The verdict on a set of benchmark items."""

    CONTAMINATED = "contaminated"
    CLEAN = "clean"
    INCONCLUSIVE = "inconclusive"


class Interval(NamedTuple):
    """An estimate and the bounds of its interval."""

    value: float
    low: float
    high: float


class Resampled(NamedTuple):
    """A difference of means, and its value in each bootstrap sample of the items."""

    value: float
    samples: np.ndarray

    def minus(self, other: Resampled) -> Resampled:
        """Returns the difference of two estimates that were resampled independently."""
        return Resampled(self.value - other.value, self.samples - other.samples)

    def negated(self) -> Resampled:
        """Returns the estimate with the opposite sign."""
        return Resampled(-self.value, -self.samples)

    def interval(self, confidence: float) -> Interval:
        """Returns the percentile interval that holds `confidence` of the bootstrap samples."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.samples, [tail, 1 - tail])
        return Interval(self.value, float(low), float(high))


def paired(
    original: ArrayLike, paraphrased: ArrayLike, samples: int, seed: Sequence[int]
) -> Resampled:
    """Resamples the mean of original - paraphrased over items.

    Args:
      original: one value per item.
      paraphrased: one value per item, in the same order.
      samples: number of bootstrap samples.
      seed: of the draws.
    """
    difference = np.subtract(original, paraphrased)
    return Resampled(float(difference.mean()), _means(difference, samples, [*seed, 0]))


def unpaired(
    original: ArrayLike, paraphrased: ArrayLike, samples: int, seed: Sequence[int]
) -> Resampled:
    """Resamples mean(original) - mean(paraphrased), each side independently.

    Args:
      original: one value per item.
      paraphrased: one value per item, of any other items.
      samples: number of bootstrap samples.
      seed: of the draws.
    """
    a, b = np.asarray(original, float), np.asarray(paraphrased, float)
    difference = _means(a, samples, [*seed, 0]) - _means(b, samples, [*seed, 1])
    return Resampled(float(a.mean() - b.mean()), difference)


def _means(values: np.ndarray, samples: int, seed: list[int]) -> np.ndarray:
    """Returns the means of `samples` draws of len(values) values with replacement, [samples]."""
    rng = np.random.default_rng(seed)

    def chunks() -> Iterator[np.ndarray]:
        size = max(1, VALUES_PER_CHUNK // len(values))
        for start in range(0, samples, size):
            count = min(size, samples - start)
            yield values[rng.integers(len(values), size=(count, len(values)))].mean(axis=1)

    return np.concatenate(list(chunks()))


def judge(excess: Interval, threshold: float, items: int, overlap: float) -> Verdict:
    """Returns the verdict on a set; the rule is in the module's docstring.

    Args:
      excess: with its interval.
      threshold: excess above which a set counts as contaminated.
      items: number of items behind the interval.
      overlap: share of the paraphrases' word n-grams that also occur in the originals.
    """
    if items < MIN_ITEMS:
        return Verdict.INCONCLUSIVE
    if excess.low > threshold:
        return Verdict.CONTAMINATED
    is_clean = excess.high <= threshold and overlap <= MAX_OVERLAP
    return Verdict.CLEAN if is_clean else Verdict.INCONCLUSIVE

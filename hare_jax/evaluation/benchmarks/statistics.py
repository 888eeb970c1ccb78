"""Benchmark scores with their precision, and means over benchmarks.

A score is a mean over items. Its standard error is the sample deviation / sqrt(n), as in
lm-evaluation-harness. Its interval is a 95 % confidence interval: Wilson's for shares of right
answers, which remains sensible for 0 of 20, and 1.96 standard errors to both sides otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks.registry import SIX

Z = 1.959963984540054  # standard deviations within which 95 % of a normal distribution lie


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """Returns {"value", "stderr", "interval": [low, high], "items"} of the mean of `values`.

    "stderr" is None for a single item.

    >>> estimate([1, 0, 0, 0])["value"]
    0.25
    """
    array, n = np.asarray(values, np.float64), len(values)
    mean = float(array.mean())
    stderr = float(array.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    interval: list[float | None] = [None, None]
    if np.isin(array, (0.0, 1.0)).all():  # right or wrong
        interval = [*wilson(mean, n)]
    elif stderr is not None:
        interval = [mean - Z * stderr, mean + Z * stderr]
    return {"value": mean, "stderr": stderr, "interval": interval, "items": n}


def wilson(share: float, n: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share p of n items (Wilson, JASA 22, 1927).

    (p + z^2 / 2n ± z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    half_width = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    center, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    return (center - half_width) / scale, (center + half_width) / scale


def combine(scores: Sequence[Mapping[str, Any]], *, by_items: bool) -> dict[str, Any]:
    """Returns the mean of several scores, weighted by their items or equally.

    Scores are independent, so that the standard error of sum w_i s_i is sqrt(sum (w_i e_i)^2).
    """
    items = np.array([score["items"] for score in scores], np.float64)
    weights = items / items.sum() if by_items else np.full(len(scores), 1 / len(scores))
    value = float(sum(w * score["value"] for w, score in zip(weights, scores, strict=True)))
    errors = [score["stderr"] for score in scores]
    num_items = int(items.sum())
    if any(error is None for error in errors):
        return {"value": value, "stderr": None, "interval": [None, None], "items": num_items}
    stderr = math.sqrt(sum((w * e) ** 2 for w, e in zip(weights, errors, strict=True)))
    interval = [value - Z * stderr, value + Z * stderr]
    return {"value": value, "stderr": stderr, "interval": interval, "items": num_items}


def bits_per_byte(gold: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Returns the bits per UTF-8 byte of the right answers, as `estimate` does.

    `gold`: the text of each right answer and its log-likelihood in nats.

    The standard error is that of a ratio of means: with b_i bits and s_i bytes of answer i of n,
    and r = sum b_i / sum s_i, it is the deviation of b_i - r s_i, divided by sqrt(n) * mean(s_i).
    """
    size = np.array([max(1, len(text.encode())) for text, _ in gold], np.float64)
    bits = np.array([-log_likelihood / math.log(2) for _, log_likelihood in gold])
    value, n = float(bits.sum() / size.sum()), len(gold)
    if n < 2:
        return {"value": value, "stderr": None, "interval": [None, None], "items": n}
    deviation = (bits - value * size).std(ddof=1)
    stderr = float(deviation / math.sqrt(n) / size.mean())
    interval = [value - Z * stderr, value + Z * stderr]
    return {"value": value, "stderr": stderr, "interval": interval, "items": n}


def six_average(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the leaderboard's average of its six benchmarks; None if one is missing."""
    if not all(name in scores for name in SIX):
        return None
    return combine([scores[name] for name in SIX], by_items=False)


def weighs_by_items(protocol: Protocol, task: str) -> bool:
    """Returns whether the mean over a benchmark's tasks weighs them by their items."""
    return not (protocol is Protocol.LEADERBOARD_V1 and task == "mmlu")

"""Scores with what is known about their precision, and how benchmarks are put together.

A score is a mean over items. Its standard error is the sample deviation / sqrt(n), as
lm-evaluation-harness has it; its interval holds 95 %: Wilson's for shares of right answers, which
stays sensible for 0 of 20, and 1.96 standard errors to both sides otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks.registry import SIX

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations

# Open LLM Leaderboard (v1), as the paper's Table 1 has it: average, then the order of SIX.
PAPER = {
    "Phi-1.5 1.3B": (47.69, 43.89, 52.9, 40.89, 72.22, 63.79, 12.43),
    "Qwen1.5 1.8B": (46.55, 46.71, 37.88, 39.43, 60.3, 61.42, 33.59),
    "StableLM2 1.6B": (45.25, 38.95, 43.34, 36.78, 64.56, 70.45, 17.44),
    "HARE 1.1B": (40.17, 35.74, 38.4, 42.08, 59.27, 57.46, 8.04),
    "H2O-Danube 1.8B": (39.12, 25.94, 39.42, 33.86, 64.48, 69.58, 1.44),
    "OpenELM 1.1B": (38.47, 27.05, 36.69, 33.86, 63.22, 65.71, 1.21),
    "TinyLlama (3T) 1.1B": (36.42, 26.04, 33.87, 37.32, 59.51, 60.31, 1.44),
}


def estimate(values: Sequence[float]) -> dict[str, Any]:
    """{"value", "stderr", "interval": [low, high], "items"}; stderr is None for a single item.

    >>> estimate([1, 0, 0, 0])["value"]
    0.25
    """
    array, n = np.asarray(values, np.float64), len(values)
    mean = float(array.mean())
    stderr = float(array.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    interval: list[float | None] = [None, None]
    if np.isin(array, (0.0, 1.0)).all():
        interval = [*wilson(mean, n)]
    elif stderr is not None:
        interval = [mean - Z * stderr, mean + Z * stderr]
    return {"value": mean, "stderr": stderr, "interval": interval, "items": n}


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n."""
    spread = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    middle, scale = share + Z * Z / (2 * n), 1 + Z * Z / n
    return (middle - spread) / scale, (middle + spread) / scale


def combined(parts: Sequence[Mapping[str, Any]], *, by_items: bool) -> dict[str, Any]:
    """The mean of several scores, weighted by their items or each alike."""
    items = np.array([part["items"] for part in parts], np.float64)
    weights = items / items.sum() if by_items else np.full(len(parts), 1 / len(parts))
    value = float(sum(w * part["value"] for w, part in zip(weights, parts, strict=True)))
    errors = [part["stderr"] for part in parts]
    if any(error is None for error in errors):
        return {
            "value": value,
            "stderr": None,
            "interval": [None, None],
            "items": int(items.sum()),
        }
    stderr = math.sqrt(sum((w * e) ** 2 for w, e in zip(weights, errors, strict=True)))
    interval = [value - Z * stderr, value + Z * stderr]
    return {"value": value, "stderr": stderr, "interval": interval, "items": int(items.sum())}


def bits_per_byte(gold: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Of the right answers, each a text and its log-likelihood in nats: bits over UTF-8 bytes.

    The standard error is that of a ratio of means.
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
    """The leaderboard's average of its six benchmarks; None where one of them is missing."""
    if not all(name in scores for name in SIX):
        return None
    return combined([scores[name] for name in SIX], by_items=False)


def in_groups(protocol: Protocol, task: str) -> bool:
    """Whether the mean over a benchmark's tasks weighs them by their items."""
    return not (protocol is Protocol.LEADERBOARD_V1 and task == "mmlu")

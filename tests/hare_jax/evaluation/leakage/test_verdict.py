"""Intervals hold what they promise, and verdicts follow from them alone."""

from __future__ import annotations

import numpy as np
import pytest

from hare_jax.evaluation.leakage.verdict import (
    MAX_OVERLAP,
    MIN_ITEMS,
    Interval,
    Verdict,
    judge,
    paired,
    unpaired,
)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = {"paired": 0, "unpaired": 0}
    for trial in range(200):
        skill = rng.uniform(size=60)
        original = rng.binomial(5, skill * 0.8) / 5
        paraphrased = rng.binomial(5, skill * 0.5) / 5
        truth = 0.5 * 0.3
        for name, resample in (("paired", paired), ("unpaired", unpaired)):
            interval = resample(original, paraphrased, 400, (trial,)).interval(0.9)
            held[name] += interval.low <= truth <= interval.high
    assert 0.82 < held["paired"] / 200 < 0.96
    assert held["unpaired"] > held["paired"]  # it does not know that hard items are hard on both


def test_pairs_make_the_interval_narrower_and_not_another() -> None:
    rng = np.random.default_rng(0)
    skill = rng.uniform(size=200)
    a, b = np.round(skill + 0.1, 1), np.round(skill, 1)
    together, apart = (f(a, b, 1000, (0,)).interval(0.95) for f in (paired, unpaired))
    assert together.value == pytest.approx(apart.value)
    assert (together.high - together.low) < 0.5 * (apart.high - apart.low)
    assert together.low <= together.value <= together.high


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).uniform(size=(2, 50))
    once, again, other = (
        paired(values[0], values[1], 500, (seed,)).interval(0.95) for seed in (3, 3, 4)
    )
    assert once == again != other


def test_excess_is_zero_if_the_control_shows_the_same() -> None:
    rng = np.random.default_rng(0)
    original, paraphrased = rng.binomial(5, 0.5, 300) / 5, rng.binomial(5, 0.2, 300) / 5
    of_set, of_control = (paired(original, paraphrased, 500, (0, k)) for k in (0, 1))
    excess = of_set.minus(of_control).interval(0.95)
    assert of_set.interval(0.95).low > 0.2
    assert excess.value == 0.0
    assert excess.low < 0 < excess.high  # as wide as both together: they were drawn apart


@pytest.mark.parametrize(
    ("low", "high", "items", "overlap", "expected"),
    [
        (0.06, 0.20, 100, 0.2, Verdict.CONTAMINATED),
        (0.05, 0.20, 100, 0.2, Verdict.INCONCLUSIVE),  # not above the threshold
        (0.01, 0.20, 100, 0.2, Verdict.INCONCLUSIVE),
        (-0.02, 0.05, 100, MAX_OVERLAP, Verdict.CLEAN),
        (-0.02, 0.05, 100, 0.8, Verdict.INCONCLUSIVE),  # whoever knows one knows the other
        (0.06, 0.20, 100, 0.8, Verdict.CONTAMINATED),
        (-0.02, 0.05, MIN_ITEMS - 1, 0.2, Verdict.INCONCLUSIVE),
        (0.50, 0.90, MIN_ITEMS - 1, 0.2, Verdict.INCONCLUSIVE),
    ],
)
def test_the_rule(low: float, high: float, items: int, overlap: float, expected: Verdict) -> None:
    assert judge(Interval((low + high) / 2, low, high), 0.05, items, overlap) is expected

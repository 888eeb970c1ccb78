from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.held_out import loss, unigram
from hare_jax.evaluation.held_out.unigram import Unigram
from hare_jax.inference.requests import Score, ScoreRequest

COUNTS = {"web": np.array([6, 3, 1, 0]), "code": np.array([0, 0, 5, 5])}


def test_probabilities_are_weighted_smoothed_and_sum_to_one() -> None:
    model = Unigram(COUNTS, {"web": 3.0, "code": 1.0})
    # 20 tokens are counted: 0.75 * [.6 .3 .1 0] + 0.25 * [0 0 .5 .5], times 20, plus one, by 24.
    np.testing.assert_allclose(model.probability_V, np.array([10, 5.5, 5, 3.5]) / 24)
    np.testing.assert_allclose(model.probability_V.sum(), 1, rtol=1e-12)
    assert (model.probability_V > 0).all()


def test_a_source_without_a_share_counts_nothing() -> None:
    model = Unigram(COUNTS, {"web": 1.0, "code": 0.0})
    np.testing.assert_allclose(model.probability_V, np.array([7, 4, 2, 1]) / 14)


def test_scores_ignore_the_context() -> None:
    model = Unigram(COUNTS, {"web": 1.0})
    requests = [ScoreRequest([1], [0, 0]), ScoreRequest([3, 2], [0, 0]), ScoreRequest([1], [0, 1])]
    known: dict[int, Score] = {}
    first, second, third = model.scores(requests, known.update)
    assert first == second
    assert first.log_likelihood == pytest.approx(2 * np.log(7 / 14))
    assert (first.is_greedy, first.tokens) == (True, 2)
    assert third.log_likelihood == pytest.approx(np.log(7 / 14) + np.log(4 / 14))
    assert not third.is_greedy
    assert known == {0: first, 1: second, 2: third}


def test_a_trained_source_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no tokens of \['law'\].*got them for \['code', 'web'\]"):
        Unigram(COUNTS, {"web": 1.0, "law": 1.0})
    with pytest.raises(ValueError, match="no tokens of any source"):
        Unigram(COUNTS, {"web": 0.0})


def targets(baked: PackedDataset, source_id: int) -> list[int]:
    """By the definition of a record: each token of a segment but its first."""
    found = []
    for record in range(baked.sources[source_id].records):
        batch = baked.batch([(source_id, record)])
        found += batch["targets_BT"][batch["loss_mask_BT"] > 0].tolist()
    return found


def test_counts_are_those_of_the_predicted_tokens(bake: Callable[..., Path]) -> None:
    baked = PackedDataset(bake({"web": 7, "code": 5}))
    counts = unigram.count(baked, records=100)
    for source_id, source in enumerate(baked.sources):
        expected = np.bincount(targets(baked, source_id), minlength=64)
        assert counts[source.name].tolist() == expected.tolist()
        assert counts[source.name].sum() == source.tokens


def test_many_records_are_sampled_evenly(bake: Callable[..., Path]) -> None:
    baked = PackedDataset(bake({"web": 7}))
    counts = unigram.count(baked, records=3)["web"]
    batch = baked.batch([(0, 0), (0, 3), (0, 6)])
    expected = np.bincount(batch["targets_BT"][batch["loss_mask_BT"] > 0], minlength=64)
    assert counts.tolist() == expected.tolist()


def test_its_held_out_loss_is_that_of_its_probabilities(bake: Callable[..., Path]) -> None:
    trained_on = PackedDataset(bake({"web": 7, "code": 5}))
    held_out = PackedDataset(bake({"web": 3}, name="held out", mixtures={}))
    model = Unigram(unigram.count(trained_on, records=100), {"web": 1.0, "code": 1.0})
    losses = loss.document_losses(held_out, model, lambda _: None)
    expected = -np.log(model.probability_V[targets(held_out, 0)]).mean()
    (row, _) = loss.table({"unigram": losses})
    assert row["loss"]["unigram"] == pytest.approx(expected, rel=1e-6)

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hare_jax.config import Stage, Training
from hare_jax.data.order import Order, counts

T = 16
MIXTURES = {
    "first": {"web": 0.7, "code": 0.3},
    "second": {"web": 0.2, "code": 0.3, "tasks": 0.5},
}


def _order(
    stages: list[Stage] | None = None,
    records: dict[str, int] | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> Order:
    if stages is None:
        stages = [Stage("one", "first", 5 * 8 * T), Stage("two", "second", 9 * 8 * T)]
    records = {"web": 37, "code": 23, "tasks": 11} if records is None else records
    training = Training(stages=stages, batch_size=batch_size, seed=seed)
    return Order(training, records, MIXTURES, T)


def _rows(order: Order) -> list[tuple[int, int]]:
    return [pick for step in range(order.steps) for pick in order.records_of_step(step)]


def test_counts_example() -> None:
    got = counts(np.arange(7), (2, 1))
    assert got.tolist() == [[0, 1, 2, 2, 3, 4, 4], [0, 0, 0, 1, 1, 1, 2]]


def test_counts_deal_out_every_row_once_and_stay_near_the_weights() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights = tuple(rng.integers(0, 1000, 7).tolist())
        got = counts(np.arange(3000), weights)
        steps = np.diff(got, axis=1)
        assert ((steps == 0) | (steps == 1)).all() and (steps.sum(axis=0) == 1).all()
        exact = np.arange(3000) * np.array(weights)[:, None] / sum(weights)
        assert np.abs(got - exact).max() <= len(weights)
        assert not got[np.array(weights) == 0].any()


def test_counts_are_exact_after_a_trillion_tokens() -> None:
    rows = 600 * 10**9 // 2048
    got = counts(np.array([rows]), (1 << 23, 1 << 22, 1 << 22))[:, 0]
    assert np.abs(got - rows * np.array([0.5, 0.25, 0.25])).max() <= 3


@pytest.mark.slow
def test_no_record_twice_before_every_record_once_across_stages() -> None:
    for seed in range(5):
        order = _order(seed=seed)
        for source, size in enumerate(order.records.values()):
            records = [record for s, record in _rows(order) if s == source]
            for start in range(0, len(records), size):
                epoch = records[start : start + size]
                assert len(set(epoch)) == len(epoch)
                assert set(epoch) <= set(range(size))


def test_epochs_are_shuffled_apart() -> None:
    order = _order([Stage("one", "first", 40 * 8 * T)])
    web = [record for source, record in _rows(order) if source == 0]
    assert web[:37] != web[37:74] and sorted(web[:37]) == sorted(web[37:74])


def test_a_source_continues_in_the_second_stage() -> None:
    order = _order([Stage("one", "first", 3 * 8 * T), Stage("two", "second", 3 * 8 * T)])
    whole = _order([Stage("one", "first", 9 * 8 * T)])
    code = [record for source, record in _rows(order) if source == 1]
    longer = [record for source, record in _rows(whole) if source == 1]
    assert 0 < order.stages[1].drawn_before[1] < len(code)
    assert code == longer[: len(code)]


def test_a_stage_cut_in_two_has_the_same_rows_of_each_source() -> None:
    one = Counter(_rows(_order([Stage("a", "first", 6 * 8 * T)])))
    two = Counter(_rows(_order([Stage("a", "first", 2 * 8 * T), Stage("b", "first", 4 * 8 * T)])))
    difference = (one - two) + (two - one)
    assert sum(difference.values()) <= 2 * 2  # at most a row a source, rounded anew in each stage


def test_order_is_a_function_of_seed_and_step() -> None:
    assert _rows(_order()) == _rows(_order())
    assert _rows(_order(seed=1)) != _rows(_order())
    order = _order()
    backwards = [order.records_of_step(step) for step in reversed(range(order.steps))]
    assert [pick for step in reversed(backwards) for pick in step] == _rows(_order())


def test_another_source_does_not_change_a_sources_own_order() -> None:
    stages = [Stage("one", "first", 5 * 8 * T)]
    alone = _rows(_order(stages, {"web": 37, "code": 23}))
    assert alone == _rows(_order(stages, {"web": 37, "code": 23, "tasks": 11}))


def test_rows_follow_the_weights() -> None:
    order = _order([Stage("two", "second", 125 * 8 * T)])
    drawn = Counter(source for source, _ in _rows(order))
    assert [drawn[0], drawn[1], drawn[2]] == order.rows_drawn(order.stages[0])
    assert np.abs(np.array(order.rows_drawn(order.stages[0])) - [200, 300, 500]).max() <= 3


def test_weights_of_a_stage_override_the_baked_ones() -> None:
    stage = Stage("two", "second", 10 * 8 * T, {"web": 0.0, "tasks": 0.3})
    order = _order([stage])
    assert order.rows_drawn(order.stages[0]) == [0, 40, 40]


def test_stages_take_whole_steps() -> None:
    order = _order([Stage("one", "first", 1), Stage("two", "second", 8 * T + 1)])
    assert [stage.steps for stage in order.stages] == [1, 2]
    assert order.stage(0).name == "one" and order.stage(1).name == "two"
    with pytest.raises(ValueError, match="step 3 is past the last: the stages have 3 steps"):
        order.stage(3)


def test_history_depends_on_finished_steps_only() -> None:
    longer = _order([Stage("one", "first", 5 * 8 * T), Stage("two", "second", 99 * 8 * T)])
    assert _order().history(7) == longer.history(7)
    assert _order().history(5) == _order([Stage("x", "first", 50 * 8 * T)]).history(5)
    assert _order().history(7) != _order([Stage("x", "first", 50 * 8 * T)]).history(7)
    assert _order().history(7) != _order(seed=1).history(7)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "training.stages is empty"),
        ([Stage("a", "third", T)], r"'a' names mixture 'third': the baked data has \['first', 's"),
        ([Stage("a", "first", 0)], "'a' has 0 tokens: expected > 0"),
        ([Stage("a", "first", T, {"wbe": 1.0})], r"weights source 'wbe': the baked data has \["),
        ([Stage("a", "first", T, {"web": -1.0})], "weights 'web' by -1.0: expected 0 or more"),
        ([Stage("a", "first", T, {"web": float("nan")})], "weights 'web' by nan"),
        ([Stage("a", "first", T, {"empty": 1.0})], "'empty' by 1.0, but that source has no rec"),
        ([Stage("a", "first", T, {"web": 0.0, "code": 0.0})], "sum to 0.0, expected > 0"),
    ],
)
def test_errors(stages: list[Stage], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _order(stages, {"web": 37, "code": 23, "tasks": 11, "empty": 0})

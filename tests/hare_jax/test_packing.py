from __future__ import annotations

import numpy as np
import pytest

from hare_jax.evaluation import packing
from hare_jax.evaluation.packing import Pair, Request


def test_the_example_of_the_docstring() -> None:
    requests = [Request([1, 5, 6], [7, 8]), Request([1, 5, 6], [9]), Request([1, 2], [3, 4, 5])]
    rows = packing.rows(packing.paths(requests), max_length=10)
    (batch,) = packing.batches(rows, batch_tokens=10)
    assert batch.tokens_BT.tolist() == [[1, 5, 6, 7, 1, 2, 3, 4, 0, 0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 0, 0]]
    assert batch.segment_ids_BT.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2, 0, 0]]
    read = batch.tokens_BT.ravel()[batch.index_N].tolist()
    scored = sorted(zip(batch.request_N.tolist(), read, batch.target_N.tolist(), strict=True))
    assert scored == [(0, 6, 7), (0, 7, 8), (1, 6, 9), (2, 2, 3), (2, 3, 4), (2, 4, 5)]


def test_the_last_tokens_stay() -> None:
    """lm-evaluation-harness: (context + continuation)[-(max_length + 1):]."""
    request = Request([1, 2, 3, 4], [5, 6])
    for max_length in range(2, 8):
        (context, continuation), cut = packing.truncated(request, max_length, bos_id=1)
        assert (*context, *continuation) == (1, 2, 3, 4, 5, 6)[-(max_length + 1) :]
        assert list(continuation) == [5, 6]
        assert cut == (max_length < 5)


def test_an_empty_context_is_bos() -> None:
    assert packing.truncated(Request([], [5]), 4, bos_id=1) == (Request((1,), (5,)), False)


def test_requests_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(ValueError, match="empty continuation: there is nothing to score"):
        packing.truncated(Request([1, 2], []), 4, bos_id=1)
    with pytest.raises(ValueError, match="has 5 tokens, but the model reads at most 4"):
        packing.truncated(Request([1, 2], [3] * 5), 4, bos_id=1)


def test_choices_of_one_token_cost_their_context_once() -> None:
    context = list(range(1, 40))
    paths = packing.paths([Request(context, [token]) for token in (50, 51, 52, 53)])
    (path,) = paths
    assert path.tokens == tuple(context)
    assert sorted(path.pairs) == [Pair(38, 50 + i, i) for i in range(4)]


def random_requests(rng: np.random.Generator, count: int) -> list[Request]:
    """Few distinct tokens, so that many inputs begin alike and some are equal."""
    return [
        Request(
            rng.integers(1, 3, rng.integers(1, 6)).tolist(),
            rng.integers(1, 3, rng.integers(1, 5)).tolist(),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_token_of_every_request_is_scored_after_its_own_prefix(seed: int) -> None:
    requests = random_requests(np.random.default_rng(seed), 60)
    paths = packing.paths(requests)
    found: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for path in paths:
        for pair in sorted(path.pairs):
            found.setdefault(pair.request, []).append((path.tokens[: pair.at + 1], pair.target))
    for index, (context, continuation) in enumerate(requests):
        whole = (*context, *continuation)
        expected = [(whole[:at], whole[at]) for at in range(len(context), len(whole))]
        assert found[index] == expected
    inputs = {path.tokens for path in paths}
    assert len(inputs) == len(paths)
    begins_another = [a for a in inputs for b in inputs if a != b and b[: len(a)] == a]
    assert not begins_another  # else fewer paths would do


@pytest.mark.parametrize("seed", range(5))
def test_rows_hold_each_path_once_at_few_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [Request(rng.integers(1, 60, rng.integers(1, 700)).tolist(), [2]) for _ in range(80)]
    paths = packing.paths(requests)
    rows = packing.rows(paths, max_length=700)
    assert sorted(path.tokens for row in rows for path in row.paths) == sorted(
        path.tokens for path in paths
    )
    assert {row.length for row in rows} <= {128, 256, 512, 700}
    assert all(sum(len(path.tokens) for path in row.paths) <= row.length for row in rows)
    read = sum(len(path.tokens) for path in paths)
    one_row_each = sum(packing.rows([path], max_length=700)[0].length for path in paths)
    assert sum(row.length for row in rows) - read < (one_row_each - read) / 2


def test_batches_have_a_fixed_shape_and_lose_no_row() -> None:
    requests = [Request([1] * n, [2]) for n in (5, 130, 131, 132, 133, 300)]
    paths = packing.paths([Request([n, *r.context], [2]) for n, r in enumerate(requests, 3)])
    shapes = []
    asked = []
    for batch in packing.batches(packing.rows(paths, max_length=512), batch_tokens=600):
        shapes.append(batch.tokens_BT.shape)
        asked += batch.request_N.tolist()
    assert sorted(shapes) == [(1, 512), (2, 256), (2, 256)]
    assert sorted(asked) == list(range(6))


def test_a_row_longer_than_a_batch_is_a_batch() -> None:
    assert packing.rows_per_batch(length=512, batch_tokens=100) == 1

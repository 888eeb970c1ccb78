from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.mixture.packing import Row, pack, padding_share


def lengths_like_documents(rng: np.random.Generator, count: int) -> np.ndarray:
    """Two to a hundred thousand tokens, the median at 300, as web text has them."""
    return np.clip(rng.lognormal(np.log(300), 1.2, count), 2, 100_000).astype(int)


CASES = {
    "documents": (lengths_like_documents(np.random.default_rng(0), 500), 257),
    "long rows": (lengths_like_documents(np.random.default_rng(1), 500), 2049),
    "short": (np.random.default_rng(2).integers(2, 9, 300), 16),
    "just as long as a row": (np.array([8, 8, 7, 9, 15, 16, 1, 2]), 8),
    "the smallest rows": (np.array([2, 3, 4, 2]), 2),
    "one": (np.array([5]), 8),
    "none": (np.array([], int), 8),
}


@pytest.fixture(params=CASES)
def packed(request: pytest.FixtureRequest) -> tuple[np.ndarray, int, list[Row]]:
    lengths, capacity = CASES[request.param]
    return lengths, capacity, pack(lengths, capacity)


def test_rows_never_overflow(packed: tuple[np.ndarray, int, list[Row]]) -> None:
    _, capacity, rows = packed
    assert all(0 < sum(length for _, _, length in row) <= capacity for row in rows)


def test_every_token_but_the_first_is_predicted_once(
    packed: tuple[np.ndarray, int, list[Row]],
) -> None:
    """No document is lost or doubled, and pieces overlap by the one token that is then an input."""
    lengths, _, rows = packed
    predicted = [np.zeros(length, int) for length in lengths]
    for row in rows:
        for document, offset, length in row:
            assert offset + length <= lengths[document]
            predicted[document][offset + 1 : offset + length] += 1
    for counts in predicted:
        assert counts[0] == 0
        assert (counts[1:] == 1).all()
    assert {document for row in rows for document, _, _ in row} == set(range(len(lengths)))


def test_what_fits_into_a_row_stays_whole(packed: tuple[np.ndarray, int, list[Row]]) -> None:
    lengths, capacity, rows = packed
    pieces = np.bincount([d for row in rows for d, _, _ in row], minlength=len(lengths))
    assert (pieces[lengths <= capacity] == 1).all()


def test_best_fit() -> None:
    """The fullest row with room, not the first: the 1 goes beside 10 and 9, not beside 12."""
    assert pack([1, 9, 10, 12], 20) == [[(3, 0, 12)], [(2, 0, 10), (1, 0, 9), (0, 0, 1)]]


def test_the_same_lengths_give_the_same_rows() -> None:
    lengths, capacity = CASES["documents"]
    assert pack(lengths, capacity) == pack(lengths.tolist(), capacity)


@pytest.mark.parametrize("capacity", [257, 2049, 8193])
def test_little_is_padding(capacity: int) -> None:
    rows = pack(lengths_like_documents(np.random.default_rng(3), 3000), capacity)
    assert padding_share(rows, capacity) < 0.03


def test_padding_share() -> None:
    assert padding_share([[(0, 0, 5), (1, 0, 3)], [(2, 0, 4)]], 8) == 0.25
    assert padding_share([], 8) == 0


def test_refuses_empty_documents_and_rows_without_a_target() -> None:
    with pytest.raises(ValueError, match="document 1 has 0 tokens"):
        pack([3, 0], 8)
    with pytest.raises(ValueError, match="capacity: got 1"):
        pack([3], 1)

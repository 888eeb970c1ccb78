from __future__ import annotations

import pytest

from hare_jax.inference.requests import ScoreRequest, truncate


def test_the_last_tokens_stay() -> None:
    """lm-evaluation-harness: (context + continuation)[-(max_length + 1):]."""
    request = ScoreRequest([1, 2, 3, 4], [5, 6])
    for max_length in range(2, 8):
        (context, continuation), cut = truncate(request, max_length)
        assert [*context, *continuation] == [1, 2, 3, 4, 5, 6][-(max_length + 1) :]
        assert continuation == [5, 6]
        assert cut == (max_length < 5)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ScoreRequest([], [1]), "empty context: give at least BOS"),
        (ScoreRequest([1], []), "empty continuation: there is nothing to score"),
        (ScoreRequest([1, 2], [3] * 5), "has 5 tokens, but the model reads at most 4"),
    ],
)
def test_what_cannot_be_scored_is_refused(request_: ScoreRequest, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        truncate(request_, 4)

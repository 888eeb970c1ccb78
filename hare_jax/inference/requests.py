"""Requests to a scorer and their scores, in token ids.

    scorer.scores([ScoreRequest([1, 415, 5565], [349, 3890])])      # [Score(-7.31, False, 2)]

A choice of a question is a request. A held-out text is one too: its first token is the context, all
others are the continuation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class ScoreRequest(NamedTuple):
    """A request for the log-likelihood of `continuation` after `context`, both token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """The score of a request. `log_likelihood`: in nats, summed over the `tokens` scored."""

    log_likelihood: float
    is_greedy: bool  # whether each token of the continuation was the most probable one
    tokens: int


# Called with the scores that have become known, by the index of their request.
Done = Callable[[dict[int, Score]], None]


def ignore_scores(scores: dict[int, Score]) -> None:
    """Does nothing: a `Done` for callers that wait for all scores."""


class Scorer(Protocol):
    """Whatever assigns probabilities to tokens: a model, or a baseline without one."""

    def scores(self, requests: Sequence[ScoreRequest], done: Done = ignore_scores) -> list[Score]:
        """Returns one score per request, in order; calls `done` with each score once."""
        ...


def truncate(request: ScoreRequest, max_length: int) -> tuple[ScoreRequest, bool]:
    """Shortens the context of a request to what the model can read.

    The last `max_length + 1` tokens of context and continuation are kept (the last one is never an
    input), as in lm-evaluation-harness.

    >>> truncate(ScoreRequest([1, 2, 3], [4, 5]), max_length=3)
    (ScoreRequest(context=[2, 3], continuation=[4, 5]), True)

    Returns:
      (request, whether its context was shortened)

    Raises:
      ValueError: context or continuation is empty, or the continuation leaves no room for a token
        of context.
    """
    context, continuation = request
    if not len(context):
        raise ValueError("a request has an empty context: give at least BOS")
    if not len(continuation):
        raise ValueError("a request has an empty continuation: there is nothing to score")
    if len(continuation) > max_length:
        raise ValueError(
            f"a continuation has {len(continuation)} tokens, but the model reads at most"
            f" {max_length} at a time: shorten it, or score it in windows"
        )
    max_context = max_length + 1 - len(continuation)
    return ScoreRequest(context[-max_context:], continuation), len(context) > max_context

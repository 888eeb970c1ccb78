"""What a scorer is asked, and what it answers, in token ids.

    scorer.scores([Request([1, 415, 5565], [349, 3890])])      # [Score(-7.31, False, 2)]

A choice of a question is a request, and so is a held-out text: its first token, then all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class ScoreRequest(NamedTuple):
    """What is the log-likelihood of `continuation` after `context`? Both are token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """The answer to a request. `log_likelihood` is in nats, summed over the `tokens` scored."""

    log_likelihood: float
    is_greedy: bool  # whether each token of the continuation was the most probable one
    tokens: int


Done = Callable[[dict[int, Score]], None]  # told of scores by the number of their request


def unheard(scores: dict[int, Score]) -> None:
    """A `Done` for nobody."""


class Scorer(Protocol):
    """Whatever assigns probabilities to tokens: a model, or a baseline without one."""

    def scores(self, requests: Sequence[ScoreRequest], done: Done = unheard) -> list[Score]:
        """One score a request, in order; `done` is told of each once, as they become known."""
        ...


def truncated(request: ScoreRequest, max_length: int) -> tuple[ScoreRequest, bool]:
    """The request as the model can read it, and whether its context was cut.

    The last `max_length + 1` tokens of context and continuation stay (the last one is never an
    input), as in lm-evaluation-harness.

    >>> truncated(Request([1, 2, 3], [4, 5]), max_length=3)
    (Request(context=[2, 3], continuation=[4, 5]), True)

    Raises:
      ValueError: no context, no continuation, or one that leaves no room for a token of context.
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
    room = max_length + 1 - len(continuation)
    return ScoreRequest(context[-room:], continuation), len(context) > room

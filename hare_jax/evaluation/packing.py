"""Scoring requests, laid out so that few tokens are computed twice and few shapes are compiled.

What the model reads for a request is context + continuation without its last token (which is only a
target). Requests whose inputs begin alike share one *path*: choices of one token, as in "Answer:"
-> " A", cost their context once. Paths are packed into rows of a few lengths, as segments.

    requests   0: [1 5 6] -> [7 8]    1: [1 5 6] -> [9]    2: [1 2] -> [3 4 5]

    tokens     1 5 6 7 | 1 2 3 4 | padding
    positions  0 1 2 3 | 0 1 2 3 |
    segments   1 1 1 1 | 2 2 2 2 | 0
    scored     6 -> 7 and 7 -> 8 for request 0, 6 -> 9 for 1; 2 -> 3, 3 -> 4, 4 -> 5 for 2

Shape legend: B rows, T tokens of a row, N scored (input, target) pairs.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

# Row lengths are powers of two from here up to the model's context: at most six shapes up to 4096.
SHORTEST_ROW = 128


class Request(NamedTuple):
    """What is the log-likelihood of `continuation` after `context`? Both are token ids."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """The answer to a request. `log_likelihood` is in nats, summed over the `tokens` scored."""

    log_likelihood: float
    is_greedy: bool  # whether each token of the continuation was the most probable one
    tokens: int


class Pair(NamedTuple):
    """The token after `at` (an index into the path) is to be `target`; asked by `request`."""

    at: int
    target: int
    request: int


@dataclass(slots=True)
class Path:
    tokens: tuple[int, ...]
    pairs: list[Pair]


@dataclass(slots=True)
class Row:
    length: int  # tokens with padding
    paths: list[Path] = field(default_factory=list)


class Packed(NamedTuple):
    """A batch for the model. `request_N[i]` is the request that pair i belongs to."""

    tokens_BT: np.ndarray  # int32
    positions_BT: np.ndarray  # int32
    segment_ids_BT: np.ndarray  # int32, 0 is padding
    index_N: np.ndarray  # int32, into the flattened [B * T]
    target_N: np.ndarray  # int32
    request_N: np.ndarray  # int32


def truncated(request: Request, max_length: int, bos_id: int) -> tuple[Request, bool]:
    """The request as the model can read it, and whether its context was cut.

    The last `max_length + 1` tokens of context and continuation stay (the last one is never an
    input), as in lm-evaluation-harness. An empty context is BOS alone.

    >>> truncated(Request([1, 2, 3], [4, 5]), max_length=3, bos_id=1)
    (Request(context=(2, 3), continuation=(4, 5)), True)

    Raises:
      ValueError: no continuation, or one that leaves no room for a token of context.
    """
    context, continuation = tuple(request.context) or (bos_id,), tuple(request.continuation)
    if not continuation:
        raise ValueError("a request has an empty continuation: there is nothing to score")
    if len(continuation) > max_length:
        raise ValueError(
            f"a continuation has {len(continuation)} tokens, but the model reads at most"
            f" {max_length} at a time: shorten it, or score it in windows"
        )
    room = max_length + 1 - len(continuation)
    return Request(context[-room:], continuation), len(context) > room


def paths(requests: Sequence[Request]) -> list[Path]:
    """The fewest inputs that hold those of every request (its context must not be empty)."""
    inputs = [(*context, *continuation[:-1]) for context, continuation in requests]
    found: list[Path] = []
    # Backwards in lexicographic order, an input that begins some other one meets it right before.
    for request in sorted(range(len(requests)), key=lambda i: (inputs[i], i), reverse=True):
        read = inputs[request]
        if not found or found[-1].tokens[: len(read)] != read:
            found.append(Path(read, []))
        context, continuation = requests[request]
        found[-1].pairs += [
            Pair(len(context) - 1 + i, target, request) for i, target in enumerate(continuation)
        ]
    return found


def rows(paths: Sequence[Path], max_length: int) -> list[Row]:
    """Longest path first; each gap is filled with the longest path that fits into it."""
    waiting = sorted(paths, key=lambda path: (len(path.tokens), path.tokens))
    lengths = [len(path.tokens) for path in waiting]
    packed = []
    while waiting:
        row = Row(_row_length(lengths[-1], max_length))
        room = row.length
        while fitting := bisect.bisect_right(lengths, room):
            room -= lengths.pop(fitting - 1)
            row.paths.append(waiting.pop(fitting - 1))
        packed.append(row)
    return packed


def _row_length(tokens: int, max_length: int) -> int:
    return min(max_length, max(SHORTEST_ROW, 1 << (tokens - 1).bit_length()))


def batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[Packed]:
    """Rows of one length, about `batch_tokens` tokens at a time; the last of a length is padded."""
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault(row.length, []).append(row)
    for length, same in by_length.items():
        size = rows_per_batch(length, batch_tokens)
        for start in range(0, len(same), size):
            yield lay_out(same[start : start + size], (size, length))


def rows_per_batch(length: int, batch_tokens: int) -> int:
    """At least one row, however long."""
    return max(1, batch_tokens // length)


def lay_out(rows: Sequence[Row], shape: tuple[int, int]) -> Packed:
    """`rows` as arrays of `shape` [B, T]; what they do not fill is padding."""
    tokens_BT, positions_BT, segment_ids_BT = (np.zeros(shape, np.int32) for _ in range(3))
    pairs = []
    for b, row in enumerate(rows):
        start = 0
        for segment, path in enumerate(row.paths, start=1):
            end = start + len(path.tokens)
            tokens_BT[b, start:end] = path.tokens
            positions_BT[b, start:end] = np.arange(end - start)
            segment_ids_BT[b, start:end] = segment
            at = b * shape[1] + start
            pairs += [(at + pair.at, pair.target, pair.request) for pair in path.pairs]
            start = end
    index_N, target_N, request_N = np.array(pairs, np.int32).T
    return Packed(tokens_BT, positions_BT, segment_ids_BT, index_N, target_N, request_N)

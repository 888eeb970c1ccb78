"""Packs requests as trees of tokens: what several of them read alike is read once.

The choices of an item share its context, the items of a subject its few-shot examples. Inputs in
lexicographic order are a tree walked depth first; written down in that order, the tokens that a
token sees are those before it whose subtree is not finished yet. One number a token says so:

    requests   0: [1 5 6] -> [7 8]    1: [1 5 6] -> [9 3]    2: [1 2] -> [4]

    inputs     1 2        1 5 6 7        1 5 6 9           (the last token is only a target)
    tokens     1 2 5 6 7 9
    positions  0 1 1 2 3 3
    ends       6 2 6 6 5 6       token j is seen by tokens j .. ends[j] - 1

Shape legend: B rows, T tokens of a row, N scored (position, target) pairs.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hare_jax.inference.requests import ScoreRequest

# An input joins the tree before it where at least 1 / SHARED of it is there already ...
SHARED = 8
# ... and the tree stays this short: attention within a row is quadratic. Trees of a longer common
# beginning may be longer, up to SHARED times its length.
SHORT_TREE, LONG_TREE = 512, 2048


@dataclass(slots=True)
class Tree:
    """`pairs_N3`: int32 [N, 3], each a place in the tree, the token to follow it, the request."""

    tokens: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    pairs_N3: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(slots=True)
class TreeRow:
    length: int  # tokens with padding
    trees: list[Tree]


class Packed(NamedTuple):
    """A batch. Pairs are listed by part: the rows of one device, `place` within its [B * T]."""

    tokens_BT: np.ndarray  # int32
    positions_BT: np.ndarray  # int32
    ends_BT: np.ndarray  # int32; 0 in padding, which nothing sees
    place: list[np.ndarray]  # int32 [N] a part
    target: list[np.ndarray]  # int32 [N] a part
    request: list[np.ndarray]  # int32 [N] a part


def trees(requests: Sequence[ScoreRequest]) -> list[Tree]:
    """The inputs of all requests, each as a path of some tree; contexts must not be empty."""
    inputs = [np.array([*c, *t[:-1]], np.uint32) for c, t in requests]
    keys = [tokens.astype(">u4").tobytes() for tokens in inputs]
    found: list[Tree] = []
    grown = _Growing()
    for i in sorted(range(len(requests)), key=keys.__getitem__):
        if grown.paths and not grown.takes(inputs[i]):
            found.append(grown.tree())
            grown = _Growing()
        grown.add(inputs[i], requests[i], i)
    return [*found, grown.tree()] if grown.paths else found


class _Growing:
    """A tree to which inputs are added in lexicographic order."""

    def __init__(self) -> None:
        self.paths = 0
        self.size = 0
        self._tokens: list[np.ndarray] = []
        self._starts: list[int] = []  # the position of the first token of each part
        self._closed: list[tuple[np.ndarray, int]] = []  # places, and where their subtree ends
        self._pairs: list[np.ndarray] = []
        self._input = np.zeros(0, np.uint32)
        self._path = np.zeros(0, np.int32)  # where the tokens of the last input lie

    def takes(self, tokens: np.ndarray) -> bool:
        shared = _common(self._input, tokens)
        limit = min(max(SHORT_TREE, SHARED * shared), max(LONG_TREE, len(tokens) * 5 // 4))
        return shared * SHARED >= len(tokens) and self.size + len(tokens) - shared <= limit

    def add(self, tokens: np.ndarray, request: ScoreRequest, number: int) -> None:
        shared = _common(self._input, tokens)
        if shared < len(self._path):
            self._closed.append((self._path[shared:], self.size))
        added = np.arange(self.size, self.size + len(tokens) - shared, dtype=np.int32)
        self._path = np.concatenate([self._path[:shared], added])
        self._tokens.append(tokens[shared:])
        self._starts.append(shared)
        self.size += len(added)
        self._input = tokens
        self.paths += 1
        targets = np.asarray(request.continuation, np.int32)
        at = self._path[len(request.context) - 1 :]
        self._pairs.append(np.stack([at, targets, np.full_like(at, number)], axis=1))

    def tree(self) -> Tree:
        ends = np.full(self.size, self.size, np.int32)
        for places, end in self._closed:
            ends[places] = end
        parts = zip(self._starts, self._tokens, strict=True)
        return Tree(
            np.concatenate(self._tokens).astype(np.int32),
            np.concatenate([np.arange(s, s + len(t), dtype=np.int32) for s, t in parts]),
            ends,
            np.concatenate(self._pairs),
        )


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two inputs begin with alike."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n


def row_length(tokens: int) -> int:
    """128, 256, ... 1024, then steps of a quarter: 1280, 1536, 1792, 2048, 2560, ...

    >>> row_length(1100)
    1280
    """
    step = max(128, 1 << max((tokens - 1).bit_length() - 3, 0))
    return -(-tokens // step) * step


def rows_a_batch(length: int, batch_tokens: int, parts: int, rows: int) -> int:
    """About `batch_tokens` tokens for each of `parts` devices; not many more than there are `rows`.

    >>> rows_a_batch(128, batch_tokens=4096, parts=2, rows=1000)
    64
    >>> rows_a_batch(128, batch_tokens=4096, parts=2, rows=5)
    8
    """
    needed = -(-rows // parts)
    return parts * min(max(1, batch_tokens // length), 1 << (needed - 1).bit_length())


def context_batches(
    lengths: Sequence[int], max_length: int, batch_tokens: int, parts: int = 1
) -> Iterator[tuple[list[int], int, int]]:
    """Contexts of these lengths to be continued, longest first: (which of them, rows, row length).

    >>> list(context_batches([3, 200, 5], max_length=512, batch_tokens=512))
    [([1, 2], 2, 256), ([0], 4, 128)]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        length = min(row_length(lengths[order[start]]), max_length)
        rows = rows_a_batch(length, batch_tokens, parts, len(order))
        yield order[start : start + rows], rows, length
        start += rows


def rows(trees: Sequence[Tree]) -> list[TreeRow]:
    """Longest tree first; each gap is filled with the longest tree that fits into it."""
    waiting = sorted(trees, key=len)
    lengths = [len(tree) for tree in waiting]
    packed = []
    while waiting:
        row = TreeRow(row_length(lengths[-1]), [])
        room = row.length
        while fitting := bisect.bisect_right(lengths, room):
            room -= lengths.pop(fitting - 1)
            row.trees.append(waiting.pop(fitting - 1))
        packed.append(row)
    return packed


def batches(rows: Sequence[TreeRow], batch_tokens: int, parts: int = 1) -> Iterator[Packed]:
    """Rows of one length, about `batch_tokens` tokens for each of `parts` devices at a time.

    Rows that do not fill a batch go on with the next longer ones, so that only the last batch has
    empty rows.
    """
    by_length: dict[int, list[TreeRow]] = {}
    for row in rows:
        by_length.setdefault(row.length, []).append(row)
    left: list[TreeRow] = []
    lengths = sorted(by_length)
    for length in lengths:
        waiting = by_length[length] + left
        size = rows_a_batch(length, batch_tokens, parts, len(rows))
        whole = len(waiting) if length == lengths[-1] else len(waiting) // size * size
        for start in range(0, whole, size):
            yield lay_out(waiting[start : start + size], (size, length), parts)
        left = waiting[whole:]


def lay_out(rows: Sequence[TreeRow], shape: tuple[int, int], parts: int = 1) -> Packed:
    """`rows` as arrays of `shape` [B, T]; what they do not fill is padding."""
    tokens_BT, positions_BT, ends_BT = (np.zeros(shape, np.int32) for _ in range(3))
    pairs: list[list[np.ndarray]] = [[np.zeros((0, 3), np.int32)] for _ in range(parts)]
    rows_a_part = shape[0] // parts
    # Dealt out like cards: the parts get as many rows each, give or take one.
    for number, row in enumerate(rows):
        part, turn = number % parts, number // parts
        b, start = part * rows_a_part + turn, 0
        for tree in row.trees:
            end = start + len(tree)
            tokens_BT[b, start:end] = tree.tokens
            positions_BT[b, start:end] = tree.positions
            ends_BT[b, start:end] = tree.ends + start
            offset = turn * shape[1] + start
            pairs[part].append(tree.pairs_N3 + np.array([offset, 0, 0], np.int32))
            start = end
    columns = [np.concatenate(part).T for part in pairs]
    place, target, request = ([column[k] for column in columns] for k in range(3))
    return Packed(tokens_BT, positions_BT, ends_BT, place, target, request)

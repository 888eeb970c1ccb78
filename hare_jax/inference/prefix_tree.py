"""Prefix trees of requests: a prefix that several requests share is read once.

The choices of an item share its context, and the items of a subject share their few-shot examples.
Inputs in lexicographic order are a tree walked depth first. Written in that order, a token sees
those tokens before it whose subtree is not finished yet, which takes one number per token:

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

# An input joins the tree before it if at least 1 / MIN_SHARED of its tokens are in it already, and
# the tree stays short, since attention within a row is quadratic. Trees with a longer common prefix
# may be longer, up to MIN_SHARED times its length.
MIN_SHARED = 8
SHORT_TREE, LONG_TREE = 512, 2048  # tokens


@dataclass(slots=True)
class Tree:
    """A prefix tree of requests.

    Attributes:
      tokens: int32 [T].
      positions: int32 [T], the depth of each token.
      ends: int32 [T], where the subtree of each token ends.
      pairs_N3: int32 [N, 3], each (place in the tree, token that follows it, index of the request).
    """

    tokens: np.ndarray
    positions: np.ndarray
    ends: np.ndarray
    pairs_N3: np.ndarray

    def __len__(self) -> int:
        """Returns the number of tokens."""
        return len(self.tokens)


@dataclass(slots=True)
class TreeRow:
    """Trees that share a row; `length`: of the row in tokens, including padding."""

    length: int
    trees: list[Tree]


class PackedTrees(NamedTuple):
    """A batch. Pairs are listed by device; `place` counts within the [B * T] tokens of its rows."""

    tokens_BT: np.ndarray  # int32
    positions_BT: np.ndarray  # int32
    ends_BT: np.ndarray  # int32; 0 in padding, which no token sees
    place: list[np.ndarray]  # int32 [N] per device
    target: list[np.ndarray]  # int32 [N] per device
    request: list[np.ndarray]  # int32 [N] per device


def trees(requests: Sequence[ScoreRequest]) -> list[Tree]:
    """Returns trees that contain the inputs of all requests; contexts must not be empty."""
    inputs = [np.array([*c, *t[:-1]], np.uint32) for c, t in requests]
    # Big-endian bytes compare like the sequences of token ids.
    keys = [tokens.astype(">u4").tobytes() for tokens in inputs]
    finished: list[Tree] = []
    builder = _TreeBuilder()
    for i in sorted(range(len(requests)), key=keys.__getitem__):
        if builder.num_paths and not builder.accepts(inputs[i]):
            finished.append(builder.tree())
            builder = _TreeBuilder()
        builder.add(inputs[i], requests[i], i)
    return [*finished, builder.tree()] if builder.num_paths else finished


class _TreeBuilder:
    """A tree to which inputs are added in lexicographic order."""

    def __init__(self) -> None:
        self.num_paths = 0
        self.size = 0
        self._tokens: list[np.ndarray] = []  # that each input added
        self._starts: list[int] = []  # the position of the first token that each input added
        self._closed: list[tuple[np.ndarray, int]] = []  # (places, where their subtree ends)
        self._pairs: list[np.ndarray] = []
        self._input = np.zeros(0, np.uint32)  # the last input
        self._path = np.zeros(0, np.int32)  # the places of its tokens

    def accepts(self, tokens: np.ndarray) -> bool:
        """Returns whether an input shares enough with the last one, and leaves the tree short."""
        shared = _common_prefix(self._input, tokens)
        limit = min(max(SHORT_TREE, MIN_SHARED * shared), max(LONG_TREE, len(tokens) * 5 // 4))
        return shared * MIN_SHARED >= len(tokens) and self.size + len(tokens) - shared <= limit

    def add(self, tokens: np.ndarray, request: ScoreRequest, number: int) -> None:
        """Adds the input of request `number` as a path of the tree."""
        shared = _common_prefix(self._input, tokens)
        if shared < len(self._path):
            # No later input continues the rest of the last path: its subtrees end here.
            self._closed.append((self._path[shared:], self.size))
        new_places = np.arange(self.size, self.size + len(tokens) - shared, dtype=np.int32)
        self._path = np.concatenate([self._path[:shared], new_places])
        self._tokens.append(tokens[shared:])
        self._starts.append(shared)
        self.size += len(new_places)
        self._input = tokens
        self.num_paths += 1
        # The last token of the context and all but the last of the continuation predict a target.
        targets = np.asarray(request.continuation, np.int32)
        places = self._path[len(request.context) - 1 :]
        self._pairs.append(np.stack([places, targets, np.full_like(places, number)], axis=1))

    def tree(self) -> Tree:
        """Returns the tree of all inputs so far."""
        ends = np.full(self.size, self.size, np.int32)  # of the last path
        for places, end in self._closed:
            ends[places] = end
        added = zip(self._starts, self._tokens, strict=True)
        return Tree(
            np.concatenate(self._tokens).astype(np.int32),
            np.concatenate([np.arange(s, s + len(t), dtype=np.int32) for s, t in added]),
            ends,
            np.concatenate(self._pairs),
        )


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the length of the common prefix of two inputs, in tokens."""
    n = min(len(a), len(b))
    differs = a[:n] != b[:n]
    return int(differs.argmax()) if differs.any() else n


def row_length(tokens: int) -> int:
    """Returns the length of a row for `tokens` tokens.

    Lengths are 128, 256, ... 1024, then steps of a quarter: 1280, 1536, 1792, 2048, 2560, ...
    There are few of them because each is a program to compile.

    >>> row_length(1100)
    1280
    """
    # An eighth of the next power of two: 128 up to 1024 tokens, 256 up to 2048, ...
    step = max(128, 1 << max((tokens - 1).bit_length() - 3, 0))
    return -(-tokens // step) * step


def rows_per_batch(length: int, batch_tokens: int, num_devices: int, num_rows: int) -> int:
    """Returns the rows of a batch: about `batch_tokens` tokens per device.

    If there are only `num_rows`, a device gets the next power of two of what it needs.

    >>> rows_per_batch(128, batch_tokens=4096, num_devices=2, num_rows=1000)
    64
    >>> rows_per_batch(128, batch_tokens=4096, num_devices=2, num_rows=5)
    8

    Args:
      length: of a row in tokens.
      batch_tokens: per device.
      num_devices: over which rows are distributed.
      num_rows: that there are.
    """
    needed = -(-num_rows // num_devices)
    return num_devices * min(max(1, batch_tokens // length), 1 << (needed - 1).bit_length())


def context_batches(
    lengths: Sequence[int], max_length: int, batch_tokens: int, num_devices: int = 1
) -> Iterator[tuple[list[int], int, int]]:
    """Yields batches of contexts to continue, longest first.

    >>> list(context_batches([3, 200, 5], max_length=512, batch_tokens=512))
    [([1, 2], 2, 256), ([0], 4, 128)]

    Args:
      lengths: of each context, in tokens.
      max_length: of a row.
      batch_tokens: per device.
      num_devices: over which rows are distributed.

    Yields:
      (indices of the contexts, rows, row length)
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        length = min(row_length(lengths[order[start]]), max_length)
        rows = rows_per_batch(length, batch_tokens, num_devices, len(order))
        yield order[start : start + rows], rows, length
        start += rows


def pack_rows(trees: Sequence[Tree]) -> list[TreeRow]:
    """Packs trees into rows: the longest first, and into each gap the longest that fits."""
    remaining = sorted(trees, key=len)
    lengths = [len(tree) for tree in remaining]
    rows = []
    while remaining:
        row = TreeRow(row_length(lengths[-1]), [])
        free = row.length
        # `lengths` is sorted, so the last that is at most `free` is the longest tree that fits.
        while num_fitting := bisect.bisect_right(lengths, free):
            free -= lengths.pop(num_fitting - 1)
            row.trees.append(remaining.pop(num_fitting - 1))
        rows.append(row)
    return rows


def batches(
    rows: Sequence[TreeRow], batch_tokens: int, num_devices: int = 1
) -> Iterator[PackedTrees]:
    """Yields batches of rows of one length, with about `batch_tokens` tokens per device.

    Rows that do not fill a batch are padded to the next length, so that only the last batch has
    empty rows.
    """
    by_length: dict[int, list[TreeRow]] = {}
    for row in rows:
        by_length.setdefault(row.length, []).append(row)
    left_over: list[TreeRow] = []
    lengths = sorted(by_length)
    for length in lengths:
        remaining = by_length[length] + left_over
        size = rows_per_batch(length, batch_tokens, num_devices, len(rows))
        is_last = length == lengths[-1]
        num_batched = len(remaining) if is_last else len(remaining) // size * size
        for start in range(0, num_batched, size):
            yield lay_out(remaining[start : start + size], (size, length), num_devices)
        left_over = remaining[num_batched:]


def lay_out(rows: Sequence[TreeRow], shape: tuple[int, int], num_devices: int = 1) -> PackedTrees:
    """Returns `rows` as arrays of `shape` [B, T]; what they do not fill is padding."""
    tokens_BT, positions_BT, ends_BT = (np.zeros(shape, np.int32) for _ in range(3))
    pairs: list[list[np.ndarray]] = [[np.zeros((0, 3), np.int32)] for _ in range(num_devices)]
    rows_per_device = shape[0] // num_devices
    for number, row in enumerate(rows):
        # Rows are dealt like cards, so that the numbers of rows of any two devices differ by one
        # at most. Device d has the rows d * rows_per_device ... of the batch.
        device, row_on_device = number % num_devices, number // num_devices
        b, start = device * rows_per_device + row_on_device, 0
        for tree in row.trees:
            end = start + len(tree)
            tokens_BT[b, start:end] = tree.tokens
            positions_BT[b, start:end] = tree.positions
            ends_BT[b, start:end] = tree.ends + start
            # From places in the tree to places in the flat [B * T] tokens of the device.
            offset = row_on_device * shape[1] + start
            pairs[device].append(tree.pairs_N3 + np.array([offset, 0, 0], np.int32))
            start = end
    columns = [np.concatenate(of_device).T for of_device in pairs]
    place, target, request = ([column[k] for column in columns] for k in range(3))
    return PackedTrees(tokens_BT, positions_BT, ends_BT, place, target, request)

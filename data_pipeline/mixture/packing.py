"""Packs documents into rows of a fixed length by best-fit decreasing.

A document that fits into a row is not cut. A longer one is cut into segments, and each later
segment begins with the last token of the one before it, so that every token but a document's first
is predicted exactly once. Segments are then placed in order of decreasing length, each into the
fullest row that has space for it ("Fewer Truncations Improve Language Modeling", arXiv 2404.10830).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Segment = tuple[int, int, int]  # number of the document, offset in it, length: all in tokens
Row = list[Segment]


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[Row]:
    """Returns rows of segments; the lengths of a row's segments sum to at most `capacity`.

    The same lengths give the same rows.

    Raises:
      ValueError: a length is below 1, or the capacity is below 2.

    >>> pack([3, 9, 2], capacity=5)
    [[(1, 0, 5)], [(1, 4, 5)], [(0, 0, 3), (2, 0, 2)]]
    """
    segments = cut(lengths, capacity)
    rows: list[Row] = []
    rows_by_space: list[list[int]] = [[] for _ in range(capacity + 1)]  # space left, in tokens
    spaces = 0  # a bit set: bit n is 1 if a row has space for exactly n more tokens
    order = np.argsort([-length for _, _, length in segments], kind="stable")
    for index in order.tolist():
        segment = segments[index]
        length = segment[2]
        large_enough = spaces >> length
        if large_enough:
            # x & -x isolates the lowest set bit: the smallest space that is large enough.
            space = length + (large_enough & -large_enough).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
            rows[row].append(segment)
        else:
            space, row = capacity, len(rows)
            rows.append([segment])
        space -= length
        if space:
            rows_by_space[space].append(row)
            spaces |= 1 << space
    return rows


def cut(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[Segment]:
    """Cuts documents into segments of at most `capacity` tokens that overlap by one token.

    >>> cut([3, 9], capacity=5)
    [(0, 0, 3), (1, 0, 5), (1, 4, 5)]
    """
    if capacity < 2:
        raise ValueError(f"capacity: got {capacity}, expected 2 or more (an input and a target)")
    segments = []
    for document, length in enumerate(np.asarray(lengths, np.int64).tolist()):
        if length < 1:
            raise ValueError(f"document {document} has {length} tokens, expected 1 or more")
        segments.append((document, 0, min(length, capacity)))
        for offset in range(capacity - 1, length - 1, capacity - 1):
            segments.append((document, offset, min(length - offset, capacity)))
    return segments


def padding_share(rows: Sequence[Row], capacity: int) -> float:
    """Returns the share of positions without a token, in [0, 1]; 0 if there are no rows."""
    filled = sum(length for row in rows for _, _, length in row)
    return 1 - filled / (capacity * len(rows)) if rows else 0.0

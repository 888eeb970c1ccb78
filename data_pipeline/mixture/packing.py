"""Documents into rows of a fixed length: best-fit packing.

A document that fits into a row stays whole. A longer one is cut, and each later piece begins with
the last token of the piece before it, so that every token but a document's first is predicted
exactly once. Pieces are then placed longest first, each into the fullest row that still has room
for it (best-fit decreasing; "Fewer Truncations Improve Language Modeling", arXiv 2404.10830).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Segment = tuple[int, int, int]  # number of the document, offset in it, length: all in tokens
Row = list[Segment]


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[Row]:
    """Rows of segments; the lengths of a row's segments sum to at most `capacity`.

    The same lengths give the same rows. Raises ValueError for a length < 1 or a capacity < 2.

    >>> pack([3, 9, 2], capacity=5)
    [[(1, 0, 5)], [(1, 4, 5)], [(0, 0, 3), (2, 0, 2)]]
    """
    segments = cut(lengths, capacity)
    rows: list[Row] = []
    room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by how many tokens still fit
    rooms = 0  # bit n is set where room[n] has a row: the least n is one shift away
    order = np.argsort([-length for _, _, length in segments], kind="stable")
    for index in order.tolist():
        segment = segments[index]
        length = segment[2]
        enough = rooms >> length
        if enough:
            left = length + (enough & -enough).bit_length() - 1
            row = room[left].pop()
            if not room[left]:
                rooms ^= 1 << left
            rows[row].append(segment)
        else:
            left, row = capacity, len(rows)
            rows.append([segment])
        left -= length
        if left:
            room[left].append(row)
            rooms |= 1 << left
    return rows


def cut(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[Segment]:
    """Documents as segments of at most `capacity` tokens, in order, overlapping by one token.

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
    """The share of all positions that no segment fills; 0 where there are no rows."""
    filled = sum(length for row in rows for _, _, length in row)
    return 1 - filled / (capacity * len(rows)) if rows else 0.0

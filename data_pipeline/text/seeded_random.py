"""Random numbers that follow from names alone: the same on every machine and in every process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def hash64(seed: int, *names: str) -> int:
    """64 bits of a hash of the seed and the names."""
    key = "\0".join([str(seed), *names]).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def seeded(seed: int, *names: str) -> random.Random:
    return random.Random(hash64(seed, *names))


def shuffled(values: Sequence[T], random_: random.Random) -> Iterator[T]:
    """All the values, shuffled as they are asked for: of thousands, the first three are wanted."""
    left = list(values)
    while left:
        k = random_.randrange(len(left))
        left[k], left[-1] = left[-1], left[k]
        yield left.pop()

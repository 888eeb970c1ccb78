"""Random numbers derived from a seed and names, equal on every machine and in every process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def hash64(seed: int, *names: str) -> int:
    """Returns a 64-bit BLAKE2b hash of the seed and the names."""
    key = "\0".join([str(seed), *names]).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def seeded(seed: int, *names: str) -> random.Random:
    """Returns a random number generator seeded with `hash64(seed, *names)`."""
    return random.Random(hash64(seed, *names))


def shuffled(values: Sequence[T], random_: random.Random) -> Iterator[T]:
    """Yields the values in random order.

    The order is drawn lazily, one value at a time: callers with thousands of values often use only
    the first three.
    """
    remaining = list(values)
    while remaining:
        # One step of Fisher-Yates: swap a random value to the end and remove it in O(1).
        k = random_.randrange(len(remaining))
        remaining[k], remaining[-1] = remaining[-1], remaining[k]
        yield remaining.pop()

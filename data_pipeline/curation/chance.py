"""Random numbers that follow from names alone: the same on every machine and in every process."""

from __future__ import annotations

import random
from hashlib import blake2b


def number(seed: int, *names: str) -> int:
    """64 bits of a hash of the seed and the names."""
    key = "\0".join([str(seed), *names]).encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def seeded(seed: int, *names: str) -> random.Random:
    return random.Random(number(seed, *names))

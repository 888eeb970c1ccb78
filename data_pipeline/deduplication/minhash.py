"""MinHash signatures as datasketch's scheme "affine32" defines them, for many documents at once.

Bit-identical to `datasketch.MinHash(num_perm, seed, hashfunc, scheme="affine32")` and some twenty
times faster: one permutation is applied to the n-grams of all documents of a batch before the
next, so each step is one numpy call on an array that stays in the cache.

Shape letters: N documents, P permutations, B bands, R rows of a band, S n-grams of all documents.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.config import Deduplication
from data_pipeline.text.ngrams import I64, U64

U32 = NDArray[np.uint32]

_CHUNK = 1 << 16  # n-grams permuted at once: 256 KiB, which fit into the level-2 cache


def minhash(hashes_S: U64, offsets_N: I64, config: Deduplication) -> U32:
    """Returns datasketch's MinHash signatures of documents, given by their n-gram hashes.

    Value p of a document is the minimum of a_p * mix(h) + b_p mod 2^32 over its n-grams, where h is
    the upper half of the n-gram's hash, as `datasketch.MinHash(scheme="affine32")` computes it for
    these h.

    Args:
      hashes_S: the n-grams of all documents.
      offsets_N: document n has hashes_S[offsets_N[n]:offsets_N[n + 1]], at least one.
      config: the number of permutations and their seed.

    Returns:
      uint32 [N, P].
    """
    assert (np.diff(offsets_N) > 0).all(), "a document without n-grams has no signature"
    a_P, b_P = _permutations(config.permutations, config.seed)
    mixed_S = _mix32((hashes_S >> np.uint64(32)).astype(np.uint32))
    out_PN = np.full((config.permutations, len(offsets_N) - 1), 0xFFFFFFFF, np.uint32)
    for begin in range(0, len(mixed_S), _CHUNK):
        chunk = mixed_S[begin : begin + _CHUNK]
        # The documents that this chunk has n-grams of, and where in it those of each begin.
        first, last = np.searchsorted(offsets_N, [begin, begin + len(chunk) - 1], "right") - 1
        begins = np.maximum(offsets_N[first : last + 1] - begin, 0)
        permuted = np.empty_like(chunk)
        for a, b, out_N in zip(a_P, b_P, out_PN, strict=True):
            # In place, in uint32: overflow is the modulus 2^32.
            np.multiply(chunk, a, out=permuted)
            np.add(permuted, b, out=permuted)
            minima = np.minimum.reduceat(permuted, begins)
            # A document may continue from the chunk before.
            np.minimum(out_N[first : last + 1], minima, out=out_N[first : last + 1])
    return np.ascontiguousarray(out_PN.T)


def band_keys(signature_NP: U32, config: Deduplication) -> U64:
    """Returns uint64 [N, B]: one key per band; equal bands have equal keys."""
    used = config.bands * config.rows  # further permutations belong to no band
    values_NBR = signature_NP[:, :used].reshape(-1, config.bands, config.rows).astype(np.uint64)
    key_NB = np.zeros(values_NBR.shape[:2], np.uint64)
    for r in range(config.rows):
        # Multiply and shift after each value: the key depends on the order of the values.
        key_NB = (key_NB ^ values_NBR[:, :, r]) * np.uint64(0x9E3779B97F4A7C15)
        key_NB ^= key_NB >> np.uint64(29)
    return key_NB


@cache
def _permutations(permutations: int, seed: int) -> tuple[U32, U32]:
    """Returns a_P (odd) and b_P of datasketch's scheme "affine32".

    They are drawn from the same generator, numpy's legacy RandomState, in the same order.
    """
    random = np.random.RandomState(seed)
    a_P = random.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b_P = random.randint(0, 1 << 32, permutations, dtype=np.uint32)
    return a_P, b_P


def _mix32(x: U32) -> U32:
    """Returns MurmurHash3's 32-bit finalizer of x, which datasketch applies before it permutes."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return x

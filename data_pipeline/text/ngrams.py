"""Words of texts and hashes of their n-grams, many documents at once. Shared by dedup and rules.

A *word* is a maximal run of letters and digits after NFKC, with case folded character by character
and with combining marks and format characters (soft hyphens, joiners) taken out; everything else
separates. So layout, punctuation and letter case do not matter:

>>> words(["Hares (Lepus) are FAST;\\n\\nhares hop."]).offsets_D
array([0, 6])
>>> words(["hares hop"]).hashes_W.tolist() == words(["HARES -- hop!"]).hashes_W.tolist()
True

Scripts without spaces (Chinese, Thai) give one word for each run, so their n-grams are coarse.

Everything per character is one `bytes.translate` and two numpy comparisons over a buffer of all
texts; everything else is per word: a word is read as up to four little-endian 8-byte integers.

Shape letters: D texts (D + 1 for offsets), W words of all texts, S n-grams of all texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# Odd constants of splitmix64 (Steele et al. 2014) and the golden ratio.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_BYTES = 8  # bytes of one load
_STEM = 6  # bytes of a word that tell it from others
_LONG_WORD = 32  # bytes; longer words (hexadecimal, base64) are hashed by xxh3
_SPACE = 0x20
_LOW_BYTES = np.array([(1 << (8 * k)) - 1 for k in range(_BYTES + 1)], np.uint64)

# ASCII letters to lower case, digits as they are, the rest to a space; bytes of folded text stay.
_ASCII = bytes(
    ord(chr(b).lower()) if chr(b).isalnum() else _SPACE if b < 0x80 else b for b in range(0x80)
) + bytes(range(0x80, 0x100))

# Code points that are letters, marks or format characters; the others stand for a space.
_LETTERS = (range(0x323B0), range(0xE0000, 0xE01F0))


@dataclass(slots=True)
class Words:
    """`hashes_W[offsets_D[d]:offsets_D[d + 1]]` are the words of text d, in order."""

    hashes_W: U64
    offsets_D: I64  # [D + 1]


@dataclass(slots=True)
class Ngrams:
    """`hashes_S[offsets_D[d]:offsets_D[d + 1]]` are the n-grams of text d, in order, with repeats.

    `starts_S` is the index in `Words.hashes_W` of each n-gram's first word.
    """

    hashes_S: U64
    starts_S: I64
    offsets_D: I64  # [D + 1]


class HasText(Protocol):
    text: str


T = TypeVar("T", bound=HasText)


def batches(documents: Iterable[T], characters: int = 1 << 18) -> Iterator[list[T]]:
    """Lists of documents with about `characters` of text in all, which keeps arrays in the cache.

    A longer document is a list of its own.
    """
    batch: list[T] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def words(texts: Sequence[str]) -> Words:
    """64-bit hashes of the words of all texts."""
    buffer, first_W, last_W, offsets_D = _cut(texts)
    return Words(hash_words(buffer, first_W, last_W), offsets_D)


def stems(texts: Sequence[str]) -> Words:
    """As `words`, but of each word only its beginning, so that its inflections are one.

    A final "s" and what follows the first six letters do not count; numbers have eight digits.

    >>> one, other = stems(["planted 12 tomatoes"]), stems(["Planters plant 12: a tomato"])
    >>> len(set(one.hashes_W.tolist()) & set(other.hashes_W.tolist()))
    3
    """
    buffer, first_W, last_W, offsets_D = _cut(texts)
    bytes_N = np.frombuffer(buffer, np.uint8)
    length_W = last_W - first_W
    length_W = length_W - ((bytes_N[last_W - 1] == ord("s")) & (length_W > 3))
    first_byte_W = bytes_N[first_W]
    is_number_W = (first_byte_W >= ord("0")) & (first_byte_W <= ord("9"))
    length_W = np.minimum(length_W, np.where(is_number_W, _BYTES, _STEM))
    return Words(hash_words(buffer, first_W, first_W + length_W), offsets_D)


def _cut(texts: Sequence[str]) -> tuple[bytes, I64, I64, I64]:
    """(buffer, first and last byte of each word, offsets of the texts' words)."""
    folded = [_fold(text) for text in texts]
    # A space on both sides closes the first and last word; eight spaces let every load end inside.
    buffer = b" ".join([b"", *folded, b" " * _BYTES]).translate(_ASCII)
    bytes_N = np.frombuffer(buffer, np.uint8)
    is_word_N = bytes_N != _SPACE
    edges = np.flatnonzero(is_word_N[1:] != is_word_N[:-1]) + 1
    first_W, last_W = edges[0::2], edges[1::2]
    text_first_D = np.cumsum([1, *(len(text) + 1 for text in folded)])
    return buffer, first_W, last_W, np.searchsorted(first_W, text_first_D)


def ngrams(words: Words, n: int) -> Ngrams:
    """Hashes of all runs of n words of each text; a text of fewer words gives one run of them all.

    The hash of words w_0 .. w_(n-1) is mix(sum_i w_i * G^(n-1-i) mod 2^64), so it depends on
    nothing but the words. A text without words gives none.
    """
    if n < 1:
        raise ValueError(f"n-grams have at least one word, got n = {n}")
    first_D, last_D = words.offsets_D[:-1], words.offsets_D[1:]
    num_words_D = last_D - first_D
    hashes_W = _windows(words.hashes_W, n)
    # The last n - 1 words of a text begin no n-gram of it ...
    begins_W = np.ones(len(hashes_W), bool)
    tail = last_D[:, None] - np.arange(1, n)
    begins_W[tail[tail >= first_D[:, None]]] = False
    # ... but a text shorter than n is one n-gram, at its first word.
    for m in np.unique(num_words_D[(num_words_D > 0) & (num_words_D < n)]).tolist():
        at = first_D[num_words_D == m]
        begins_W[at] = True
        hashes_W[at] = ngrams_at(words, at, m)
    num_ngrams_D = np.where(num_words_D < n, np.minimum(num_words_D, 1), num_words_D - n + 1)
    starts_S = np.flatnonzero(begins_W)
    return Ngrams(hashes_W[starts_S], starts_S, np.concatenate([[0], np.cumsum(num_ngrams_D)]))


def ngrams_at(words: Words, starts_S: I64, n: int) -> U64:
    """The hashes that `ngrams` gives for the n-grams that begin at these words."""
    x = words.hashes_W[starts_S]
    for i in range(1, n):
        x = x * np.uint64(_GOLDEN) + words.hashes_W[starts_S + i]
    return mix(x)


def excerpt(text: str, first: int, count: int, most: int = 200) -> str:
    """Words `first` .. `first + count - 1` of the text as it is written there (after NFKC).

    >>> excerpt("Hares (Lepus) are FAST;\\n\\nhares hop.", 1, 3)
    'Lepus) are FAST'
    """
    plain = _plain(text)
    found = list(islice(_WORD.finditer(plain), first, first + count))
    if not found:
        return ""
    return " ".join(plain[found[0].start() : found[-1].end()].split())[:most]


_WORD = re.compile(r"[^\W_]+")


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    return "".join(c for c in text if c < "\x80" or not _is_ignored(c))


def _is_ignored(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me", "Cf")


def _fold(text: str) -> bytes:
    """UTF-8 with folded letters; in non-ASCII text every non-word character becomes a space."""
    if text.isascii():
        return text.encode()
    text = unicodedata.normalize("NFKC", text)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    folded = _folding_table().take(codes, mode="clip")
    if not folded.all():
        folded = folded[folded != 0]
    return folded.tobytes().decode("utf-32-le").encode()


@cache
def _folding_table() -> NDArray[np.uint32]:
    """uint32 [code point] -> folded code point, space, or 0 for what is taken out. Takes 30 ms."""

    def fold(code: int) -> int:
        character = chr(code)
        if character.isalnum():
            lower = character.lower()
            return ord(lower) if len(lower) == 1 else code
        return 0 if code >= 0x80 and _is_ignored(character) else _SPACE

    table = np.full(_LETTERS[-1].stop + 1, _SPACE, np.uint32)  # codes beyond it are clipped to it
    for codes in _LETTERS:
        table[codes.start : codes.stop] = np.fromiter(map(fold, codes), np.uint32, len(codes))
    return table


def hash_words(buffer: bytes, first_W: I64, last_W: I64) -> U64:
    """Of the bytes of words without NUL; after the beginning of the last, 8 bytes can be read."""
    length_W = last_W - first_W
    at_every_byte = np.ndarray(len(buffer) - _BYTES + 1, "<u8", buffer, strides=(1,))
    x_W = at_every_byte[first_W] & _LOW_BYTES.take(length_W, mode="clip")
    for begin in range(_BYTES, _LONG_WORD, _BYTES):
        some = np.flatnonzero(length_W > begin)
        if not len(some):
            break
        rest = at_every_byte[first_W[some] + begin]
        rest &= _LOW_BYTES.take(length_W[some] - begin, mode="clip")
        x_W[some] = mix(x_W[some]) + rest
    for w in np.flatnonzero(length_W > _LONG_WORD).tolist():
        x_W[w] = xxhash.xxh3_64_intdigest(buffer[first_W[w] : last_W[w]])
    return mix(x_W)


def mix(x: U64) -> U64:
    """The finaliser of splitmix64: a bijection in which every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x ^= x >> np.uint64(27)
    x *= _MIX_2
    x ^= x >> np.uint64(31)
    return x


def _windows(hashes_W: U64, n: int) -> U64:
    """The n-gram hash at every word as if all texts were one; the last n - 1 are meaningless.

    Runs of 2m words come from runs of m words, so n = 13 costs five passes and not twelve.
    """
    num_words = len(hashes_W)
    power_W, m = hashes_W, 1  # runs of m words, m = 1, 2, 4 ...
    sum_W, have = np.zeros(num_words, np.uint64), 0  # runs of the `have` words taken so far
    while True:
        if n & m:
            sum_W = _join(sum_W, have, power_W, m) if have else power_W
            have += m
        if have == n:
            break
        power_W = _join(power_W, m, power_W, m)
        m *= 2
    return mix(sum_W)


def _join(left_W: U64, left_words: int, right_W: U64, right_words: int) -> U64:
    """Runs of `left_words + right_words` words out of the runs of each."""
    out = left_W * np.uint64(pow(_GOLDEN, right_words, 1 << 64))
    out[: max(len(out) - left_words, 0)] += right_W[left_words:]
    return out

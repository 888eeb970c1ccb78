r"""Vectorized hashes of the words and n-grams of many texts, shared by all stages.

A *word* is a maximal run of letters and digits after Unicode NFKC normalization. Case is folded per
character. Combining marks and format characters (soft hyphens, joiners) are removed; every other
character separates words. Layout, punctuation and letter case therefore have no effect:

>>> words(["Hares (Lepus) are FAST;\n\nhares hop."]).offsets_D
array([0, 6])
>>> words(["hares hop"]).hashes_W.tolist() == words(["HARES -- hop!"]).hashes_W.tolist()
True

In scripts without spaces (Chinese, Thai) a whole run of characters is one word, so their n-grams
are coarse.

Speed: the work per character is one `bytes.translate` and two numpy comparisons over a buffer of
all texts. Everything else is per word; a word is read as up to four little-endian 8-byte integers.

Shape letters: D texts (D + 1 for offsets), N bytes of the buffer, W words of all texts, S n-grams
of all texts.
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

# The odd multipliers of splitmix64 (Steele et al. 2014): 2^64 / golden ratio, and those of its
# finalizer.
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOAD_BYTES = 8  # read at once as one unsigned 64-bit integer
_STEM_BYTES = 6  # of a word that distinguish it from others in `stems`
_MAX_WORD_BYTES = 32  # longer words (hexadecimal, base64) are hashed by xxh3
_SPACE = 0x20
# _LOW_BYTES_MASK[k] keeps the k low bytes, which in little-endian order are the first k bytes.
_LOW_BYTES_MASK = np.array([(1 << (8 * k)) - 1 for k in range(_LOAD_BYTES + 1)], np.uint64)

# Translation of bytes: ASCII letters to lower case, digits unchanged, other ASCII to a space.
# Bytes from 0x80 on belong to text that `_fold` has folded already and are unchanged.
_ASCII_FOLDING = bytes(
    ord(chr(b).lower()) if chr(b).isalnum() else _SPACE if b < 0x80 else b for b in range(0x80)
) + bytes(range(0x80, 0x100))

# Ranges of code points that hold letters, marks and format characters; all others are separators.
_LETTER_RANGES = (range(0x323B0), range(0xE0000, 0xE01F0))


def halves(hashes: Sequence[int]) -> U64:
    """Returns uint64 [N, 2]: the high and the low half of each 128-bit hash.

    >>> halves([(7 << 64) + 5]).tolist()
    [[7, 5]]
    """
    low_half = 0xFFFFFFFFFFFFFFFF
    return np.array([(h >> 64, h & low_half) for h in hashes], np.uint64).reshape(-1, 2)


@dataclass(slots=True)
class Words:
    """Hashes of the words of D texts; text d has `hashes_W[offsets_D[d]:offsets_D[d + 1]]`."""

    hashes_W: U64
    offsets_D: I64  # [D + 1]


@dataclass(slots=True)
class Ngrams:
    """Hashes of the n-grams of D texts, in text order and with repeats.

    Text d has `hashes_S[offsets_D[d]:offsets_D[d + 1]]`. `starts_S` is the index in
    `Words.hashes_W` of the first word of each n-gram.
    """

    hashes_S: U64
    starts_S: I64
    offsets_D: I64  # [D + 1]


class HasText(Protocol):
    """An object with a text, such as a document."""

    text: str


T = TypeVar("T", bound=HasText)


def batches(documents: Iterable[T], characters: int = 1 << 18) -> Iterator[list[T]]:
    """Yields lists of consecutive documents, each list with about `characters` characters of text.

    The default keeps the arrays of one batch in the processor's cache. The document that reaches
    the limit is the last of its list.
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
    """Returns 64-bit hashes of the words of all texts."""
    buffer, first_W, end_W, offsets_D = _split_words(texts)
    return Words(hash_words(buffer, first_W, end_W), offsets_D)


def stems(texts: Sequence[str]) -> Words:
    """Returns hashes of word stems: like `words`, but inflections of a word have equal hashes.

    A stem is the first six bytes of a word, without a final "s" of a word of more than three
    bytes. Of a number the first eight digits count.

    >>> one, other = stems(["planted 12 tomatoes"]), stems(["Planters plant 12: a tomato"])
    >>> len(set(one.hashes_W.tolist()) & set(other.hashes_W.tolist()))
    3
    """
    buffer, first_W, end_W, offsets_D = _split_words(texts)
    bytes_N = np.frombuffer(buffer, np.uint8)
    length_W = end_W - first_W
    # Subtracting the boolean shortens a word with a final "s" by one byte.
    length_W = length_W - ((bytes_N[end_W - 1] == ord("s")) & (length_W > 3))
    first_byte_W = bytes_N[first_W]
    is_number_W = (first_byte_W >= ord("0")) & (first_byte_W <= ord("9"))
    length_W = np.minimum(length_W, np.where(is_number_W, _LOAD_BYTES, _STEM_BYTES))
    return Words(hash_words(buffer, first_W, first_W + length_W), offsets_D)


def _split_words(texts: Sequence[str]) -> tuple[bytes, I64, I64, I64]:
    """Folds the texts into one buffer and finds their words.

    Returns:
      The buffer of N bytes, in which words are separated by spaces; the index of the first byte of
      each word [W]; the index after its last byte [W]; the word offsets of the texts [D + 1].
    """
    folded = [_fold(text) for text in texts]
    # b" " + text_0 + b" " + text_1 + ... + b" " + 8 spaces. The space on both sides delimits the
    # first and the last word; with 8 spaces at the end every 8-byte load stays in the buffer.
    buffer = b" ".join([b"", *folded, b" " * _LOAD_BYTES]).translate(_ASCII_FOLDING)
    bytes_N = np.frombuffer(buffer, np.uint8)
    is_word_N = bytes_N != _SPACE
    # Positions where the buffer changes between space and word: alternately a first byte and an
    # end, because the buffer begins and ends with a space.
    edges = np.flatnonzero(is_word_N[1:] != is_word_N[:-1]) + 1
    first_W, end_W = edges[0::2], edges[1::2]
    # Text d begins at 1 + sum of (length + 1 space) of the texts before it.
    text_first_D = np.cumsum([1, *(len(text) + 1 for text in folded)])
    return buffer, first_W, end_W, np.searchsorted(first_W, text_first_D)


def ngrams(words: Words, n: int) -> Ngrams:
    """Returns the hashes of all n-grams of each text.

    A text of fewer than n words gives one n-gram of all its words; a text without words gives none.
    The hash of the words w_0 .. w_(n-1) is mix(sum_i w_i * G^(n-1-i) mod 2^64) with the odd
    constant G, so it depends only on the words.

    Raises:
      ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n: got {n}, expected an n-gram length of 1 or more")
    first_D, last_D = words.offsets_D[:-1], words.offsets_D[1:]
    num_words_D = last_D - first_D
    hashes_W = _windows(words.hashes_W, n)
    # An n-gram begins at every word except the last n - 1 words of each text ...
    begins_ngram_W = np.ones(len(hashes_W), bool)
    tail = last_D[:, None] - np.arange(1, n)  # [D, n - 1]; may reach into the text before
    begins_ngram_W[tail[tail >= first_D[:, None]]] = False
    # ... and at the first word of a text of m < n words, which is one n-gram of m words.
    for m in np.unique(num_words_D[(num_words_D > 0) & (num_words_D < n)]).tolist():
        starts = first_D[num_words_D == m]
        begins_ngram_W[starts] = True
        hashes_W[starts] = ngrams_at(words, starts, m)
    num_ngrams_D = np.where(num_words_D < n, np.minimum(num_words_D, 1), num_words_D - n + 1)
    starts_S = np.flatnonzero(begins_ngram_W)
    return Ngrams(hashes_W[starts_S], starts_S, np.concatenate([[0], np.cumsum(num_ngrams_D)]))


def ngrams_at(words: Words, starts_S: I64, n: int) -> U64:
    """Returns the hashes that `ngrams` computes for the n-grams that begin at the given words.

    Args:
      words: the words of all texts.
      starts_S: int64 [S], indices into `words.hashes_W`; n words follow from each.
      n: the number of words of each n-gram.
    """
    x_S = words.hashes_W[starts_S]
    for i in range(1, n):  # Horner's rule for sum_i w_i * G^(n-1-i); uint64 wraps modulo 2^64
        x_S = x_S * np.uint64(_GOLDEN) + words.hashes_W[starts_S + i]
    return mix(x_S)


def excerpt(text: str, first: int, count: int, max_characters: int = 200) -> str:
    r"""Returns consecutive words of a text as they are written there (after NFKC).

    Args:
      text: the text.
      first: the index of the first word, counted as in `words`.
      count: the number of words.
      max_characters: a longer excerpt is cut.

    >>> excerpt("Hares (Lepus) are FAST;\n\nhares hop.", 1, 3)
    'Lepus) are FAST'
    """
    normalized = _without_ignored_characters(text)
    matches = list(islice(_WORD.finditer(normalized), first, first + count))
    if not matches:
        return ""
    return " ".join(normalized[matches[0].start() : matches[-1].end()].split())[:max_characters]


_WORD = re.compile(r"[^\W_]+")


def _without_ignored_characters(text: str) -> str:
    """Returns the text in NFKC without combining marks and format characters."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    return "".join(c for c in text if c < "\x80" or not _is_ignored(c))


def _is_ignored(character: str) -> bool:
    """Returns whether a character is a combining mark or a format character."""
    return unicodedata.category(character) in ("Mn", "Me", "Cf")


def _fold(text: str) -> bytes:
    """Returns the text in UTF-8, with non-ASCII text folded to lower-case words and spaces.

    ASCII text is unchanged; `_ASCII_FOLDING` folds it later, in one pass over all texts.
    """
    if text.isascii():
        return text.encode()
    text = unicodedata.normalize("NFKC", text)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    folded = _folding_table().take(codes, mode="clip")
    if not folded.all():  # 0 marks a removed character
        folded = folded[folded != 0]
    return folded.tobytes().decode("utf-32-le").encode()


@cache
def _folding_table() -> NDArray[np.uint32]:
    """Returns the folded code point of each code point, computed once per process in 30 ms.

    Returns:
      uint32 [code point]: a lower-case letter or digit, a space for a separator, or 0 for a
      character that is removed.
    """

    def fold(code: int) -> int:
        character = chr(code)
        if character.isalnum():
            lower = character.lower()
            # A character whose lower case has several code points is left as it is.
            return ord(lower) if len(lower) == 1 else code
        return 0 if code >= 0x80 and _is_ignored(character) else _SPACE

    # The last entry is a space; `take(mode="clip")` maps every code point beyond the table to it.
    table = np.full(_LETTER_RANGES[-1].stop + 1, _SPACE, np.uint32)
    for codes in _LETTER_RANGES:
        table[codes.start : codes.stop] = np.fromiter(map(fold, codes), np.uint32, len(codes))
    return table


def hash_words(buffer: bytes, first_W: I64, end_W: I64) -> U64:
    """Returns 64-bit hashes of byte strings in a buffer.

    With the 8-byte chunks c_0, c_1, ... of a word (the last one padded with zero bytes) the hash is
    mix(... mix(mix(c_0) + c_1) + c_2 ...). Words longer than 32 bytes are hashed by xxh3, then
    mixed.

    Args:
      buffer: the bytes of all words, without NUL bytes inside words (or padding could collide).
        At least 8 bytes follow the start of every 8-byte chunk.
      first_W: int64 [W], the index of the first byte of each word.
      end_W: int64 [W], the index after its last byte.
    """
    length_W = end_W - first_W
    # A view of the buffer as overlapping 8-byte integers, one for each byte at which they begin.
    load_at_N = np.ndarray(len(buffer) - _LOAD_BYTES + 1, "<u8", buffer, strides=(1,))
    # The first chunk; the mask clears the bytes after the end of a word of fewer than 8 bytes.
    x_W = load_at_N[first_W] & _LOW_BYTES_MASK.take(length_W, mode="clip")
    for offset in range(_LOAD_BYTES, _MAX_WORD_BYTES, _LOAD_BYTES):
        longer = np.flatnonzero(length_W > offset)  # the words with another chunk
        if not len(longer):
            break
        chunk = load_at_N[first_W[longer] + offset]
        chunk &= _LOW_BYTES_MASK.take(length_W[longer] - offset, mode="clip")
        x_W[longer] = mix(x_W[longer]) + chunk
    for w in np.flatnonzero(length_W > _MAX_WORD_BYTES).tolist():
        x_W[w] = xxhash.xxh3_64_intdigest(buffer[first_W[w] : end_W[w]])
    return mix(x_W)


def mix(x: U64) -> U64:
    """Applies the finalizer of splitmix64, a bijection in which every bit depends on every bit."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x ^= x >> np.uint64(27)
    x *= _MIX_2
    x ^= x >> np.uint64(31)
    return x


def _windows(hashes_W: U64, n: int) -> U64:
    """Returns the hash of the n words from each word on, as if all texts were one.

    The last n - 1 hashes are meaningless. Runs of n words are composed by binary exponentiation:
    runs of 2m words from runs of m words. n = 13 = 8 + 4 + 1 needs five passes instead of twelve.
    """
    num_words = len(hashes_W)
    power_W, m = hashes_W, 1  # sums of runs of m words, m = 1, 2, 4 ...
    sum_W, num_summed = np.zeros(num_words, np.uint64), 0  # sums of runs of `num_summed` words
    while True:
        if n & m:  # the bit m of n is set: append m words to the runs
            sum_W = _concatenate_runs(sum_W, num_summed, power_W, m) if num_summed else power_W
            num_summed += m
        if num_summed == n:
            break
        power_W = _concatenate_runs(power_W, m, power_W, m)
        m *= 2
    return mix(sum_W)


def _concatenate_runs(left_W: U64, left_words: int, right_W: U64, right_words: int) -> U64:
    """Returns the sums of runs of `left_words + right_words` words from the sums of both parts.

    The sum of a run is sum_i w_i * G^(length-1-i), so for the run of l + r words from word w on:
    sum_(l+r)(w) = sum_l(w) * G^r + sum_r(w + l).
    """
    out = left_W * np.uint64(pow(_GOLDEN, right_words, 1 << 64))
    out[: max(len(out) - left_words, 0)] += right_W[left_words:]
    return out

"""Encodes batches of texts in numpy, several times faster than SentencePiece on whole texts.

If no piece of the vocabulary spans two words (`MixtureTokenizer.splits_at_words`), the ids of a
text are the concatenated ids of its words (word_boundaries.py). Words are hashed and looked up in a
table; SentencePiece encodes only words that are not in it, which are few.

Shape letters: N bytes or ids, W words of all texts, D texts, K cached words, T table slots.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.mixture.word_boundaries import to_bytes, word_begins
from data_pipeline.text.ngrams import I64, U64, hash_words, mix

I32 = NDArray[np.int32]

_SLOT_BITS = 20  # log2 of the table's slots
_MAX_CACHED = 1 << 20  # words; the cache is then emptied. With the table about 30 MB
_BOS, _EOS = 0, 1  # BOS and EOS are the first two cached words
_PADDING = b" " * 8  # lets the hash read 8 bytes at the start of every word


class Encoder:
    """Encodes like its tokenizer, and caches words: use one instance for many batches.

    Threads may share an instance (Beam runs several tasks in one process): they take turns.

    >>> ids, lengths = Encoder(MixtureTokenizer()).encode(["Hares are fast.", "", "Hares"])
    >>> ids.tolist(), lengths.tolist()
    ([1, 382, 4585, 460, 4102, 28723, 2, 1, 2, 1, 382, 4585, 2], [7, 2, 4])
    """

    def __init__(self, tokenizer: MixtureTokenizer) -> None:
        """Starts with an empty cache."""
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        """Empties the cache and the table."""
        self._key_T = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._word_T = np.zeros(1 << _SLOT_BITS, np.int32)
        # Ids of all cached words, concatenated, and the number of ids of each.
        self._ids, self._lengths_K = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._add([[self._tokenizer.bos_id], [self._tokenizer.eos_id]])

    def encode(self, texts: Sequence[str]) -> tuple[I32, I64]:
        """Returns (ids int32 [N], lengths int64 [D]) of all texts, with BOS and EOS around each.

        Words with equal 64-bit hashes are taken to be equal.

        Raises:
          UnicodeEncodeError: a text has lone surrogates.
        """
        with self._lock:
            return self._encode(texts)

    def _encode(self, texts: Sequence[str]) -> tuple[I32, I64]:
        """Encodes while no other thread changes the cache."""
        try:
            word_W, offsets_D = self._words(texts)
        except BaseException:
            self._clear()  # an interrupt must not leave a word in the table without its ids
            raise
        # Insert the words BOS and EOS at the edges of texts: BOS | EOS BOS | ... | EOS.
        edges = np.repeat(offsets_D, 2)[1:-1]
        word_W = np.insert(word_W, edges, np.tile([_BOS, _EOS], len(texts)))
        offsets_D = offsets_D + 2 * np.arange(len(texts) + 1)

        # Gather the ids of word w from _ids[first_K[w] : first_K[w] + lengths_K[w]] for all words
        # at once: output position i of word w reads position i + shift_W[w].
        length_W = self._lengths_K[word_W]
        end_W = np.cumsum(length_W)
        first_K = np.cumsum(self._lengths_K) - self._lengths_K
        shift_W = first_K[word_W] - (end_W - length_W)
        ids = self._ids[np.repeat(shift_W, length_W) + np.arange(len(shift_W) and end_W[-1])]
        return ids, np.diff(np.concatenate([[0], end_W])[offsets_D])

    def _words(self, texts: Sequence[str]) -> tuple[I32, I64]:
        """Returns the cached number of each word [W], and where each text's words begin [D + 1]."""
        if not self._tokenizer.splits_at_words:  # each text is encoded as one word
            self._clear()
            own = self._add([self._tokenizer.encode(text) for text in texts])
            return own, np.arange(len(texts) + 1)
        encoded = [to_bytes(" " + text) if text else b"" for text in texts]
        buffer = b"".join([*encoded, _PADDING])
        text_first_D = np.cumsum([0, *map(len, encoded)])
        first_W = word_begins(buffer[: -len(_PADDING)], text_first_D[:-1])
        last_W = np.append(first_W[1:], len(buffer) - len(_PADDING))
        # hash_words pads with NUL bytes; the length distinguishes words that end in NUL bytes.
        key_W = mix(hash_words(buffer, first_W, last_W) + (last_W - first_W).view(np.uint64))
        return self._look_up(key_W, buffer, first_W, last_W), np.searchsorted(first_W, text_first_D)

    def _look_up(self, key_W: U64, buffer: bytes, first_W: I64, last_W: I64) -> I32:
        """Returns the cached number of each word, after adding those that are missing.

        Each slot of the table holds one word: of words that share a slot, the latest.
        """
        if len(self._lengths_K) > _MAX_CACHED:
            self._clear()
        slot_W = (key_W >> np.uint64(64 - _SLOT_BITS)).view(np.int64)
        word_W = self._word_T[slot_W]
        new = np.flatnonzero(self._key_T[slot_W] != key_W)
        if len(new):
            # Encode each missing word once, whatever its number of occurrences.
            keys, at, which = np.unique(key_W[new], return_index=True, return_inverse=True)
            words = new[at]
            spans = zip(first_W[words].tolist(), last_W[words].tolist(), strict=True)
            numbers = self._add(
                self._tokenizer.encode_inside([buffer[a:b].decode() for a, b in spans])
            )
            word_W[new] = numbers[which]
            self._key_T[slot_W[words]], self._word_T[slot_W[words]] = keys, numbers
        return word_W

    def _add(self, ids_of_words: Iterable[Sequence[int]]) -> I32:
        """Appends words to the cache and returns their numbers."""
        ids_of_words = list(ids_of_words)
        lengths = np.fromiter(map(len, ids_of_words), np.int64, len(ids_of_words))
        ids = np.fromiter((i for ids in ids_of_words for i in ids), np.int32, lengths.sum())
        numbers = np.arange(len(lengths), dtype=np.int32) + np.int32(len(self._lengths_K))
        self._ids = np.concatenate([self._ids, ids])
        self._lengths_K = np.concatenate([self._lengths_K, lengths])
        return numbers


@lru_cache(2)
def encoder_of(tokenizer: MixtureTokenizer) -> Encoder:
    """Returns the encoder of a tokenizer, one per process, so that its cache is shared."""
    return Encoder(tokenizer)

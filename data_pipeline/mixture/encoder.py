"""Many texts to ids at once, in numpy: several times as fast as SentencePiece on whole texts.

Where no piece of the vocabulary lies in two words (`MixtureTokenizer.splits_at_words`), the ids of a text
are those of its words (word_boundaries.py). Words are hashed and looked up; SentencePiece is asked
about those that are new, which are few.

Shape letters: N bytes or ids, W words of all texts, D texts, K words that are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.mixture.word_boundaries import to_bytes, word_begins
from data_pipeline.text.ngrams import I64, U64, hash_words, mix

I32 = NDArray[np.int32]

_SLOT_BITS = 20
_MOST_KNOWN = 1 << 20  # words; then all are forgotten. With their slots: some 30 MB
_BOS, _EOS = 0, 1  # are words too
_PADDING = b" " * 8  # so that 8 bytes can be read at every word


class Encoder:
    """Encodes like its tokenizer. It keeps the words it has seen: use one for many batches.

    >>> ids, lengths = Encoder(MixtureTokenizer()).encode(["Hares are fast.", "", "Hares"])
    >>> ids.tolist(), lengths.tolist()
    ([1, 382, 4585, 460, 4102, 28723, 2, 1, 2, 1, 382, 4585, 2], [7, 2, 4])
    """

    def __init__(self, tokenizer: MixtureTokenizer) -> None:
        self._tokenizer = tokenizer
        self._forget()

    def _forget(self) -> None:
        self._key_T = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._word_T = np.zeros(1 << _SLOT_BITS, np.int32)
        self._ids, self._lengths_K = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._add([[self._tokenizer.bos_id], [self._tokenizer.eos_id]])

    def encode(self, texts: Sequence[str]) -> tuple[I32, I64]:
        """(ids [N], lengths [D]) of BOS, the ids of `tokenizer.encode` and EOS, for every text.

        Equal hashes (64 bits) are taken for equal words. Raises UnicodeEncodeError for lone
        surrogates.
        """
        try:
            word_W, offsets_D = self._words(texts)
        except BaseException:
            self._forget()  # Ctrl-C in a notebook must not leave a word half known
            raise
        edges = np.repeat(offsets_D, 2)[1:-1]  # BOS, EOS BOS, ..., EOS BOS, EOS
        word_W = np.insert(word_W, edges, np.tile([_BOS, _EOS], len(texts)))
        offsets_D = offsets_D + 2 * np.arange(len(texts) + 1)

        length_W = self._lengths_K[word_W]
        end_W = np.cumsum(length_W)
        first_K = np.cumsum(self._lengths_K) - self._lengths_K
        shift_W = first_K[word_W] - (end_W - length_W)
        ids = self._ids[np.repeat(shift_W, length_W) + np.arange(len(shift_W) and end_W[-1])]
        return ids, np.diff(np.concatenate([[0], end_W])[offsets_D])

    def _words(self, texts: Sequence[str]) -> tuple[I32, I64]:
        """The numbers of the words of all texts [W]; where those of each begin, of the last end."""
        if not self._tokenizer.splits_at_words:  # then a text is a word
            self._forget()
            own = self._add([self._tokenizer.encode(text) for text in texts])
            return own, np.arange(len(texts) + 1)
        encoded = [to_bytes(" " + text) if text else b"" for text in texts]
        buffer = b"".join([*encoded, _PADDING])
        text_first_D = np.cumsum([0, *map(len, encoded)])
        first_W = word_begins(buffer[: -len(_PADDING)], text_first_D[:-1])
        last_W = np.append(first_W[1:], len(buffer) - len(_PADDING))
        # Words may end in NUL bytes, which the hash cannot see.
        key_W = mix(hash_words(buffer, first_W, last_W) + (last_W - first_W).view(np.uint64))
        return self._known(key_W, buffer, first_W, last_W), np.searchsorted(first_W, text_first_D)

    def _known(self, key_W: U64, buffer: bytes, first_W: I64, last_W: I64) -> I32:
        """The number of each word; one slot holds one word, of those that share it the last."""
        if len(self._lengths_K) > _MOST_KNOWN:
            self._forget()
        slot_W = (key_W >> np.uint64(64 - _SLOT_BITS)).view(np.int64)
        word_W = self._word_T[slot_W]
        new = np.flatnonzero(self._key_T[slot_W] != key_W)
        if len(new):
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
        """The numbers of these words, whose ids are kept from now on."""
        ids_of_words = list(ids_of_words)
        lengths = np.fromiter(map(len, ids_of_words), np.int64, len(ids_of_words))
        ids = np.fromiter((i for ids in ids_of_words for i in ids), np.int32, lengths.sum())
        numbers = np.arange(len(lengths), dtype=np.int32) + np.int32(len(self._lengths_K))
        self._ids = np.concatenate([self._ids, ids])
        self._lengths_K = np.concatenate([self._lengths_K, lengths])
        return numbers


@lru_cache(2)
def encoder_of(tokenizer: MixtureTokenizer) -> Encoder:
    """One for all that a process bakes with this tokenizer."""
    return Encoder(tokenizer)

r"""Splits texts into words that most vocabularies never merge across.

A boundary depends on two neighboring bytes only. Words are as short as possible such that no piece
of most vocabularies spans two of them: "It's  3.5\n" is "It", "'", "s", "  3", ".", "5", "\n".
Spaces belong to the word that follows them. Non-ASCII characters belong to the letters or
punctuation beside them.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.text.ngrams import I64

_SPACE, _SINGLE, _LETTER, _PUNCTUATION, _NON_ASCII = range(5)  # classes of bytes


def _class_of(byte: int) -> int:
    if byte >= 0x80:
        return _NON_ASCII  # a byte of a longer UTF-8 sequence
    character = chr(byte)
    if character.isalpha():
        return _LETTER
    if character.isdigit() or character == "\n":
        return _SINGLE  # digits and newlines always end a word
    return _SPACE if character == " " else _PUNCTUATION


def _begins_between(one: int, other: int) -> bool:
    """Returns whether a word begins between bytes of the classes `one` and `other`."""
    if one == _SINGLE:
        return True
    if one == _SPACE:
        return False
    return other in (_SPACE, _SINGLE) or {one, other} == {_LETTER, _PUNCTUATION}


# Tables for bytes.translate: the class of a byte; and for a pair of classes, 8 * one + other,
# 1 if a word begins between them.
_CLASSES = bytes(_class_of(byte) for byte in range(256))
_PAIRS = bytes(_begins_between(pair // 8, pair % 8) for pair in range(256))


def to_bytes(text: str) -> bytes:
    """Returns UTF-8 bytes with U+2581, which SentencePiece uses for a space, as a space."""
    return text.encode().replace("\u2581".encode(), b" ")


def word_begins(buffer: bytes, text_first_D: I64) -> I64:
    """Returns the offset of every word in concatenated texts.

    Args:
      buffer: the texts as bytes, one after the other.
      text_first_D: offset of each text in `buffer` [D]; a text always begins a word.
    """
    if not buffer:
        return np.zeros(0, np.int64)
    class_N = np.frombuffer(buffer.translate(_CLASSES), np.uint8)
    pairs = class_N[:-1] * np.uint8(8) + class_N[1:]
    begins_N = np.ones(len(buffer), np.uint8)
    begins_N[1:] = np.frombuffer(pairs.tobytes().translate(_PAIRS), np.uint8)
    begins_N[text_first_D[text_first_D < len(buffer)]] = True
    return np.flatnonzero(begins_N)

r"""Where words begin in a text: a matter of two neighboring bytes.

Words are such that no piece of most vocabularies lies in two of them, as short as that allows:
"It's  3.5\n" is "It", "'", "s", "  3", ".", "5", "\n". Spaces belong to what follows them, and what
is beyond ASCII to the letters or signs beside it.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.text.ngrams import I64

_SPACE, _END, _LETTER, _SIGN, _BEYOND = range(5)  # classes of bytes


def _class_of(byte: int) -> int:
    if byte >= 0x80:
        return _BEYOND  # of ASCII, in UTF-8
    character = chr(byte)
    if character.isalpha():
        return _LETTER
    if character.isdigit() or character == "\n":
        return _END  # of a word, always
    return _SPACE if character == " " else _SIGN


def _begins_between(one: int, other: int) -> bool:
    """Whether a word begins at a byte of class `other` that follows one of class `one`."""
    if one == _END:
        return True
    if one == _SPACE:
        return False
    return other in (_SPACE, _END) or {one, other} == {_LETTER, _SIGN}


_CLASSES = bytes(_class_of(byte) for byte in range(256))
_PAIRS = bytes(_begins_between(pair // 8, pair % 8) for pair in range(256))


def to_bytes(text: str) -> bytes:
    """UTF-8 in which SentencePiece's own space, U+2581, is one."""
    return text.encode().replace("\u2581".encode(), b" ")


def word_begins(buffer: bytes, text_first_D: I64) -> I64:
    """Offsets of the words in texts that stand side by side and begin at `text_first_D`."""
    if not buffer:
        return np.zeros(0, np.int64)
    class_N = np.frombuffer(buffer.translate(_CLASSES), np.uint8)
    pairs = class_N[:-1] * np.uint8(8) + class_N[1:]
    begins_N = np.ones(len(buffer), np.uint8)
    begins_N[1:] = np.frombuffer(pairs.tobytes().translate(_PAIRS), np.uint8)
    begins_N[text_first_D[text_first_D < len(buffer)]] = True
    return np.flatnonzero(begins_N)

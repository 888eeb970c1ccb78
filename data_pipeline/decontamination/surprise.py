"""What a word is worth as evidence: its surprise in English text, in bits."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text.ngrams import U64, words

F64 = NDArray[np.float64]

# Surprise of the commonest English words, -log2 of their share of running text (the median over
# fifteen corpora: books, news, government, law, medicine, textbooks, manuals). Any other word has
# RARE bits. The table is fixed so that what is found does not depend on what else is indexed.
RARE = 14.0
_COMMON = {
    4: "the",
    5: "a and of to",
    6: "in",
    7: "as for is that with",
    8: "an are at be by can from have it not on or s this we which",
    9: """1 about all also but has if more one other some than their there these they time was what
        who will you""",
    10: """10 2 3 after any been different do each first had how i into its like made make many may
        most new no number only our out over people see so such system them through two up us use
        way were when where would your""",
}


def word_bits(hashes: U64) -> F64:
    """The surprise of words given by their hashes, in bits."""
    common, bits = _common_words()
    at = np.minimum(np.searchsorted(common, hashes), len(common) - 1)
    return np.where(common[at] == hashes, bits[at], RARE)


@cache
def _common_words() -> tuple[U64, F64]:
    hashes = words(list(_COMMON.values()))
    bits = np.repeat(np.array(list(_COMMON), np.float64), np.diff(hashes.offsets_D))
    order = np.argsort(hashes.hashes_W)
    return hashes.hashes_W[order], bits[order]

"""Self-information of words: how much evidence a shared word is, in bits.

The self-information of a word is -log2 of its share of running English text. A rare word in common
is strong evidence that two texts are the same, "the" is nearly none.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.text.ngrams import U64, words

F64 = NDArray[np.float64]

# Self-information of the most common English words: the median over fifteen corpora (books, news,
# government, law, medicine, textbooks, manuals). Any other word has RARE_WORD_BITS. The table is
# fixed, so that a decision does not depend on what else is indexed.
RARE_WORD_BITS = 14.0
_COMMON_WORDS = {
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
    """Returns the self-information, in bits, of words that are given by their hashes.

    The result has the shape of `hashes`.
    """
    common_hashes, common_bits = _common_words()
    # The place of each hash among the common ones; beyond the last one: the last, which differs.
    at = np.minimum(np.searchsorted(common_hashes, hashes), len(common_hashes) - 1)
    return np.where(common_hashes[at] == hashes, common_bits[at], RARE_WORD_BITS)


@cache
def _common_words() -> tuple[U64, F64]:
    """Returns the hashes of the common words, ascending, and their bits."""
    common = words(list(_COMMON_WORDS.values()))  # one text for each number of bits
    bits = np.repeat(np.array(list(_COMMON_WORDS), np.float64), np.diff(common.offsets_D))
    order = np.argsort(common.hashes_W)
    return common.hashes_W[order], bits[order]

"""Text that several documents have: license headers, menus, the frame of a template's pages.

An evaluation item made of it could not be kept out of training without every document that has it,
and would test little. So items are made of what one document alone says; and what a held-out
document shares with others is no evidence that its text has leaked.

>>> one = Document("a", "all rights reserved by the authors of this fine work", "law", "law")
>>> two = Document("b", "ALL rights reserved by the authors of this, fine!", "law", "law")
>>> shares(["rights reserved by the authors of this fine work"], shared_ngrams([one, two])).tolist()
[0.5]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.storage.document import Document
from data_pipeline.text.ngrams import U64, batches, ngrams, words

NGRAM_WORDS = 8
MOST_CHARACTERS = 1 << 26  # of text that is looked at: about 100 MB of memory


def shared_ngrams(documents: Iterable[Document], n: int = NGRAM_WORDS) -> U64:
    """Hashes, ascending, of the n-grams that two or more of the documents have."""
    found: list[U64] = [np.empty(0, np.uint64)]
    left = MOST_CHARACTERS
    for batch in batches(documents):
        grams = ngrams(words([document.text for document in batch]), n)
        found += [np.unique(own) for own in np.split(grams.hashes_S, grams.offsets_D[1:-1])]
        left -= sum(len(document.text) for document in batch)
        if left < 0:
            break
    hashes, counts = np.unique(np.concatenate(found), return_counts=True)
    return hashes[counts > 1]


def shares(texts: Sequence[str], shared: U64) -> NDArray[np.float64]:
    """The share of each text's n-grams that are shared; 0 for a text too short to have one."""
    grams = ngrams(words(texts), NGRAM_WORDS)
    sizes = np.diff(grams.offsets_D)
    text_S = np.repeat(np.arange(len(texts)), sizes)
    hits = np.bincount(text_S[np.isin(grams.hashes_S, shared)], minlength=len(texts))
    return hits / np.maximum(sizes, 1)

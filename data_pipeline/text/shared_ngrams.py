"""Detection of text shared by several documents, such as license headers, menus and page templates.

A held-out evaluation item made of shared text could only be kept out of training by dropping every
document that contains it, and it would test little. Items are therefore made of text that occurs in
one document only. For the same reason, text that a held-out document shares with others is not
evidence of leakage.

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
MAX_CHARACTERS = 1 << 26  # of text that is examined; needs about 100 MB of memory


def shared_ngrams(documents: Iterable[Document], n: int = NGRAM_WORDS) -> U64:
    """Returns the hashes, in ascending order, of the n-grams that occur in two or more documents.

    Only the first `MAX_CHARACTERS` characters of text are examined.
    """
    per_document: list[U64] = [np.empty(0, np.uint64)]
    remaining_characters = MAX_CHARACTERS
    for batch in batches(documents):
        grams = ngrams(words([document.text for document in batch]), n)
        # Repeats within a document are removed, so that the counts below are numbers of documents.
        per_document += [np.unique(own) for own in np.split(grams.hashes_S, grams.offsets_D[1:-1])]
        remaining_characters -= sum(len(document.text) for document in batch)
        if remaining_characters < 0:
            break
    hashes, num_documents = np.unique(np.concatenate(per_document), return_counts=True)
    return hashes[num_documents > 1]


def shares(texts: Sequence[str], shared: U64) -> NDArray[np.float64]:
    """Computes the fraction of each text's n-grams that are in `shared`.

    Returns:
      float64 [D], in [0, 1]; 0 for a text without words.
    """
    grams = ngrams(words(texts), NGRAM_WORDS)
    num_ngrams_D = np.diff(grams.offsets_D)
    text_S = np.repeat(np.arange(len(texts)), num_ngrams_D)  # the text of each n-gram
    num_shared_D = np.bincount(text_S[np.isin(grams.hashes_S, shared)], minlength=len(texts))
    return num_shared_D / np.maximum(num_ngrams_D, 1)  # no division by 0 for an empty text

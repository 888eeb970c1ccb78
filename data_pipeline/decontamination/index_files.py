"""The files of the stage "index", as workers load them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from data_pipeline.decontamination.index import NgramIndex
from data_pipeline.decontamination.paraphrases import ParaphraseIndex
from data_pipeline.execution.manifest import Directory, ShardFile

PARAPHRASES = "paraphrases"  # the shard of the index of the paraphrase rule


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """The files of a finished index.

    `by_ngram_words`: n -> the index of the n-grams. `paraphrases`: the index of the paraphrase
    rule, None if the rule is off.
    """

    by_ngram_words: dict[int, ShardFile]
    paraphrases: ShardFile | None = None

    @classmethod
    def of(cls, index: Directory) -> IndexFiles:
        """Returns the files of the stage "index"."""
        files = {file.name: file for file in index.files()}
        paraphrase_file = files.pop(PARAPHRASES, None)
        return cls({int(name): file for name, file in files.items()}, paraphrase_file)

    def load_ngrams(self, n: int) -> NgramIndex:
        """Returns the index of the n-grams of n words."""
        return load_index(self.by_ngram_words[n])

    def load_paraphrases(self) -> ParaphraseIndex | None:
        """Returns the index of the paraphrase rule; None if the rule is off."""
        return None if self.paraphrases is None else load_paraphrase_index(self.paraphrases)


@cache
def load_index(file: ShardFile) -> NgramIndex:
    """Returns an index of n-grams; each process verifies and reads a file once."""
    with file.verified() as path:
        return NgramIndex.load(path)


@cache
def load_paraphrase_index(file: ShardFile) -> ParaphraseIndex:
    """Returns an index of the paraphrase rule; each process verifies and reads a file once."""
    with file.verified() as path:
        return ParaphraseIndex.load(path)

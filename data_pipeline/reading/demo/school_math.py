"""Generator of grade-school arithmetic word problems with worked answers, in any number.

Problem `index` is a pure function of (seed, index), so any range of indices can be a shard. The
families of problems are in word_problems.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipeline.config import Source
from data_pipeline.reading.demo import problem_words, word_problems
from data_pipeline.storage.document import Document

DOCUMENTS = 4000  # if a source does not set max_documents
BYTES = 260  # approximate size of a document
SEED = 0
FILES = (__file__, word_problems.__file__, problem_words.__file__)


def generate(index: int, seed: int = SEED) -> word_problems.Problem:
    r"""Returns the question, the steps of its solution, and the answer, a number without a unit.

    >>> question, steps, answer = generate(1)
    >>> print(*question.split(". "), *steps, answer, sep="\n")
    A shop receives 5 crates of keys
    Each crate holds 23
    On the first day 5 keys are sold
    How many are still in the shop?
    5 crates with 23 keys each hold 5 * 23 = 115 keys.
    Without the 5 that are gone, 115 - 5 = 110 are left.
    110
    """
    return word_problems.problem(index, seed)


def text(index: int, seed: int = SEED) -> str:
    """Returns the text of a document: question, steps and answer."""
    question, steps, answer = generate(index, seed)
    return f"Question: {question}\nAnswer: {' '.join(steps)} The answer is {answer}."


def read(indices: Iterable[int], source: Source) -> Iterator[Document]:
    """Yields the documents with the given indices."""
    category = source.category or source.name
    for index in indices:
        yield Document(
            f"{source.name}/{index}",
            text(index),
            source.name,
            category,
            {"kind": word_problems.family_name(index)},
        )


def version() -> str:
    """Returns a hash of the code that generates the problems."""
    code = [Path(str(file)).read_bytes() for file in FILES]
    return hashlib.sha256(b"".join(code)).hexdigest()[:16]

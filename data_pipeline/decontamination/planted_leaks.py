"""Recall on planted leaks: known leaks are planted in clean text, and the rules search for them.

Recall cannot be measured on real leaks, because a missed leak is not seen. So items of every
benchmark are turned into documents of the kinds that leaks have (verbatim, edited, inside other
text), and the rules of the run decide about each. If a benchmark has paraphrased items, they are
planted as well. One row of the result:

    {"kind": "inside_300_words", "benchmark": "gsm8k", "planted": 100, "found": 100, "recall": 1.0}

The documents of a sample of the run's own text that the rules drop are counted too. Their share is
an upper bound of the false positives: some of them may contain benchmark text, so their evidence is
included.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import rules
from data_pipeline.decontamination.benchmarks import WHOLE_ITEM_PARTS, BenchmarkItem, is_option
from data_pipeline.decontamination.index import NgramIndex
from data_pipeline.decontamination.paraphrases import ParaphraseIndex
from data_pipeline.execution.shard_output import Decide
from data_pipeline.storage.document import Document, Dropped

MAX_ITEMS = 100  # of one benchmark
MAX_ITEM_CHARACTERS = 20_000  # longer items (held-out books) would only cost time
CLEAN_CHARACTERS = 4_000_000  # about a tenth of a second
MAX_EXAMPLES = 20  # of false positives

# (whole item, its question, words of clean text, random numbers) -> the document of the leak
LeakForm = Callable[[str, str, Sequence[str], random.Random], str]


@dataclass(frozen=True, slots=True)
class CleanText:
    """The run's own text that leaks are planted in, as the rules decide about it."""

    num_documents: int
    words: list[str]  # of the documents that the rules keep
    flagged: list[dict[str, Any]]  # id and evidence of the documents that the rules drop


def measure_recall(
    items: Iterable[BenchmarkItem],
    clean: Iterable[Document],
    config: Decontamination,
    index: NgramIndex,
    *,
    paraphrase_index: ParaphraseIndex | None = None,
    paraphrases: Iterable[BenchmarkItem] = (),
    max_items: int = MAX_ITEMS,
) -> dict[str, Any]:
    """Returns recall by kind of leak and benchmark, and the false positives.

    The same input gives the same result.

    Args:
      items: the items of all benchmarks.
      clean: documents as they enter decontamination, without the held-out ones. Some four megabytes
        of them are used, for the words around and inside of the planted items.
      config: the rules and their thresholds.
      index: the n-grams of the benchmarks.
      paraphrase_index: where paraphrased items are looked up; None: that rule is off.
      paraphrases: paraphrased items, planted as they are.
      max_items: at most this many items of a benchmark are planted, chosen by a hash of their ids.

    Returns:
      {"results": [{"kind", "benchmark", "planted", "found", "recall", "generic"}],
      "false_positives": {"documents", "found", "share", "examples": [evidence]}}

      `generic` counts the missed questions without a distinctive n-gram: "What is a nop sled",
      "Which of the following is true?". They are found together with their answer.

    Raises:
      ValueError: there is no clean text to plant leaks in.
    """
    decide = rules.build_decide(config, index, paraphrase_index)
    clean_text = _check_clean_text(clean, decide)
    test = _RecallTest(clean_text.words, decide, index)
    results = [
        test.recall(kind, form, benchmark, chosen)
        for source, forms in ((items, KINDS), (paraphrases, PARAPHRASE_KINDS))
        for benchmark, chosen in _choose_items(source, max_items).items()
        for kind, form in forms.items()
    ]
    num_flagged, num_documents = len(clean_text.flagged), clean_text.num_documents
    return {
        "results": results,
        "false_positives": {
            "documents": num_documents,
            "found": num_flagged,
            "share": round(num_flagged / num_documents, 6),
            "examples": clean_text.flagged[:MAX_EXAMPLES],
        },
    }


def whole_text(item: BenchmarkItem) -> str:
    """Returns an item as one text: a question with its answer, a context with its ending."""
    for name in WHOLE_ITEM_PARTS:
        if name in item.parts:
            return item.parts[name]
    rest = [t for name, t in item.parts.items() if not is_option(name) and "annotated" not in name]
    return "\n".join(rest or item.parts.values())


# ---- collect: the clean text and the items to plant


def _check_clean_text(clean: Iterable[Document], decide: Decide) -> CleanText:
    """Returns a sample of clean documents; raises ValueError if no words are left."""
    documents = list(_sample(clean))
    decisions = decide(documents)
    flagged = [
        {"document": decision.document.id} | decision.evidence
        for decision in decisions
        if isinstance(decision, Dropped)
    ]
    words = [
        word
        for decision in decisions
        if isinstance(decision, Document)
        for word in decision.text.split()
    ]
    if not words:
        raise ValueError(
            "recall on planted leaks: no clean text to plant leaks in, all sources are empty"
        )
    return CleanText(len(documents), words, flagged)


def _sample(clean: Iterable[Document]) -> Iterator[Document]:
    """Yields the first documents, of at most CLEAN_CHARACTERS."""
    left = CLEAN_CHARACTERS
    for document in clean:
        left -= len(document.text)
        if left < 0:
            return
        yield document


def _choose_items(
    items: Iterable[BenchmarkItem], max_items: int
) -> Mapping[str, list[BenchmarkItem]]:
    """Returns, by benchmark, the `max_items` items with the smallest hashes of their ids."""
    by_benchmark: dict[str, list[BenchmarkItem]] = defaultdict(list)
    for item in items:
        if len(whole_text(item)) <= MAX_ITEM_CHARACTERS:
            by_benchmark[item.benchmark].append(item)
    return {
        name: sorted(group, key=lambda item: xxhash.xxh3_64_intdigest(item.id.encode()))[:max_items]
        for name, group in by_benchmark.items()
    }


# ---- plant and score


@dataclass(frozen=True, slots=True)
class _RecallTest:
    """A test that plants items in clean text and counts those that are found."""

    clean_words: Sequence[str]
    decide: Decide
    index: NgramIndex

    def recall(
        self, kind: str, form: LeakForm, benchmark: str, items: Sequence[BenchmarkItem]
    ) -> dict[str, Any]:
        """Returns the row of the result for one kind of leak and one benchmark."""
        planted = self._plant(kind, form, items)
        missed = [
            decision.text for decision in self.decide(planted) if isinstance(decision, Document)
        ]
        return {
            "kind": kind,
            "benchmark": benchmark,
            "planted": len(planted),
            "found": len(planted) - len(missed),
            "recall": round(1 - len(missed) / len(planted), 4),
            "generic": self._count_generic(missed, items) if kind in QUESTION_ONLY_KINDS else 0,
        }

    def _plant(self, kind: str, form: LeakForm, items: Sequence[BenchmarkItem]) -> list[Document]:
        """Returns one document per item; random numbers are seeded by the kind and the item."""
        documents = []
        for k, item in enumerate(items):
            seed = xxhash.xxh3_64_intdigest(f"{kind} {item.id}".encode())
            text = form(whole_text(item), _question(item), self.clean_words, random.Random(seed))
            documents.append(Document(f"planted/{k}", text, "planted", "planted"))
        return documents

    def _count_generic(self, missed: Sequence[str], items: Sequence[BenchmarkItem]) -> int:
        """Returns how many missed texts contain a question without a distinctive n-gram."""
        questions = [_question(item) for item in items]
        is_distinctive = self.index.distinctive(questions)
        generic = [
            question
            for question, distinctive in zip(questions, is_distinctive, strict=True)
            if not distinctive
        ]
        return sum(any(question in text for question in generic) for text in missed)


def _question(item: BenchmarkItem) -> str:
    """Returns the first part of an item."""
    return next(iter(item.parts.values()))


# ---- Leak forms


def _verbatim(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
    """Returns the whole item."""
    return text


def _question_only(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
    """Returns the question."""
    return question


def _rewrapped(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
    """Returns the item with other line breaks and white space, marked as a quotation."""
    words = text.split()
    width = rng.randrange(3, 12)
    space = rng.choice((" ", "  ", "\u00a0", "\t"))
    return " \n> ".join(space.join(words[k : k + width]) for k in range(0, len(words), width))


def _repunctuated(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
    """Returns the item with other punctuation and letter case."""
    change_case = rng.choice((str, str.upper, str.title))
    return change_case(re.sub(r"[^\w\s]+", lambda _: rng.choice((" ", " - ", " ; ", "... ")), text))


def _edited(share: float) -> LeakForm:
    """Returns the form that replaces this share of an item's words by words of clean text."""

    def form(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
        return " ".join(
            rng.choice(clean_words) if rng.random() < share else word for word in text.split()
        )

    return form


def _inside(number: int, only_question: bool = False) -> LeakForm:
    """Returns the form that puts the item, or its question, somewhere between `number` words."""

    def form(text: str, question: str, clean_words: Sequence[str], rng: random.Random) -> str:
        planted = question if only_question else text
        begin, at = rng.randrange(len(clean_words)), rng.randrange(number + 1)
        around = [clean_words[(begin + k) % len(clean_words)] for k in range(number)]
        return " ".join((*around[:at], planted, *around[at:]))

    return form


KINDS: dict[str, LeakForm] = {
    "verbatim": _verbatim,
    "rewrapped": _rewrapped,
    "repunctuated": _repunctuated,
    "inside_100_words": _inside(100),
    "inside_300_words": _inside(300),
    "inside_1500_words": _inside(1500),
    "question_only": _question_only,
    "question_inside_300_words": _inside(300, only_question=True),
    "edited_2_percent": _edited(0.02),
    "edited_5_percent": _edited(0.05),
    "edited_10_percent": _edited(0.10),
}
PARAPHRASE_KINDS: dict[str, LeakForm] = {
    "paraphrased": _verbatim,
    "paraphrased_question_only": _question_only,
    "paraphrased_inside_300_words": _inside(300),
}
QUESTION_ONLY_KINDS = {"question_only", "question_inside_300_words"}

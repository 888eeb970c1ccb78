"""How much of a leak would have been found: known leaks are planted in clean text and searched for.

Recall cannot be read off a run, since what was missed is not seen. So items of every benchmark are
turned into the documents that leaks make, and the rules of the run are asked about each. Where a
benchmark has items told in other words, they are planted as well:

    {"kind": "inside_300_words", "benchmark": "gsm8k", "planted": 100, "found": 100, "recall": 1.0}

Documents taken for leaks among a sample of the run's own text are counted too, as the ceiling of
false positives: some of them may hold benchmark text indeed, so their evidence is given.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import xxhash

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import rules
from data_pipeline.decontamination.benchmarks import WHOLE, BenchmarkItem, is_option
from data_pipeline.decontamination.index import Index
from data_pipeline.decontamination.paraphrases import ParaphraseIndex
from data_pipeline.storage.document import Document, Dropped

ITEMS = 100  # of one benchmark
ITEM_CHARACTERS = 20_000  # longer items (held-out books) would only cost time
CLEAN_CHARACTERS = 4_000_000  # about a tenth of a second
EXAMPLES = 20

Disguise = Callable[[str, str, list[str], random.Random], str]


def measure(
    items: Iterable[BenchmarkItem],
    clean: Iterable[Document],
    config: Decontamination,
    index: Index,
    *,
    rewritten: ParaphraseIndex | None = None,
    paraphrases: Iterable[BenchmarkItem] = (),
    most: int = ITEMS,
) -> dict[str, Any]:
    """Recall by kind of leak and benchmark, and false positives; the same for the same input.

    Args:
      items: of all benchmarks; up to `most` of each are planted, chosen by a hash of their ids.
      clean: documents as they come to decontamination, already without held-out ones; some four
        megabytes of them are used. They give the words around and inside the planted items.
      rewritten: what the rule for rewrites looks up, where it is on.
      paraphrases: paraphrased items, planted as they are.

    Returns:
      {"results": [{"kind", "benchmark", "planted", "found", "recall", "generic"}],
       "false_positives": {"documents", "found", "share", "examples": [evidence]}}

      `generic`: how many of the questions that were not found have no run of words of their own:
      "What is a nop sled", "Which of the following is true?". They are found with their answer.

    Raises:
      ValueError: there is no clean text to plant in.
    """
    decide = rules.build(config, index, rewritten)
    sample = list(_sample(clean))
    answers = decide(sample)
    alarms = [
        {"document": answer.document.id} | answer.evidence
        for answer in answers
        if isinstance(answer, Dropped)
    ]
    words = [
        word for answer in answers if isinstance(answer, Document) for word in answer.text.split()
    ]
    if not words:
        raise ValueError("the probe has no clean text to plant leaks in: all sources are empty")
    results = []
    for chosen, kinds in ((_choose(items, most), KINDS), (_choose(paraphrases, most), RETOLD)):
        for benchmark, some in chosen.items():
            for kind, disguise in kinds.items():
                planted = [
                    disguise(whole(item), _question(item), words, _random(kind, item))
                    for item in some
                ]
                missed = [
                    answer.text
                    for answer in decide(_documents(planted))
                    if isinstance(answer, Document)
                ]
                results.append(
                    {
                        "kind": kind,
                        "benchmark": benchmark,
                        "planted": len(planted),
                        "found": len(planted) - len(missed),
                        "recall": round(1 - len(missed) / len(planted), 4),
                        "generic": _generic(missed, some, index) if kind in ONLY_QUESTION else 0,
                    }
                )
    return {
        "results": results,
        "false_positives": {
            "documents": len(sample),
            "found": len(alarms),
            "share": round(len(alarms) / len(sample), 6),
            "examples": alarms[:EXAMPLES],
        },
    }


def whole(item: BenchmarkItem) -> str:
    """An item as a text would hold it: the question with its answer, a context with its ending."""
    for name in WHOLE:
        if name in item.parts:
            return item.parts[name]
    rest = [t for name, t in item.parts.items() if not is_option(name) and "annotated" not in name]
    return "\n".join(rest or item.parts.values())


def _generic(missed: list[str], items: list[BenchmarkItem], index: Index) -> int:
    """Of texts that were not found, those that hold a question without words of its own."""
    own = index.distinctive([_question(item) for item in items])
    generic = [_question(item) for item, is_own in zip(items, own, strict=True) if not is_own]
    return sum(any(question in text for question in generic) for text in missed)


def _question(item: BenchmarkItem) -> str:
    return next(iter(item.parts.values()))


def _choose(items: Iterable[BenchmarkItem], most: int) -> dict[str, list[BenchmarkItem]]:
    by_benchmark: dict[str, list[BenchmarkItem]] = defaultdict(list)
    for item in items:
        if len(whole(item)) <= ITEM_CHARACTERS:
            by_benchmark[item.benchmark].append(item)
    return {
        name: sorted(group, key=lambda item: xxhash.xxh3_64_intdigest(item.id.encode()))[:most]
        for name, group in by_benchmark.items()
    }


def _sample(clean: Iterable[Document]) -> Iterator[Document]:
    left = CLEAN_CHARACTERS
    for document in clean:
        left -= len(document.text)
        if left < 0:
            return
        yield document


def _documents(texts: Sequence[str]) -> list[Document]:
    return [Document(f"planted/{k}", text, "planted", "planted") for k, text in enumerate(texts)]


def _random(kind: str, item: BenchmarkItem) -> random.Random:
    return random.Random(xxhash.xxh3_64_intdigest(f"{kind} {item.id}".encode()))


# ---- Disguises: (whole item, its question, clean words, random numbers) -> a document.


def _verbatim(text: str, question: str, words: list[str], rng: random.Random) -> str:
    return text


def _question_only(text: str, question: str, words: list[str], rng: random.Random) -> str:
    return question


def _rewrapped(text: str, question: str, words: list[str], rng: random.Random) -> str:
    """Other line breaks, marked as a quotation, and other white space."""
    parts = text.split()
    width = rng.randrange(3, 12)
    gap = rng.choice((" ", "  ", "\u00a0", "\t"))
    return " \n> ".join(gap.join(parts[k : k + width]) for k in range(0, len(parts), width))


def _repunctuated(text: str, question: str, words: list[str], rng: random.Random) -> str:
    """Other punctuation and letter case."""
    change = rng.choice((str, str.upper, str.title))
    return change(re.sub(r"[^\w\s]+", lambda _: rng.choice((" ", " - ", " ; ", "... ")), text))


def _edited(share: float) -> Disguise:
    """This share of the words is replaced by words of clean text."""

    def disguise(text: str, question: str, words: list[str], rng: random.Random) -> str:
        return " ".join(
            rng.choice(words) if rng.random() < share else word for word in text.split()
        )

    return disguise


def _inside(number: int, only_question: bool = False) -> Disguise:
    """The item or its question verbatim, somewhere between `number` clean words."""

    def disguise(text: str, question: str, words: list[str], rng: random.Random) -> str:
        text = question if only_question else text
        begin, cut = rng.randrange(len(words)), rng.randrange(number + 1)
        around = [words[(begin + k) % len(words)] for k in range(number)]
        return " ".join((*around[:cut], text, *around[cut:]))

    return disguise


KINDS: dict[str, Disguise] = {
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
RETOLD: dict[str, Disguise] = {
    "rewritten": _verbatim,
    "rewritten_question_only": _question_only,
    "rewritten_inside_300_words": _inside(300),
}
ONLY_QUESTION = {"question_only", "question_inside_300_words"}

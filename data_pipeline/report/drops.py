"""Drop reasons with examples, changes in kept documents, and duplicates with their survivors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from data_pipeline.report import excerpts
from data_pipeline.report.flow import HELD_OUT, ReportStage, most_frequent
from data_pipeline.storage.document import Dropped
from data_pipeline.storage.shards import read_dropped

MAX_EXAMPLES = 3  # per reason
MAX_PAIRS = 4  # of near duplicates, side by side
MAX_MATRIX_SOURCES = 7

CONTAMINATED = "contaminated"

T = TypeVar("T")

# Drop reason -> its meaning. A reason that is missing here is shown by its name alone.
REASONS = {
    # Cleaning.
    "too_short": "has fewer words than the minimum",
    "too_long": "has more words than the maximum",
    "empty": "has no words after cleaning",
    "language": "is detected as a language other than the configured one",
    "cut_off": "ends in the middle of a sentence",
    "symbols": "has too many hash signs and ellipses per word",
    "duplicate_lines": "too large a share of its lines repeats earlier lines",
    "not_words": "too small a share of its words contains a letter",
    "incomplete": "too small a share of its lines is complete sentences, as in menus and lists",
    "long_code_lines": "has lines too long to be written by hand",
    "data_not_code": "is a table of numbers rather than code",
    "truncated_list": "ends with “as follows:” or with an empty list item",
    "open_fence": "opens a code block that it does not close",
    "open_environment": "ends inside a LaTeX environment",
    "open_tag": "ends inside an HTML tag or comment",
    "open_bracket": "is code that ends inside a bracket",
    # Deduplication, decontamination, length.
    "exact_duplicate": "equals a kept document, except for whitespace",
    "near_duplicate": "shares most of its word n-grams with a kept document",
    CONTAMINATED: "contains text of evaluation data",
    HELD_OUT: "is reserved for evaluation",
    "too_many_tokens": "has more tokens than the maximum",
    # Unreadable input.
    "invalid_utf8": "has bytes that are not UTF-8",
    "invalid_json": "is not valid JSON where JSON is expected",
    "not_an_object": "is JSON, but not an object with fields",
    "nul_character": "contains NUL bytes: binary data or a disk error",
    "line_too_long": "is longer than the maximum size of a document",
    "empty_file": "is a file without rows",
    "no_main_text": "is a web page without main text",
    # Synthetic text.
    "no_answer": "has no answer; for a request to a teacher, after all attempts",
    "refusal": "refuses the request",
    "meta_talk": "mentions that its author is a language model, or mentions the passage",
    "prompt_leak": "repeats words of the prompt",
    "template_leak": "contains tokens of a chat template",
    "reasoning": "contains reasoning that is not separated from the answer",
    "copied": "copies too much of the passage",
    "loop": "repeats its own word n-grams",
    # Tasks from a teacher.
    "reply_cut": "reached the token limit of an answer before its JSON was complete",
    "wrong_schema": "is JSON that violates the requested schema",
    "several_answers": "contains more than one valid answer",
    "empty_field": "has a field without text",
    "control_character": "contains a control character",
    "unsupported": "too small a share of its content words occurs in the passage",
    "unsupported_number": "contains a number that does not occur in the passage",
    "off_topic": "shares hardly any content word with the passage",
    "not_in_passage": "quotes text that does not occur in the passage",
    "no_question": "the question does not end with a question mark",
    "no_statement": "the statement is too short or is a question",
    "no_reason": "the reason is too short or repeats the statement",
    "answer_in_question": "the question contains the answer",
    "answer_shown": "the answer also occurs elsewhere in the sentence",
    "answer_not_an_option": "the answer is none of the options",
    "trivial_answer": "the answer is a stop word or punctuation",
    "too_long_answer": "the answer is longer than its kind of task allows",
    "telling_length": "the right option is much longer than the others",
    "options_not_distinct": "two options are equal",
    "relative_option": "an option refers to other options",
    "keywords_not_distinct": "two keywords are equal",
    "gaps": "the cloze sentence does not have exactly one gap",
    "contradiction": "the verdict contradicts the reason or the passage",
    "hardly_changed": "the paraphrase is almost equal to the sentence",
    "too_different": "the paraphrase shares too few content words with the sentence",
    "length_differs": "the paraphrase differs too much in length from the sentence",
    "numbers_differ": "the paraphrase has other numbers than the sentence",
    "copied_example": "repeats an example of the prompt",
}


def reasons(
    stages: Sequence[ReportStage], colors: Mapping[str, str], kind: str
) -> list[dict[str, Any]]:
    """Returns the reasons of each stage with counts and examples, the most frequent first.

    Args:
      stages: all stages; those without a count are left out.
      colors: the sources in the order of the legend.
      kind: the counter of the ledgers, "dropped" or "bad".
    """
    return [
        {"stage": stage, "count": total.total(), "reasons": _reasons(stage, colors, kind)}
        for stage in stages
        if (total := getattr(stage.total, kind)).total()
    ]


def _reasons(stage: ReportStage, sources: Iterable[str], kind: str) -> list[dict[str, Any]]:
    """Returns the reasons of one stage."""
    total: Counter[str] = getattr(stage.total, kind)
    examples = excerpts.choose(stage.directory, MAX_EXAMPLES, lambda counts: getattr(counts, kind))
    largest = max(total.values())
    sources = [source for source in sources if source in stage.sources]
    return [
        {
            "name": reason,
            "meaning": REASONS.get(reason, ""),
            "count": count,
            "share": count / max(1, stage.total.documents_in),
            "bars": [
                {"source": source, "count": number, "width": number / largest}
                for source in sources
                if (number := getattr(stage.sources[source], kind)[reason])
            ],
            "examples": [example(dropped) for dropped in examples[reason]],
        }
        for reason, count in most_frequent(total)
    ]


def example(dropped: Dropped) -> dict[str, Any]:
    """Returns the values that the page shows of a dropped document; quoted evidence is marked."""
    document, evidence = dropped.document, dropped.evidence
    spans = excerpts.evidence_spans(document.text, evidence)
    return {
        "id": document.id,
        "source": document.source,
        "characters": len(document.text),
        "evidence": excerpts.evidence_values(document.text, evidence),
        "segments": excerpts.excerpt(document.text, spans),
    }


def changes(stages: Sequence[ReportStage], sources: Iterable[str]) -> list[dict[str, Any]]:
    """Returns the replacements and repairs in kept documents, by stage and by kind of change."""
    sources = list(sources)
    return [
        {
            "stage": stage,
            "what": what,
            "count": count,
            "sources": [
                (source, number)
                for source in sources
                if source in stage.sources and (number := stage.sources[source].changed[what])
            ],
        }
        for stage in stages
        for what, count in most_frequent(stage.total.changed)
    ]


def iter_dropped(stage: ReportStage) -> Iterator[Dropped]:
    """Yields all dropped documents of a stage."""
    for file in stage.directory.files("dropped"):
        for _, dropped in read_dropped(file.path):
            yield dropped


# ---- duplicates


def duplicates(stages: Sequence[ReportStage], colors: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns counts of duplicates, a matrix of sources, and pairs of near duplicates.

    The matrix counts dropped copies by their source (rows) and their survivor's source (columns).
    Returns None if no duplicates were dropped.
    """
    stage = next((s for s in stages if s.name == "deduplicate" and s.drops_documents), None)
    if stage is None:
        return None
    number: Counter[tuple[str, str]] = Counter()  # (source of the copy, of the survivor)
    near: dict[str, dict[str, Dropped]] = {}  # source -> id of a survivor -> one of its copies
    for dropped in iter_dropped(stage):
        source, survivor_id = dropped.document.source, dropped.evidence["kept"]
        number[source, _source_of(survivor_id, colors)] += 1
        if dropped.evidence["jaccard"] < 1 and len(near.setdefault(source, {})) < MAX_PAIRS:
            near[source].setdefault(survivor_id, dropped)
    names = _matrix_sources(number, colors)
    largest = max(number.values())
    copies = round_robin([list(near[source].values()) for source in sorted(near)], MAX_PAIRS)
    return {
        "count": stage.total.dropped.total(),
        "reasons": sorted(stage.total.dropped.items()),
        "names": names,
        "num_hidden": len({source for pair in number for source in pair} - {*names, ""}),
        "across": sum(n for (copy, survivor), n in number.items() if copy != survivor),
        "matrix": [
            {
                "name": copy,
                "cells": [
                    (number[copy, survivor], number[copy, survivor] / largest) for survivor in names
                ],
                "total": sum(n for (source, _), n in number.items() if source == copy),
            }
            for copy in names
        ],
        "pairs": _pairs(stage, copies),
    }


def _matrix_sources(number: Counter[tuple[str, str]], sources: Iterable[str]) -> list[str]:
    """Returns the sources of the matrix: those that share copies with others come first.

    At most MAX_MATRIX_SOURCES fit on the page.
    """
    weight: Counter[str] = Counter()
    for (copy, survivor), count in number.items():
        for source in (copy, survivor):
            # A copy in another source outweighs 2^40 copies in the same one.
            weight[source] += count if copy == survivor else count << 40
    chosen = {source for source, _ in weight.most_common(MAX_MATRIX_SOURCES)}
    return [source for source in sources if source in chosen]


def _source_of(document_id: str, sources: Iterable[str]) -> str:
    """Returns the source of an id of the form SOURCE/..., or "" if no source fits."""
    fitting = [source for source in sources if document_id.startswith(source + "/")]
    return max(fitting, key=len, default="")


def _pairs(stage: ReportStage, copies: Sequence[Dropped]) -> list[dict[str, Any]]:
    """Returns near duplicates, each beside its survivor."""
    survivors = excerpts.survivors(stage.directory, {copy.evidence["kept"] for copy in copies})
    pairs = []
    for copy in copies:
        if survivor := survivors.get(copy.evidence["kept"]):
            kept, dropped = excerpts.compare(survivor.text, copy.document.text)
            sides = [("kept", survivor, kept), ("dropped", copy.document, dropped)]
            pairs.append({"jaccard": copy.evidence["jaccard"], "sides": sides})
    return pairs


def round_robin(queues: Sequence[Sequence[T]], count: int) -> list[T]:
    """Returns at most `count` values: the first of every queue, then the second of every queue ...

    >>> round_robin(["abc", "x", "yz"], 5)
    ['a', 'x', 'y', 'b', 'z']
    """
    length = max(map(len, queues), default=0)
    return [q[k] for k in range(length) for q in queues if k < len(q)][:count]

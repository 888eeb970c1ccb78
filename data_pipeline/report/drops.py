"""Why documents went: reasons with examples, duplicates with their survivors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from data_pipeline.report import excerpts
from data_pipeline.report.flow import HELD_OUT, ReportStage
from data_pipeline.storage.document import Dropped
from data_pipeline.storage.shards import read_dropped

EXAMPLES = 3  # of each reason
PAIRS = 4  # of near duplicates, side by side
MATRIX = 7  # sources

CONTAMINATED = "contaminated"

T = TypeVar("T")

# Reason -> what it means. Any other reason is shown as its name in words.
REASONS = {
    "too_short": "fewer words than the least allowed",
    "too_long": "more words than allowed",
    "empty": "nothing left after cleaning",
    "language": "not in the language asked for, or too uncertain",
    "cut_off": "ends in the middle of a sentence, with little before it",
    "symbols": "too many hash signs and ellipses for its words",
    "duplicate_lines": "too much of it repeats its own earlier lines",
    "not_words": "too few of its words hold a letter",
    "incomplete": "too little of it is complete sentences: menus, lists",
    "no_answer": "the teacher gave no answer, after all attempts",
    "refusal": "the teacher declined to write",
    "meta_talk": "speaks of itself as a model, or of the passage",
    "prompt_leak": "repeats the prompt's own words",
    "template_leak": "holds markers of a chat template",
    "reasoning": "reasoning that was not separated from the answer",
    "copied": "repeats the passage that was to inspire it",
    "loop": "repeats its own runs of words",
    "long_code_lines": "lines too long to have been written by hand",
    "data_not_code": "a table of numbers rather than code",
    "truncated_list": "ends with “as follows:” or an empty item of a list",
    "open_fence": "a code block is opened and not closed",
    "open_environment": "ends inside an environment of LaTeX",
    "open_tag": "ends inside a tag or comment of HTML",
    "open_bracket": "code that ends inside a bracket",
    "exact_duplicate": "equal to one that was kept, up to white space",
    "near_duplicate": "shares most of its word n-grams with one that was kept",
    "invalid_utf8": "bytes that are not UTF-8",
    "invalid_json": "what should be JSON is not",
    "not_an_object": "JSON, but not an object with fields",
    "nul_character": "NUL bytes: binary data or a damaged disk",
    "line_too_long": "longer than any document may be",
    "empty_file": "a file without a row",
    "no_main_text": "a web page without main text",
    "reply_cut": "cut at the most tokens of an answer, before its JSON ended",
    "wrong_schema": "JSON, but not with the fields that were asked for",
    "several_answers": "more than one answer, and no telling which one is meant",
    "unsupported": "too few of its words are the passage's",
    "unsupported_number": "has a number that the passage does not have",
    "off_topic": "has hardly a word in common with the passage",
    "not_in_passage": "said to stand in the passage, and does not",
    "answer_in_question": "the question holds its answer",
    "answer_not_an_option": "the answer is none of the options",
    "options_not_distinct": "two options are the same",
    "relative_option": "an option that speaks of the others",
    "contradiction": "the verdict contradicts its reason, or the passage",
    "hardly_changed": "a paraphrase in nearly the same words",
    "copied_example": "an example of the prompt, handed back",
    "too_many_tokens": "longer than a task may be",
    CONTAMINATED: "holds text of something that is evaluated",
    HELD_OUT: "kept for evaluation, so not trained on",
}


def reasons(
    stages: Sequence[ReportStage], colors: dict[str, str], kind: str
) -> list[dict[str, Any]]:
    """For each stage the reasons of this kind (dropped or bad), the most frequent first."""
    return [
        {"stage": stage, "count": total.total(), "reasons": _reasons(stage, colors, kind)}
        for stage in stages
        if (total := getattr(stage.total, kind)).total()
    ]


def _reasons(stage: ReportStage, colors: dict[str, str], kind: str) -> list[dict[str, Any]]:
    total: Counter[str] = getattr(stage.total, kind)
    chosen = excerpts.choose(stage.directory, EXAMPLES, lambda counts: getattr(counts, kind))
    most = max(total.values())
    return [
        {
            "name": reason,
            "about": REASONS.get(reason, ""),
            "count": count,
            "share": count / max(1, stage.total.documents_in),
            "bars": [
                {"source": source, "count": number, "width": number / most}
                for source in colors
                if source in stage.sources
                and (number := getattr(stage.sources[source], kind)[reason])
            ],
            "examples": [example(dropped) for dropped in chosen[reason]],
        }
        for reason, count in sorted(total.items(), key=lambda item: (-item[1], item[0]))
    ]


def example(dropped: Dropped) -> dict[str, Any]:
    document, evidence = dropped.document, dropped.evidence
    spans = excerpts.evidence_spans(document.text, evidence)
    return {
        "id": document.id,
        "source": document.source,
        "characters": len(document.text),
        "evidence": excerpts.evidence_words(document.text, evidence),
        "segments": excerpts.excerpt(document.text, spans),
    }


def changes(stages: Sequence[ReportStage], colors: dict[str, str]) -> list[dict[str, Any]]:
    """What was replaced or mended inside documents that were kept."""
    return [
        {
            "stage": stage,
            "what": what,
            "count": count,
            "sources": [
                (source, number)
                for source in colors
                if source in stage.sources and (number := stage.sources[source].changed[what])
            ],
        }
        for stage in stages
        for what, count in sorted(stage.total.changed.items(), key=lambda i: (-i[1], i[0]))
    ]


def all_dropped(stage: ReportStage) -> Iterator[Dropped]:
    for file in stage.directory.files("dropped"):
        for _, dropped in read_dropped(file.path):
            yield dropped


# ---- duplicates


def duplicates(stages: Sequence[ReportStage], colors: dict[str, str]) -> dict[str, Any] | None:
    """Counts, a matrix of sources (of the dropped copy, of its survivor), and pairs of texts."""
    stage = next((stage for stage in stages if stage.name == "deduplicate" and stage.loses), None)
    if stage is None:
        return None
    number: Counter[tuple[str, str]] = Counter()
    near: dict[str, dict[str, Dropped]] = {}  # source -> survivor -> a copy of it
    for dropped in all_dropped(stage):
        source, kept = dropped.document.source, dropped.evidence["kept"]
        number[source, _source_of(kept, colors)] += 1
        if dropped.evidence["jaccard"] < 1 and len(near.setdefault(source, {})) < PAIRS:
            near[source].setdefault(kept, dropped)
    names = _most(number, colors)
    return {
        "count": stage.total.dropped.total(),
        "reasons": sorted(stage.total.dropped.items()),
        "names": names,
        "unnamed": len({source for pair in number for source in pair} - {*names, ""}),
        "across": sum(n for (copy, survivor), n in number.items() if copy != survivor),
        "matrix": [
            {
                "name": copy,
                "cells": [
                    (number[copy, survivor], number[copy, survivor] / max(number.values()))
                    for survivor in names
                ],
                "total": sum(n for (source, _), n in number.items() if source == copy),
            }
            for copy in names
        ],
        "pairs": _pairs(stage, in_turns([list(near[s].values()) for s in sorted(near)], PAIRS)),
    }


def _most(number: Counter[tuple[str, str]], colors: Iterable[str]) -> list[str]:
    """The sources of the matrix: those with copies in others first, as many as a page is wide."""
    weight: Counter[str] = Counter()
    for (copy, survivor), count in number.items():
        for source in (copy, survivor):
            weight[source] += count if copy == survivor else count << 40
    most = {source for source, _ in weight.most_common(MATRIX)}
    return [source for source in colors if source in most]


def _source_of(identity: str, sources: Iterable[str]) -> str:
    """The source of a document by its id, which is read as SOURCE/..., or "" where it is not so."""
    fitting = [source for source in sources if identity.startswith(source + "/")]
    return max(fitting, key=len, default="")


def _pairs(stage: ReportStage, copies: Sequence[Dropped]) -> list[dict[str, Any]]:
    """Near duplicates beside their survivors."""
    kept = excerpts.survivors(stage.directory, {copy.evidence["kept"] for copy in copies})
    pairs = []
    for copy in copies:
        if survivor := kept.get(copy.evidence["kept"]):
            one, other = excerpts.compare(survivor.text, copy.document.text)
            sides = [("kept", survivor, one), ("dropped", copy.document, other)]
            pairs.append({"jaccard": copy.evidence["jaccard"], "sides": sides})
    return pairs


def in_turns(queues: Sequence[Sequence[T]], most: int) -> list[T]:
    """The first of every queue, then the second of every queue ...; at most so many.

    >>> in_turns(["abc", "x", "yz"], 5)
    ['a', 'x', 'y', 'b', 'z']
    """
    length = max(map(len, queues), default=0)
    return [q[k] for k in range(length) for q in queues if k < len(q)][:most]

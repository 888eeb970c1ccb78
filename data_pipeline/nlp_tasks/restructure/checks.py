"""What a teacher's object must hold beyond its schema, kind by kind.

A check yields its objections, each with a stable reason and evidence; the first one counts. They
ask whether the answer can be had from the passage and whether the task makes sense, by words and
numbers alone: cheap, and the same everywhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_pipeline.nlp_tasks.kinds.rendering import BLANK
from data_pipeline.text import distractors

MIN_SUPPORT = 0.5  # share of an answer's content words that the passage has, too
MIN_TOPICAL = 0.2  # the same of a question's or a title's
MAX_SUMMARY = 0.6  # of the passage's words
MAX_COPIED = 0.5  # share of a summary's word 8-grams that are the passage's
MAX_SAME = 0.85  # similarity of a sentence to its paraphrase, by characters
MIN_KEPT = 0.25  # share of a sentence's content words that its paraphrase keeps
ANSWER_WORDS = 120
GAP_WORDS = 5
TITLE_WORDS = 12
KEYWORD_WORDS = 5
_COPY_NGRAM = 8
_STEM = 4  # letters, at least, that two forms of one word have in common

_FIGURES = frozenset({"code", "math"})  # categories where an answer may compute new numbers
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]{3,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# Speaks of a text that the reader has to have before him.
_REFERENCE = re.compile(
    r"\b(?:the|this|that|these|given|provided)\s+(?:\w+\s+){0,2}?(?:passage|text|excerpt|snippet|author"
    r"|narrator|paragraph|article|document|section|statement|code|function|program|example|table|figure"
    r"|story|speaker|clause|provision)s?\b"
    r"|\b(?:according to|mentioned|described|as stated|shown (?:here|above|below)|above|below)\b",
    re.I,
)
_REFUSAL = re.compile(
    r"\bas an? (?:ai|language model)\b|\b(?:i'm|i am) (?:sorry|unable)\b"
    r"|\bi (?:cannot|can't|do not have)\b"
    r"|\bnot (?:mentioned|provided|specified|stated|given|enough information)\b"
    r"|\b(?:cannot|can't|can not) be (?:determined|answered)\b|\bunanswerable\b|\bno information\b",
    re.I,
)
_RELATIVE_OPTION = re.compile(
    r"\b(?:all|none|both|neither|any)\b.*\b(?:above|these|them|options?|[A-D])\b", re.I
)
_YES_NO = re.compile(r"(?:yes|no)\b", re.I)
_VERDICT = re.compile(
    r"(?:the statement is\s+)?(?P<yes>true|correct|yes)\b|(?P<no>false|no)\b", re.I
)


class Objection(NamedTuple):
    reason: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """What a task was made from."""

    text: str
    category: str = ""


Check = Callable[[dict[str, Any], SourcePassage], Iterator[Objection]]


def object_to(kind: str, item: dict[str, Any], passage: SourcePassage) -> Objection | None:
    """Why a tidied object (see tasks.py), which fits its schema, makes no good task; else None.

    >>> object_to("title", {"title": "Cats"}, Passage("Basalt forms when lava cools."))
    Objection(reason='too_short', evidence={'words': 1})
    """
    for check in (_texts, CHECKS[kind]):
        if objection := next(check(item, passage), None):
            return objection
    return None


def refers(text: str) -> bool:
    """Does it speak of a passage that the reader has to see?

    >>> refers("What does the author say of tides?"), refers("What is basalt?")
    (True, False)
    """
    return _REFERENCE.search(text) is not None


def _texts(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    for key, value in sorted(item.items()):
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if not text:
                yield Objection("empty_field", {"field": key})
            if _CONTROL.search(text):
                yield Objection("control_character", {"field": key, "text": ascii(text[:200])})
            refusal = _REFUSAL.search(text)
            if refusal and refusal[0].lower() not in passage.text.lower():
                yield Objection("refusal", {"field": key, "text": refusal[0]})


def _question(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    question = item["question"]
    if not question.endswith("?"):
        yield Objection("no_question", {"question": question})
    if len(question.split()) < 3:
        yield Objection("too_short", {"words": len(question.split())})
    if (share := support(question, passage.text)) < MIN_TOPICAL:
        yield Objection("off_topic", {"share": share})


def _question_answering(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    yield from _question(item, passage)
    question, answer = item["question"], item["answer"]
    if len(answer.split()) > ANSWER_WORDS:
        yield Objection("too_long_answer", {"words": len(answer.split())})
    known = telling(question) | set(_NUMBER.findall(question))
    said = telling(answer) | set(_NUMBER.findall(answer))
    if _same(question, answer) or (said and said <= known):
        yield Objection("answer_in_question", {"answer": answer})
    if not _YES_NO.match(answer):
        yield from _supported(answer, passage)


def _multiple_choice(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    yield from _question(item, passage)
    options, answer = item["options"], item["answer"]
    if len({_plain(option) for option in options}) < len(options):
        yield Objection("options_not_distinct", {"options": options})
    if answer not in options:
        yield Objection("answer_not_an_option", {"answer": answer, "options": options})
    if relative := [option for option in options if _RELATIVE_OPTION.search(option)]:
        yield Objection("relative_option", {"option": relative[0]})
    others = [len(option) for option in options if option != answer]
    if len(answer) > 40 and len(answer) > 3 * max(others):
        yield Objection("telling_length", {"answer": answer})
    yield from _supported(answer, passage)


def _cloze(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    sentence, answer = item["sentence"], item["answer"]
    if (gaps := sentence.count(BLANK)) != 1:
        yield Objection("gaps", {"gaps": gaps, "sentence": sentence})
    if len(answer.split()) > GAP_WORDS:
        yield Objection("too_long_answer", {"words": len(answer.split())})
    filled = sentence.replace(BLANK, answer)
    if find(filled, passage.text) is None:
        yield Objection("not_in_passage", {"sentence": filled})
    if len(sentence.split()) < 4:
        yield Objection("too_short", {"words": len(sentence.split())})
    if find(answer, sentence.replace(BLANK, " ")) is not None:
        yield Objection("answer_shown", {"answer": answer})
    if answer.lower() in distractors.STOP_WORDS or not re.search(r"\w", answer):
        yield Objection("trivial_answer", {"answer": answer})


def _summary(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    summary = item["summary"]
    length, most = len(summary.split()), int(MAX_SUMMARY * len(passage.text.split()))
    if length > most:
        yield Objection("too_long_answer", {"words": length, "most": most})
    if length < 6:
        yield Objection("too_short", {"words": length})
    if (share := copied(summary, passage.text)) > MAX_COPIED:
        yield Objection("copied", {"share": share})
    yield from _supported(summary, passage)


def _true_false(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    statement, verdict, reason = item["statement"], item["verdict"], item["reason"]
    if len(statement.split()) < 4 or statement.endswith("?"):
        yield Objection("no_statement", {"statement": statement})
    if (share := support(statement, passage.text)) < MIN_TOPICAL:
        yield Objection("off_topic", {"share": share})
    if not verdict and find(statement, passage.text) is not None:
        yield Objection("contradiction", {"statement": statement, "verdict": verdict})
    said = _VERDICT.match(reason)
    if said and (said["yes"] is not None) != verdict:
        yield Objection("contradiction", {"reason": reason, "verdict": verdict})
    if len(reason.split()) < 4 or _same(statement, reason):
        yield Objection("no_reason", {"reason": reason})
    yield from _supported(reason, passage)


def _paraphrase(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    sentence, other = item["sentence"], item["paraphrase"]
    if find(sentence, passage.text) is None:
        yield Objection("not_in_passage", {"sentence": sentence})
    if len(sentence.split()) < 5:
        yield Objection("too_short", {"words": len(sentence.split())})
    same = difflib.SequenceMatcher(None, _plain(sentence), _plain(other), autojunk=False).ratio()
    if same > MAX_SAME:
        yield Objection("hardly_changed", {"similarity": round(same, 3)})
    if not 0.4 <= len(other) / len(sentence) <= 2.5:
        yield Objection("length_differs", {"characters": [len(sentence), len(other)]})
    if (share := support(sentence, other)) < MIN_KEPT:
        yield Objection("too_different", {"share": share})
    if set(_NUMBER.findall(sentence)) != set(_NUMBER.findall(other)):
        yield Objection("numbers_differ", {"paraphrase": other})


def _keywords(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    given = item["keywords"]
    if len({_plain(keyword) for keyword in given}) < len(given):
        yield Objection("keywords_not_distinct", {"keywords": given})
    for keyword in given:
        if len(keyword.split()) > KEYWORD_WORDS:
            yield Objection("too_long_answer", {"keyword": keyword})
        if find(keyword, passage.text, whole_words=True) is None:
            yield Objection("not_in_passage", {"keyword": keyword})
        if keyword.lower() in distractors.STOP_WORDS or len(keyword) < 2:
            yield Objection("trivial_answer", {"keyword": keyword})


def _title(item: dict[str, Any], passage: SourcePassage) -> Iterator[Objection]:
    title = item["title"]
    length = len(title.split())
    if length < 2:
        yield Objection("too_short", {"words": length})
    if length > TITLE_WORDS or "\n" in title:
        yield Objection("too_long_answer", {"words": length})
    if any(_plain(title) == _plain(line.strip("#= ")) for line in passage.text.split("\n")):
        yield Objection("copied", {"title": title})
    if (share := support(title, passage.text)) < MIN_TOPICAL:
        yield Objection("off_topic", {"share": share})


CHECKS: dict[str, Check] = {
    "question_answering": _question_answering,
    "multiple_choice": _multiple_choice,
    "cloze": _cloze,
    "summary": _summary,
    "true_false": _true_false,
    "paraphrase": _paraphrase,
    "keywords": _keywords,
    "title": _title,
}


def _supported(text: str, passage: SourcePassage) -> Iterator[Objection]:
    """The words and numbers of an answer come from the passage."""
    if (share := support(text, passage.text)) < MIN_SUPPORT:
        yield Objection("unsupported", {"share": share, "text": text})
    if passage.category not in _FIGURES:
        numbers = set(_NUMBER.findall(passage.text))
        if strange := [number for number in _NUMBER.findall(text) if number not in numbers]:
            yield Objection("unsupported_number", {"number": strange[0]})


def support(text: str, passage: str) -> float:
    """The share of a text's content words that the passage has in some form.

    A text without such words is there as a whole, or not at all.

    >>> support("Basalt cooled slowly on Mars.", "Where basalt cools slowly, it cracks.")
    0.75
    """
    found = telling(text)
    if not found:
        return float(find(text.strip(".!? "), passage) is not None)
    known = passage.lower()
    stems = [word[: max(_STEM, len(word) - 3)] for word in found]
    return round(sum(re.search(rf"\b{stem}", known) is not None for stem in stems) / len(found), 3)


def telling(text: str) -> set[str]:
    """The words of a text that carry its meaning, in lower case."""
    return {word for word in _WORD.findall(text.lower()) if word not in distractors.STOP_WORDS}


def copied(text: str, passage: str) -> float:
    """The share of a text's word 8-grams that the passage has; of a short text, all or nothing."""
    ours, theirs = _plain(text).split(), _plain(passage).split()
    n = min(_COPY_NGRAM, len(ours))
    known = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
    grams = [tuple(ours[i : i + n]) for i in range(len(ours) - n + 1)]
    return round(sum(gram in known for gram in grams) / max(1, len(grams)), 3)


def find(part: str, text: str, whole_words: bool = False) -> re.Match[str] | None:
    """Where `part` stands in the text, whatever its case, line breaks and kinds of quotes."""
    pattern = r"\s+".join(re.escape(word) for word in straight(part).split())
    if not pattern:
        return None
    if whole_words:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.search(pattern, straight(text), re.I)


def straight(text: str) -> str:
    """Typographic quotes as plain ones, character for character."""
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})


def _plain(text: str) -> str:
    """A text without case and signs, for comparisons; as it is where it has signs only."""
    return " ".join(re.findall(r"\w+", text.lower())) or text.strip()


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)

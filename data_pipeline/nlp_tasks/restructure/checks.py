"""Checks of a teacher's task beyond its schema, by kind.

A check yields failures, each with a stable reason and evidence; the first one is the drop reason.
The checks test whether the passage supports the answer and whether the task is well formed. They
compare words and numbers only, so they are fast and deterministic.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_pipeline.nlp_tasks.kinds.rendering import BLANK
from data_pipeline.text import distractors

MIN_SUPPORT = 0.5  # share of an answer's content words that occur in the passage
MIN_TOPICAL = 0.2  # share of a question's or a title's content words that occur in the passage
MAX_SUMMARY = 0.6  # length of a summary in words, as a share of the passage's
MAX_COPIED = 0.5  # share of a summary's word 8-grams that occur in the passage
MAX_SIMILARITY = 0.85  # of a sentence and its paraphrase, by characters
MIN_RETAINED = 0.25  # share of a sentence's content words that occur in its paraphrase
MAX_ANSWER_WORDS = 120
MAX_GAP_WORDS = 5
MAX_TITLE_WORDS = 12
MAX_KEYWORD_WORDS = 5
_COPIED_WORDS = 8  # length of the n-grams that are compared with the passage
_MIN_STEM = 4  # letters that two forms of one word share at the start

_COMPUTED = frozenset({"code", "math"})  # categories in which an answer may compute new numbers
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]{3,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# A reference to a text that the reader must have seen.
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


class CheckFailure(NamedTuple):
    """A drop reason with its evidence."""

    reason: str
    evidence: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SourcePassage:
    """The passage of a request and its category."""

    text: str
    category: str = ""


Check = Callable[[dict[str, Any], SourcePassage], Iterator[CheckFailure]]


def first_failure(kind: str, item: dict[str, Any], passage: SourcePassage) -> CheckFailure | None:
    """Returns the first failed check of a task, or None if it passes all of them.

    >>> first_failure("title", {"title": "Cats"}, SourcePassage("Basalt forms when lava cools."))
    CheckFailure(reason='too_short', evidence={'words': 1})

    Args:
      kind: the kind of the task.
      item: an object that matches the schema of its kind, normalized (see tasks.normalize).
      passage: the passage of its request.
    """
    for check in (_check_texts, CHECKS[kind]):
        if failure := next(check(item, passage), None):
            return failure
    return None


def refers_to_passage(text: str) -> bool:
    """Returns whether a text refers to a passage that the reader must have seen.

    >>> refers_to_passage("What does the author say?"), refers_to_passage("What is basalt?")
    (True, False)
    """
    return _REFERENCE.search(text) is not None


def _check_texts(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks all texts of a task: not empty, no control characters, not a refusal."""
    for key, value in sorted(item.items()):
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if not text:
                yield CheckFailure("empty_field", {"field": key})
            if _CONTROL.search(text):
                yield CheckFailure("control_character", {"field": key, "text": ascii(text[:200])})
            refusal = _REFUSAL.search(text)
            if refusal and refusal[0].lower() not in passage.text.lower():
                yield CheckFailure("refusal", {"field": key, "text": refusal[0]})


def _check_question(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a question: it has a question mark, three words, and words of the passage."""
    question = item["question"]
    if not question.endswith("?"):
        yield CheckFailure("no_question", {"question": question})
    if len(question.split()) < 3:
        yield CheckFailure("too_short", {"words": len(question.split())})
    if (share := support(question, passage.text)) < MIN_TOPICAL:
        yield CheckFailure("off_topic", {"share": share})


def _check_question_answering(
    item: dict[str, Any], passage: SourcePassage
) -> Iterator[CheckFailure]:
    """Checks a question and its answer, which must add words and be supported."""
    yield from _check_question(item, passage)
    question, answer = item["question"], item["answer"]
    if len(answer.split()) > MAX_ANSWER_WORDS:
        yield CheckFailure("too_long_answer", {"words": len(answer.split())})
    asked = content_words(question) | set(_NUMBER.findall(question))
    answered = content_words(answer) | set(_NUMBER.findall(answer))
    if _same(question, answer) or (answered and answered <= asked):
        yield CheckFailure("answer_in_question", {"answer": answer})
    if not _YES_NO.match(answer):
        yield from _check_support(answer, passage)


def _check_multiple_choice(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a question and its options: distinct, independent, with a supported answer."""
    yield from _check_question(item, passage)
    options, answer = item["options"], item["answer"]
    if len({_plain(option) for option in options}) < len(options):
        yield CheckFailure("options_not_distinct", {"options": options})
    if answer not in options:
        yield CheckFailure("answer_not_an_option", {"answer": answer, "options": options})
    if relative := [option for option in options if _RELATIVE_OPTION.search(option)]:
        yield CheckFailure("relative_option", {"option": relative[0]})
    others = [len(option) for option in options if option != answer]
    if len(answer) > 40 and len(answer) > 3 * max(others):
        yield CheckFailure("telling_length", {"answer": answer})
    yield from _check_support(answer, passage)


def _check_cloze(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a cloze sentence: it has one gap and, when filled, occurs in the passage."""
    sentence, answer = item["sentence"], item["answer"]
    if (gaps := sentence.count(BLANK)) != 1:
        yield CheckFailure("gaps", {"gaps": gaps, "sentence": sentence})
    if len(answer.split()) > MAX_GAP_WORDS:
        yield CheckFailure("too_long_answer", {"words": len(answer.split())})
    filled = sentence.replace(BLANK, answer)
    if find(filled, passage.text) is None:
        yield CheckFailure("not_in_passage", {"sentence": filled})
    if len(sentence.split()) < 4:
        yield CheckFailure("too_short", {"words": len(sentence.split())})
    if find(answer, sentence.replace(BLANK, " ")) is not None:
        yield CheckFailure("answer_shown", {"answer": answer})
    if answer.lower() in distractors.STOP_WORDS or not re.search(r"\w", answer):
        yield CheckFailure("trivial_answer", {"answer": answer})


def _check_summary(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a summary: shorter than the passage, not copied, and supported."""
    summary = item["summary"]
    length, max_words = len(summary.split()), int(MAX_SUMMARY * len(passage.text.split()))
    if length > max_words:
        yield CheckFailure("too_long_answer", {"words": length, "max_words": max_words})
    if length < 6:
        yield CheckFailure("too_short", {"words": length})
    if (share := copied(summary, passage.text)) > MAX_COPIED:
        yield CheckFailure("copied", {"share": share})
    yield from _check_support(summary, passage)


def _check_true_false(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a statement, its verdict and its reason, which must agree."""
    statement, verdict, reason = item["statement"], item["verdict"], item["reason"]
    if len(statement.split()) < 4 or statement.endswith("?"):
        yield CheckFailure("no_statement", {"statement": statement})
    if (share := support(statement, passage.text)) < MIN_TOPICAL:
        yield CheckFailure("off_topic", {"share": share})
    if not verdict and find(statement, passage.text) is not None:
        yield CheckFailure("contradiction", {"statement": statement, "verdict": verdict})
    verdict_in_reason = _VERDICT.match(reason)
    if verdict_in_reason and (verdict_in_reason["yes"] is not None) != verdict:
        yield CheckFailure("contradiction", {"reason": reason, "verdict": verdict})
    if len(reason.split()) < 4 or _same(statement, reason):
        yield CheckFailure("no_reason", {"reason": reason})
    yield from _check_support(reason, passage)


def _check_paraphrase(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a sentence of the passage and its paraphrase: other words, same numbers."""
    sentence, other = item["sentence"], item["paraphrase"]
    if find(sentence, passage.text) is None:
        yield CheckFailure("not_in_passage", {"sentence": sentence})
    if len(sentence.split()) < 5:
        yield CheckFailure("too_short", {"words": len(sentence.split())})
    matcher = difflib.SequenceMatcher(None, _plain(sentence), _plain(other), autojunk=False)
    if (similarity := matcher.ratio()) > MAX_SIMILARITY:
        yield CheckFailure("hardly_changed", {"similarity": round(similarity, 3)})
    if not 0.4 <= len(other) / len(sentence) <= 2.5:
        yield CheckFailure("length_differs", {"characters": [len(sentence), len(other)]})
    if (share := support(sentence, other)) < MIN_RETAINED:
        yield CheckFailure("too_different", {"share": share})
    if set(_NUMBER.findall(sentence)) != set(_NUMBER.findall(other)):
        yield CheckFailure("numbers_differ", {"paraphrase": other})


def _check_keywords(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks keywords: distinct, short, and words of the passage."""
    keywords = item["keywords"]
    if len({_plain(keyword) for keyword in keywords}) < len(keywords):
        yield CheckFailure("keywords_not_distinct", {"keywords": keywords})
    for keyword in keywords:
        if len(keyword.split()) > MAX_KEYWORD_WORDS:
            yield CheckFailure("too_long_answer", {"keyword": keyword})
        if find(keyword, passage.text, whole_words=True) is None:
            yield CheckFailure("not_in_passage", {"keyword": keyword})
        if keyword.lower() in distractors.STOP_WORDS or len(keyword) < 2:
            yield CheckFailure("trivial_answer", {"keyword": keyword})


def _check_title(item: dict[str, Any], passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks a title: two to twelve words, not a line of the passage, on its topic."""
    title = item["title"]
    length = len(title.split())
    if length < 2:
        yield CheckFailure("too_short", {"words": length})
    if length > MAX_TITLE_WORDS or "\n" in title:
        yield CheckFailure("too_long_answer", {"words": length})
    if any(_plain(title) == _plain(line.strip("#= ")) for line in passage.text.split("\n")):
        yield CheckFailure("copied", {"title": title})
    if (share := support(title, passage.text)) < MIN_TOPICAL:
        yield CheckFailure("off_topic", {"share": share})


CHECKS: dict[str, Check] = {
    "question_answering": _check_question_answering,
    "multiple_choice": _check_multiple_choice,
    "cloze": _check_cloze,
    "summary": _check_summary,
    "true_false": _check_true_false,
    "paraphrase": _check_paraphrase,
    "keywords": _check_keywords,
    "title": _check_title,
}


def _check_support(text: str, passage: SourcePassage) -> Iterator[CheckFailure]:
    """Checks that the content words and numbers of an answer come from the passage."""
    if (share := support(text, passage.text)) < MIN_SUPPORT:
        yield CheckFailure("unsupported", {"share": share, "text": text})
    if passage.category not in _COMPUTED:
        numbers = set(_NUMBER.findall(passage.text))
        if new := [number for number in _NUMBER.findall(text) if number not in numbers]:
            yield CheckFailure("unsupported_number", {"number": new[0]})


def support(text: str, passage: str) -> float:
    """Returns the share of a text's content words of which the passage contains a form.

    A form of a word is a word with the same stem. For a text without content words, the result is
    1.0 if the passage contains the whole text, else 0.0.

    >>> support("Basalt cooled slowly on Mars.", "Where basalt cools slowly, it cracks.")
    0.75
    """
    words = content_words(text)
    if not words:
        return float(find(text.strip(".!? "), passage) is not None)
    lower = passage.lower()
    # The stem leaves out the last three letters, which inflection may change.
    stems = [word[: max(_MIN_STEM, len(word) - 3)] for word in words]
    return round(sum(re.search(rf"\b{stem}", lower) is not None for stem in stems) / len(words), 3)


def content_words(text: str) -> set[str]:
    """Returns the words of at least three letters that are not stop words, in lower case."""
    return {word for word in _WORD.findall(text.lower()) if word not in distractors.STOP_WORDS}


def copied(text: str, passage: str) -> float:
    """Returns the share of a text's word 8-grams that occur in the passage.

    A text of fewer than eight words is one n-gram, so the result is 0.0 or 1.0.
    """
    words, passage_words = _plain(text).split(), _plain(passage).split()
    n = min(_COPIED_WORDS, len(words))
    in_passage = {tuple(passage_words[i : i + n]) for i in range(len(passage_words) - n + 1)}
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return round(sum(ngram in in_passage for ngram in ngrams) / max(1, len(ngrams)), 3)


def find(part: str, text: str, whole_words: bool = False) -> re.Match[str] | None:
    """Returns the first match of `part` in a text; case, whitespace and quotes may differ."""
    pattern = r"\s+".join(re.escape(word) for word in straighten_quotes(part).split())
    if not pattern:
        return None
    if whole_words:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.search(pattern, straighten_quotes(text), re.I)


def straighten_quotes(text: str) -> str:
    """Replaces typographic quotes by ASCII ones; positions of characters remain the same."""
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})


def _plain(text: str) -> str:
    """Returns the words of a text in lower case, without punctuation, for comparisons.

    A text without words is returned unchanged.
    """
    return " ".join(re.findall(r"\w+", text.lower())) or text.strip()


def _same(one: str, other: str) -> bool:
    """Returns whether two texts have the same words, regardless of case and punctuation."""
    return _plain(one) == _plain(other)

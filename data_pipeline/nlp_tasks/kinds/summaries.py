"""Summaries and titles: lead sentences, conclusions and headings, each with its text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.kinds.source_text import (
    NlpTask,
    SourceText,
    content_words,
    render,
)
from data_pipeline.text import distractors, prose
from data_pipeline.text.word_lists import GENERIC_TITLE

_CONCLUSION = re.compile(r"\bCONCLUSIONS?\s*:\s*(\S.{60,})\Z", re.S)
_PASSAGE_WORDS = 40, 180  # minimum and maximum
_LEAD_WORDS = 9, 35  # minimum and maximum
_LABELLED = re.compile(r"[A-Z][A-Z /]{3,}:|Abstract |ABSTRACT ")
_TITLE_SHARE = 0.6  # share of the title tasks that ask for the title; the others ask for the text
_MIN_SHARED = 4  # content words that a summary shares with its text


def summary(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields the conclusion of a structured abstract, then lead sentences in random order."""
    if match := _CONCLUSION.search(source.text):
        before = source.text[: match.start()].strip()
        if len(before.split()) >= _PASSAGE_WORDS[0]:
            yield render(templates.CONCLUSION, match[1].strip(), random_, text=before)
    for section in random_.sample(source.sections, len(source.sections)):
        yield from _lead(section, random_)


def title(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields requests for the heading of a section's text or, less often, for the text."""
    for section in random_.sample(source.sections, len(source.sections)):
        text = _passage_of(section.paragraphs)
        if not text or not _fits(section.heading, text):
            continue
        if random_.random() < _TITLE_SHARE:
            yield rendering.title(text, section.heading, random_)
        else:
            yield render(templates.TEXT_OF_TITLE, text, random_, title=section.heading)


def _lead(section: prose.Section, random_: random.Random) -> Iterator[NlpTask]:
    """Yields at most one lead sentence of a section, as the summary of its paragraph's rest."""
    for paragraph in random_.sample(section.paragraphs, len(section.paragraphs)):
        lead, rest = paragraph[0], _passage_of([paragraph[1:]])
        if (
            rest
            and prose.is_plain(lead)
            and prose.stands_alone(lead)
            and not _LABELLED.match(lead)
            and _LEAD_WORDS[0] <= len(lead.split()) <= _LEAD_WORDS[1]
            and len(content_words(lead) & content_words(rest)) >= _MIN_SHARED
        ):
            yield render(templates.LEAD, lead, random_, text=rest)
            return


def _passage_of(paragraphs: list[list[str]]) -> str:
    """Returns the first sentences up to the maximum length of a passage.

    A paragraph that is mostly not plain prose ends the passage. Returns "" if the passage is
    shorter than the minimum.
    """
    min_words, max_words = _PASSAGE_WORDS
    chosen: list[str] = []
    count = 0
    for paragraph in paragraphs:
        if not paragraph or sum(map(prose.is_plain, paragraph)) < 0.7 * len(paragraph):
            break
        fitting: list[str] = []
        for sentence in paragraph:
            count += len(sentence.split())
            if count > max_words:
                break
            fitting.append(sentence)
        if fitting:
            chosen.append(" ".join(fitting))
        if count > max_words:
            break
    text = "\n\n".join(chosen)
    return text if len(text.split()) >= min_words else ""


def _fits(heading: str, text: str) -> bool:
    """Returns whether a heading is a title of words that share a stem with the text."""
    bare = re.sub(
        r"^(?:(?:chapter|section|part|appendix)\b\s*)?[\dIVX]*[.:)\s]*", "", heading, flags=re.I
    )
    names = bare.split()
    if not 2 <= len(names) <= 12 or not re.fullmatch(r"[\w ,:'’?!&()–—-]+", bare) or "_" in bare:
        return False
    specific = content_words(bare) - GENERIC_TITLE
    return bool(specific) and any(distractors.contains_stem(word, text) for word in specific)

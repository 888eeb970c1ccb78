"""What tasks are made of: a document's plain sentences, where they stand, and its vocabulary."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_pipeline.text import distractors, prose

MAX_CONTEXT_WORDS = 120

_MAX_CHARACTERS = 40_000  # of a long document: one stretch of it
_WORKED = re.compile(r"^Question:.*^Answer:.* = [\d(]", re.M | re.S)


class NlpTask(NamedTuple):
    text: str  # prompt and answer
    answer: str  # the end of the text


class SentenceContext(NamedTuple):
    """A sentence and where it stands."""

    sentence: str
    before: list[str]  # of its paragraph
    after: list[str]
    heading: str


@dataclass(slots=True)
class SourceText:
    """A document as the tasks see it."""

    text: str
    sections: list[prose.Section]
    places: list[SentenceContext]  # the plain sentences
    vocabulary: distractors.DistractorPool

    @classmethod
    def of(cls, text: str, random_: random.Random) -> SourceText:
        if len(text) > _MAX_CHARACTERS:
            start = random_.randrange(len(text) - _MAX_CHARACTERS)
            start = text.find("\n\n", start) + 2 if "\n\n" in text[start:] else 0
            text = text[start : start + _MAX_CHARACTERS]
        # A worked problem is a task as it is, and its sentences are no prose.
        sections = [] if _WORKED.search(text) else prose.sections(text)
        places = [
            SentenceContext(sentence, paragraph[:i], paragraph[i + 1 :], section.heading)
            for section in sections
            for paragraph in section.paragraphs
            for i, sentence in enumerate(paragraph)
            if prose.is_plain(sentence)
        ]
        return cls(
            text,
            sections,
            places,
            distractors.DistractorPool.from_sentences(place.sentence for place in places),
        )


def fill(templates: Sequence[str], answer: str, random_: random.Random, **parts: str) -> NlpTask:
    """One of the phrasings, in which {answer} comes last."""
    template = random_.choice(templates)
    assert template.endswith("{answer}"), template
    return NlpTask(template.format(answer=answer, **parts), answer)


def content(text: str) -> set[str]:
    """The words of a text that carry its meaning, in lower case."""
    found = {word.lower() for word in distractors.WORD.findall(text)}
    return {word for word in found if len(word) > 3 and word not in distractors.STOP_WORDS}


def passage(place: SentenceContext) -> str:
    """The sentence within its paragraph, up to the limit of a context."""
    before = trim(place.before, MAX_CONTEXT_WORDS - len(place.sentence.split()))
    taken = [before, place.sentence] if before else [place.sentence]
    room = MAX_CONTEXT_WORDS - len(" ".join(taken).split())
    for sentence in place.after:
        room -= len(sentence.split())
        if room < 0 or not prose.is_plain(sentence):
            break
        taken.append(sentence)
    return " ".join(taken)


def trim(sentences: list[str], most: int) -> str:
    """The last of the sentences that fit together."""
    taken: list[str] = []
    for sentence in reversed(sentences):
        most -= len(sentence.split())
        if most < 0 or not prose.is_plain(sentence):
            break
        taken.insert(0, sentence)
    return " ".join(taken)

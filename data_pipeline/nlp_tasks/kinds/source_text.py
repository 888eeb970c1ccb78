"""The text from which tasks are made: its plain sentences with their context, and its words."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_pipeline.text import distractors, prose

MAX_CONTEXT_WORDS = 120

_MAX_CHARACTERS = 40_000  # of a longer document, a random excerpt of this length is used
_WORKED_PROBLEM = re.compile(r"^Question:.*^Answer:.* = [\d(]", re.M | re.S)


class NlpTask(NamedTuple):
    """A task: `text` is the prompt followed by the answer, so it ends with `answer`."""

    text: str
    answer: str


class SentenceContext(NamedTuple):
    """A plain sentence with the other sentences of its paragraph and the heading of its section."""

    text: str
    before: list[str]
    after: list[str]
    heading: str


@dataclass(slots=True)
class SourceText:
    """A document, split into what the rules use.

    Attributes:
      text: the document, or an excerpt of a long one.
      sections: its sections of prose.
      sentences: its plain sentences (see prose.is_plain).
      pool: the words of these sentences, from which distractors are chosen.
    """

    text: str
    sections: list[prose.Section]
    sentences: list[SentenceContext]
    pool: distractors.DistractorPool

    @classmethod
    def of(cls, text: str, random_: random.Random) -> SourceText:
        """Parses a document; `random_` selects the excerpt of a long one."""
        if len(text) > _MAX_CHARACTERS:
            start = random_.randrange(len(text) - _MAX_CHARACTERS)
            start = text.find("\n\n", start) + 2 if "\n\n" in text[start:] else 0
            text = text[start : start + _MAX_CHARACTERS]
        # A worked problem is a task as it is, and its sentences are not prose.
        sections = [] if _WORKED_PROBLEM.search(text) else prose.sections(text)
        sentences = [
            SentenceContext(sentence, paragraph[:i], paragraph[i + 1 :], section.heading)
            for section in sections
            for paragraph in section.paragraphs
            for i, sentence in enumerate(paragraph)
            if prose.is_plain(sentence)
        ]
        pool = distractors.DistractorPool.from_sentences(one.text for one in sentences)
        return cls(text, sections, sentences, pool)


def render(templates: Sequence[str], answer: str, random_: random.Random, **fields: str) -> NlpTask:
    """Renders one of the templates, chosen at random, with the answer at its end."""
    template = random_.choice(templates)
    assert template.endswith("{answer}"), template
    return NlpTask(template.format(answer=answer, **fields), answer)


def content_words(text: str) -> set[str]:
    """Returns the words of more than three letters that are not stop words, in lower case."""
    lower = {word.lower() for word in distractors.WORD.findall(text)}
    return {word for word in lower if len(word) > 3 and word not in distractors.STOP_WORDS}


def passage_around(sentence: SentenceContext) -> str:
    """Returns the sentence with as much of its paragraph as MAX_CONTEXT_WORDS allows."""
    before = last_sentences(sentence.before, MAX_CONTEXT_WORDS - len(sentence.text.split()))
    passage = [before, sentence.text] if before else [sentence.text]
    remaining = MAX_CONTEXT_WORDS - len(" ".join(passage).split())
    for following in sentence.after:
        remaining -= len(following.split())
        if remaining < 0 or not prose.is_plain(following):
            break
        passage.append(following)
    return " ".join(passage)


def last_sentences(sentences: Sequence[str], max_words: int) -> str:
    """Returns the last plain sentences that together have at most `max_words` words."""
    chosen: list[str] = []
    remaining = max_words
    for sentence in reversed(sentences):
        remaining -= len(sentence.split())
        if remaining < 0 or not prose.is_plain(sentence):
            break
        chosen.insert(0, sentence)
    return " ".join(chosen)

"""Cloze: a word is left out of a sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import rendering
from data_pipeline.nlp_tasks.kinds.source_text import (
    MAX_CONTEXT_WORDS,
    NlpTask,
    SentenceContext,
    SourceText,
    trim,
)
from data_pipeline.text import distractors, prose


def cloze(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """A sentence with a gap, after the sentences before it."""
    for place, match, context in gaps(material, random_):
        text = f"{context} {with_blank(place.sentence, match)}".strip()
        if len(text.split()) >= 12:
            yield rendering.cloze(text, match[0], random_)


def gaps(
    material: SourceText, random_: random.Random
) -> Iterator[tuple[SentenceContext, re.Match[str], str]]:
    """Sentences in random order: (place, the word to leave out, a context without it)."""
    for place in random_.sample(material.places, len(material.places)):
        before = place.before[-2:]
        if not all(map(prose.is_plain, before)):
            before = []
        if not before and not prose.stands_alone(place.sentence):
            continue
        context = trim(before, MAX_CONTEXT_WORDS)
        # Not in the first third, where nothing leads up to it; numbers only if said elsewhere too.
        matches = [
            match
            for match in distractors.cloze_positions(place.sentence)
            if match.start() > len(place.sentence) / 3
            and not distractors.contains_stem(match[0], context)
            and (not match[0][0].isdigit() or material.text.count(match[0]) > 1)
        ]
        if matches:
            yield place, random_.choice(matches), context


def with_blank(sentence: str, match: re.Match[str]) -> str:
    return sentence[: match.start()] + rendering.BLANK + sentence[match.end() :]

"""Cloze tasks: a sentence in which one word is replaced by a blank."""

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
    last_sentences,
)
from data_pipeline.text import distractors, prose


def cloze(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields a sentence with a blank, after the sentences before it."""
    for sentence, match, context in choose_words(source, random_):
        text = f"{context} {with_blank(sentence.text, match)}".strip()
        if len(text.split()) >= 12:
            yield rendering.cloze(text, match[0], random_)


def choose_words(
    source: SourceText, random_: random.Random
) -> Iterator[tuple[SentenceContext, re.Match[str], str]]:
    """Yields sentences in random order, each with the word to leave out and with its context.

    The context is at most two sentences before the sentence. It does not contain the word.
    """
    for sentence in random_.sample(source.sentences, len(source.sentences)):
        before = sentence.before[-2:]
        if not all(map(prose.is_plain, before)):
            before = []
        if not before and not prose.stands_alone(sentence.text):
            continue
        context = last_sentences(before, MAX_CONTEXT_WORDS)
        # Not in the first third of the sentence, where nothing indicates the word. A number only
        # if it also occurs elsewhere in the text, otherwise it cannot be inferred.
        matches = [
            match
            for match in distractors.cloze_positions(sentence.text)
            if match.start() > len(sentence.text) / 3
            and not distractors.contains_stem(match[0], context)
            and (not match[0][0].isdigit() or source.text.count(match[0]) > 1)
        ]
        if matches:
            yield sentence, random_.choice(matches), context


def with_blank(sentence: str, match: re.Match[str]) -> str:
    """Replaces the matched word of a sentence by a blank."""
    return sentence[: match.start()] + rendering.BLANK + sentence[match.end() :]

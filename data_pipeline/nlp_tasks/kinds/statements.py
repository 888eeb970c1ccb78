"""True-or-false tasks: a sentence of the text, or the same with another term or number."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import definitions, rendering
from data_pipeline.nlp_tasks.kinds.source_text import (
    NlpTask,
    SentenceContext,
    SourceText,
    passage_around,
)
from data_pipeline.text import distractors, prose

# The text before a number that is a count or a date, unlike in "Table 3" or "version 2".
_COUNTED = re.compile(
    r"(?:(?<![\w-])(?:[a-z]+ly|a|about|after|an|and|are|as|at|by|for|from|had|has|have|in|is|least|most"
    r"|nearly|of|only|or|over|since|than|the|to|until|was|were|with"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)"
    r"|,|[$£€(])\s*\Z"
)
_NO_STATEMENT = re.compile(r"\A(?:[\"“‘']|\w+:|[A-Z]{4,}\b)|\b(?i:I|you|we|my|our|your)\b")
_MIN_CONTEXT = 40  # characters of the passage around the sentence, without the sentence


def true_false(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields statements from definitions, then from sentences with numbers; half are true."""
    for makers in (_definitions, _numbers):
        for sentence, false_statement in makers(source, random_):
            context = passage_around(sentence)
            is_short = len(context) < len(sentence.text) + _MIN_CONTEXT
            if is_short or sentence.text[-1] != ".":
                continue
            verdict = random_.random() < 0.5
            statement = sentence.text if verdict else false_statement
            reason = f'The text says: "{sentence.text}"'
            yield rendering.true_false(statement, verdict, reason, context, random_)


def _definitions(
    source: SourceText, random_: random.Random
) -> Iterator[tuple[SentenceContext, str]]:
    """Yields a definition, and its term with the definition of another term."""
    defined: list[tuple[SentenceContext, re.Match[str]]] = []
    for sentence in source.sentences:
        match = definitions.DEFINITION.match(sentence.text)
        if match and definitions.is_definition(match):
            defined.append((sentence, match))
    random_.shuffle(defined)
    for sentence, match in defined:
        others = [
            other["predicate"]
            for _, other in defined
            if other["verb"] == match["verb"]
            and other["subject"] != match["subject"]
            and other["predicate"] not in passage_around(sentence)
            and not distractors.contains_stem(
                match["subject"].split()[-1].strip("`"), other["predicate"]
            )
        ]
        if others:
            yield sentence, f"{match['subject']} {match['verb']} {random_.choice(others)}"


def _numbers(source: SourceText, random_: random.Random) -> Iterator[tuple[SentenceContext, str]]:
    """Yields a sentence with a number, and the same with another number of the text."""
    for sentence in random_.sample(source.sentences, len(source.sentences)):
        text = sentence.text
        if not prose.stands_alone(text) or _NO_STATEMENT.search(text):
            continue
        numbers = [
            match
            for match in distractors.cloze_positions(text)
            if match[0][0].isdigit() and _COUNTED.search(text[: match.start()])
        ]
        for match in random_.sample(numbers, len(numbers)):
            start, end = match.span()
            preceding = distractors.WORD.findall(text, 0, start)[-1:]
            other = source.pool.distractors(
                match[0], preceding[0] if preceding else "", passage_around(sentence), 1, random_
            )
            if other:
                yield sentence, text[:start] + other[0] + text[end:]
                break

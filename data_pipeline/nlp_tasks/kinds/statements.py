"""True or false: what a sentence says, or the same with a term or a number exchanged."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import definitions, rendering
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, SentenceContext, SourceText, passage
from data_pipeline.text import distractors, prose

# Before a number that counts or dates something; not "Table 3", "Section 8", "version 2".
_COUNTED = re.compile(
    r"(?:(?<![\w-])(?:[a-z]+ly|a|about|after|an|and|are|as|at|by|for|from|had|has|have|in|is|least|most"
    r"|nearly|of|only|or|over|since|than|the|to|until|was|were|with"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)"
    r"|,|[$£€(])\s*\Z"
)
_NO_STATEMENT = re.compile(r"\A(?:[\"“‘']|\w+:|[A-Z]{4,}\b)|\b(?i:I|you|we|my|our|your)\b")
_MIN_CONTEXT = 40  # characters of a passage beyond the sentence in question


def true_false(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Definitions first, then sentences with a number; half of the statements are true."""
    for makers in (_definitions, _numbers):
        for place, false in makers(material, random_):
            context = passage(place)
            if len(context) < len(place.sentence) + _MIN_CONTEXT or place.sentence[-1] != ".":
                continue
            verdict = random_.random() < 0.5
            statement = place.sentence if verdict else false
            reason = f'The text says: "{place.sentence}"'
            yield rendering.true_false(statement, verdict, reason, context, random_)


def _definitions(
    material: SourceText, random_: random.Random
) -> Iterator[tuple[SentenceContext, str]]:
    """A definition, and its term with what the text says of another one."""
    found: list[tuple[SentenceContext, re.Match[str]]] = []
    for place in material.places:
        match = definitions.DEFINITION.match(place.sentence)
        if match and definitions.defines(match):
            found.append((place, match))
    random_.shuffle(found)
    for place, match in found:
        others = [
            other["predicate"]
            for _, other in found
            if other["verb"] == match["verb"]
            and other["subject"] != match["subject"]
            and other["predicate"] not in passage(place)
            and not distractors.contains_stem(
                match["subject"].split()[-1].strip("`"), other["predicate"]
            )
        ]
        if others:
            yield place, f"{match['subject']} {match['verb']} {random_.choice(others)}"


def _numbers(material: SourceText, random_: random.Random) -> Iterator[tuple[SentenceContext, str]]:
    """A sentence with a number, and the same with another number of the text."""
    for place in random_.sample(material.places, len(material.places)):
        sentence = place.sentence
        if not prose.stands_alone(sentence) or _NO_STATEMENT.search(sentence):
            continue
        numbers = [
            match
            for match in distractors.cloze_positions(sentence)
            if match[0][0].isdigit() and _COUNTED.search(sentence[: match.start()])
        ]
        for match in random_.sample(numbers, len(numbers)):
            start, end = match.span()
            before = distractors.WORD.findall(sentence, 0, start)[-1:]
            other = material.vocabulary.distractors(
                match[0], before[0] if before else "", passage(place), 1, random_
            )
            if other:
                yield place, sentence[:start] + other[0] + sentence[end:]
                break

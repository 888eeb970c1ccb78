"""Four options, one of them right."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import definitions, rendering, templates
from data_pipeline.nlp_tasks.kinds.cloze import gaps, with_blank
from data_pipeline.nlp_tasks.kinds.source_text import MAX_CONTEXT_WORDS, NlpTask, SourceText, trim
from data_pipeline.text import distractors, prose


def multiple_choice(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Definitions, the next sentence and missing words in turn, four options each."""
    makers = [
        _choose_definition(material, random_),
        _choose_next(material, random_),
        _choose_word(material, random_),
    ]
    while makers:
        for maker in list(makers):
            task = next(maker, None)
            if task is None:
                makers.remove(maker)
            else:
                yield task


def _choose_word(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    for place, match, context in gaps(material, random_):
        word, sentence = match[0], place.sentence
        before = distractors.WORD.findall(sentence, 0, match.start())[-1:]
        others = material.vocabulary.distractors(
            word, before[0] if before else "", f"{context} {sentence}", 3, random_
        )
        if others:
            yield rendering.choice(
                templates.CHOICE_OF_WORD,
                word,
                others,
                random_,
                context=f"{context}\n\n" if context else "",
                sentence=with_blank(sentence, match),
            )


def _choose_next(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    places = [p for p in material.places if p.before and all(map(prose.is_plain, p.before[-3:]))]
    for place in random_.sample(places, len(places)):
        length = len(place.sentence)
        others = [
            p.sentence
            for p in material.places
            if p.sentence != place.sentence
            and p.sentence not in place.before + place.after
            and 0.6 * length <= len(p.sentence) <= 1.6 * length
        ]
        if len(set(others)) >= 3:
            others = random_.sample(sorted(set(others)), 3)
            context = trim(place.before, MAX_CONTEXT_WORDS)
            if len(context.split()) >= 12:
                yield rendering.choice(
                    templates.CHOICE_OF_NEXT, place.sentence, others, random_, context=context
                )


def _choose_definition(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    found: dict[str, tuple[str, str]] = {}
    for place in material.places:
        match = definitions.DEFINITION.match(place.sentence)
        if match and definitions.defines(match):
            predicate = match["predicate"]
            if len(predicate.split()) <= 30 and not match["subject"].startswith("The "):
                question = definitions.what_is(match, material)
                found[question] = (match["verb"], definitions.capital(predicate))
    for question in random_.sample(sorted(found), len(found)):
        verb, predicate = found[question]
        others = sorted({p for v, p in found.values() if v == verb and p != predicate})
        if len(others) >= 3:
            others = random_.sample(others, 3)
            yield rendering.choice(
                templates.CHOICE_ALONE, predicate, others, random_, question=question
            )

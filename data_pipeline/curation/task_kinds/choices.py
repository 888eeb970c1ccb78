"""Four options, one of them right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from data_pipeline.curation import prose, words
from data_pipeline.curation.task_kinds import definitions
from data_pipeline.curation.task_kinds.gaps import gaps, with_blank
from data_pipeline.curation.task_kinds.material import (
    MAX_CONTEXT_WORDS,
    Material,
    Task,
    fill,
    trim,
)

_LETTERS = "ABCD"
_CHOOSE_WORD_FORMS = (
    "{context}Which word completes the sentence?\n{sentence}\n{options}\nAnswer: {answer}",
    "{context}Choose the word that fits.\n\n{sentence}\n\n{options}\n\nThe answer is {answer}",
    "{context}{sentence}\n\nWhat is missing?\n{options}\nCorrect answer: {answer}",
)
_NEXT_FORMS = (
    "Which sentence comes next?\n\n{context}\n\n{options}\n\nAnswer: {answer}",
    "{context}\n\nHow does the text go on?\n{options}\nAnswer: {answer}",
    "Read the beginning of a text and choose its continuation."
    "\n\n{context}\n\n{options}\n\nThe answer is {answer}",
)
_WHAT_IS_FORMS = (
    "{question}\n{options}\nAnswer: {answer}",
    "Question: {question}\n\n{options}\n\nThe answer is {answer}",
    "Choose the correct answer.\n\n{question}\n{options}\nCorrect answer: {answer}",
)
_MARKS = ("{}. ", "{}) ", "({}) ")


def multiple_choice(material: Material, random_: random.Random) -> Iterator[Task]:
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


def _choose_word(material: Material, random_: random.Random) -> Iterator[Task]:
    for place, match, context in gaps(material, random_):
        word, sentence = match[0], place.sentence
        before = words.WORD.findall(sentence, 0, match.start())[-1:]
        others = material.vocabulary.stand_ins(
            word, before[0] if before else "", f"{context} {sentence}", 3, random_
        )
        if others:
            yield _choice(
                _CHOOSE_WORD_FORMS,
                word,
                others,
                random_,
                context=f"{context}\n\n" if context else "",
                sentence=with_blank(sentence, match),
            )


def _choose_next(material: Material, random_: random.Random) -> Iterator[Task]:
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
                yield _choice(_NEXT_FORMS, place.sentence, others, random_, context=context)


def _choose_definition(material: Material, random_: random.Random) -> Iterator[Task]:
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
            yield _choice(_WHAT_IS_FORMS, predicate, others, random_, question=question)


def _choice(
    forms: Sequence[str], right: str, wrong: list[str], random_: random.Random, **parts: str
) -> Task:
    options = [right, *wrong]
    random_.shuffle(options)
    mark = random_.choice(_MARKS)
    lines = [mark.format(letter) + option for letter, option in zip(_LETTERS, options, strict=True)]
    letter = _LETTERS[options.index(right)]
    answer = random_.choice((letter, mark.format(letter) + right))
    return fill(forms, answer, random_, options="\n".join(lines), **parts)

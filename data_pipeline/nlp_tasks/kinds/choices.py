"""Multiple-choice tasks: four options, one of them right."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import definitions, rendering, templates
from data_pipeline.nlp_tasks.kinds.cloze import choose_words, with_blank
from data_pipeline.nlp_tasks.kinds.source_text import (
    MAX_CONTEXT_WORDS,
    NlpTask,
    SourceText,
    last_sentences,
)
from data_pipeline.text import distractors, prose


def multiple_choice(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields definitions, next sentences and missing words round-robin, four options each."""
    makers = [
        _choose_definition(source, random_),
        _choose_next_sentence(source, random_),
        _choose_missing_word(source, random_),
    ]
    while makers:
        for maker in list(makers):
            task = next(maker, None)
            if task is None:
                makers.remove(maker)
            else:
                yield task


def _choose_missing_word(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields tasks that ask for the word that completes a sentence."""
    for sentence, match, context in choose_words(source, random_):
        word = match[0]
        preceding = distractors.WORD.findall(sentence.text, 0, match.start())[-1:]
        wrong = source.pool.distractors(
            word, preceding[0] if preceding else "", f"{context} {sentence.text}", 3, random_
        )
        if wrong:
            yield rendering.choice(
                templates.CHOICE_OF_WORD,
                word,
                wrong,
                random_,
                context=f"{context}\n\n" if context else "",
                sentence=with_blank(sentence.text, match),
            )


def _choose_next_sentence(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields tasks that ask for the sentence that continues a paragraph."""
    candidates = [
        one for one in source.sentences if one.before and all(map(prose.is_plain, one.before[-3:]))
    ]
    for sentence in random_.sample(candidates, len(candidates)):
        length = len(sentence.text)
        # Distractors are sentences of other paragraphs with a similar length.
        wrong = [
            one.text
            for one in source.sentences
            if one.text != sentence.text
            and one.text not in sentence.before + sentence.after
            and 0.6 * length <= len(one.text) <= 1.6 * length
        ]
        if len(set(wrong)) >= 3:
            wrong = random_.sample(sorted(set(wrong)), 3)
            context = last_sentences(sentence.before, MAX_CONTEXT_WORDS)
            if len(context.split()) >= 12:
                yield rendering.choice(
                    templates.CHOICE_OF_NEXT, sentence.text, wrong, random_, context=context
                )


def _choose_definition(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields tasks that ask for the definition of a term; distractors define other terms."""
    defined: dict[str, tuple[str, str]] = {}  # question -> (verb, predicate)
    for sentence in source.sentences:
        match = definitions.DEFINITION.match(sentence.text)
        if match and definitions.is_definition(match):
            predicate = match["predicate"]
            if len(predicate.split()) <= 30 and not match["subject"].startswith("The "):
                question = definitions.question_of(match, source)
                defined[question] = (match["verb"], definitions.capitalize_first(predicate))
    for question in random_.sample(sorted(defined), len(defined)):
        verb, predicate = defined[question]
        wrong = sorted({p for v, p in defined.values() if v == verb and p != predicate})
        if len(wrong) >= 3:
            wrong = random_.sample(wrong, 3)
            yield rendering.choice(
                templates.CHOICE_ALONE, predicate, wrong, random_, question=question
            )

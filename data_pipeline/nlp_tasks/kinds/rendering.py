"""Tasks in natural language: what a task holds becomes a prompt and, at its end, the answer.

Whoever finds the parts of a task, rules or a teacher, puts them into words here.

>>> task = question("What is a leveret?", "A young hare.", "", random.Random(1))
>>> task.text, task.answer
('Q: What is a leveret?\\nA: A young hare.', 'A young hare.')
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_pipeline.nlp_tasks.kinds import templates
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, fill
from data_pipeline.text import prose

BLANK = "____"

_LETTERS = "ABCDEFGH"
_MARKS = ("{}. ", "{}) ", "({}) ")


def question(question: str, answer: str, context: str, random_: random.Random) -> NlpTask:
    """`context`: the text to answer from; "" where the question stands alone."""
    if context:
        forms = templates.QUESTION_WITH_TEXT
        return fill(forms, answer, random_, question=question, context=context)
    return fill(templates.QUESTION_ALONE, answer, random_, question=question)


def choice(
    forms: Sequence[str], right: str, wrong: Sequence[str], random_: random.Random, **parts: str
) -> NlpTask:
    """Options in random order; the answer is the letter of the right one, or letter and option.

    Args:
      forms: templates with {options} among their parts.
    """
    options = [right, *wrong]
    random_.shuffle(options)
    mark = random_.choice(_MARKS)
    lines = [
        mark.format(letter) + option for letter, option in zip(_LETTERS, options, strict=False)
    ]
    letter = _LETTERS[options.index(right)]
    answer = random_.choice((letter, mark.format(letter) + right))
    return fill(forms, answer, random_, options="\n".join(lines), **parts)


def cloze(text: str, answer: str, random_: random.Random) -> NlpTask:
    """`text` has the BLANK where the answer was left out."""
    assert BLANK in text, text
    return fill(templates.CLOZE, answer, random_, text=text)


def summary(text: str, summary: str, random_: random.Random) -> NlpTask:
    in_a_sentence = len(prose.sentences(summary)) == 1
    forms = templates.SUMMARY_IN_A_SENTENCE if in_a_sentence else templates.SUMMARY
    return fill(forms, summary, random_, text=text)


def title(text: str, title: str, random_: random.Random) -> NlpTask:
    return fill(templates.TITLE, title, random_, text=text)


def true_false(
    statement: str, verdict: bool, reason: str, context: str, random_: random.Random
) -> NlpTask:
    """The answer is a verdict in a word, then the reason."""
    forms = templates.TRUE_FALSE_WITH_TEXT if context else templates.TRUE_FALSE_ALONE
    form = random_.choice(forms)
    answer = f"{form.yes if verdict else form.no} {reason}"
    parts = {"context": context} if context else {}
    return fill((form.template,), answer, random_, statement=statement, **parts)


def paraphrase(sentence: str, paraphrase: str, random_: random.Random) -> NlpTask:
    return fill(templates.PARAPHRASE, paraphrase, random_, sentence=sentence)


def keywords(text: str, keywords: Sequence[str], random_: random.Random) -> NlpTask:
    form = random_.choice(templates.KEYWORDS)
    return fill((form.template,), form.between.join(keywords), random_, text=text)

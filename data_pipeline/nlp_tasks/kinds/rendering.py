r"""Rendering of tasks: the content of a task becomes a prompt with the answer at its end.

The tasks of rules and of a teacher are rendered by the same functions.

>>> task = question("What is a leveret?", "A young hare.", "", random.Random(1))
>>> task.text, task.answer
('Q: What is a leveret?\nA: A young hare.', 'A young hare.')
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_pipeline.nlp_tasks.kinds import templates
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask, render
from data_pipeline.text import prose

BLANK = "____"

_LETTERS = "ABCDEFGH"
_LABELS = ("{}. ", "{}) ", "({}) ")


def question(question: str, answer: str, context: str, random_: random.Random) -> NlpTask:
    """Renders a question.

    Args:
      question: the question.
      answer: its answer.
      context: the text that contains the answer; "" for a question without a text.
      random_: selects the template.
    """
    if context:
        forms = templates.QUESTION_WITH_TEXT
        return render(forms, answer, random_, question=question, context=context)
    return render(templates.QUESTION_ALONE, answer, random_, question=question)


def choice(
    forms: Sequence[str], right: str, wrong: Sequence[str], random_: random.Random, **fields: str
) -> NlpTask:
    """Renders a multiple-choice question with its options in random order.

    The answer is the letter of the right option, or the letter and the option.

    Args:
      forms: templates with {options} among their fields.
      right: the right option.
      wrong: the other options.
      random_: selects the order, the labels, the form of the answer and the template.
      **fields: the other fields of the templates.
    """
    options = [right, *wrong]
    random_.shuffle(options)
    label = random_.choice(_LABELS)
    lines = [
        label.format(letter) + option for letter, option in zip(_LETTERS, options, strict=False)
    ]
    letter = _LETTERS[options.index(right)]
    answer = random_.choice((letter, label.format(letter) + right))
    return render(forms, answer, random_, options="\n".join(lines), **fields)


def cloze(text: str, answer: str, random_: random.Random) -> NlpTask:
    """Renders a cloze task; `text` has BLANK in place of the answer."""
    assert BLANK in text, text
    return render(templates.CLOZE, answer, random_, text=text)


def summary(text: str, summary: str, random_: random.Random) -> NlpTask:
    """Renders a request for a summary; a summary of one sentence also has templates of its own."""
    is_one_sentence = len(prose.sentences(summary)) == 1
    forms = templates.SUMMARY_IN_A_SENTENCE if is_one_sentence else templates.SUMMARY
    return render(forms, summary, random_, text=text)


def title(text: str, title: str, random_: random.Random) -> NlpTask:
    """Renders a request for the title of a text."""
    return render(templates.TITLE, title, random_, text=text)


def true_false(
    statement: str, verdict: bool, reason: str, context: str, random_: random.Random
) -> NlpTask:
    """Renders a statement to judge; the answer is the verdict in one word, then the reason.

    Args:
      statement: the statement.
      verdict: whether it is true.
      reason: the reason of the verdict.
      context: the text that determines the verdict; "" for a statement without a text.
      random_: selects the template.
    """
    forms = templates.TRUE_FALSE_WITH_TEXT if context else templates.TRUE_FALSE_ALONE
    form = random_.choice(forms)
    answer = f"{form.yes if verdict else form.no} {reason}"
    fields = {"context": context} if context else {}
    return render((form.template,), answer, random_, statement=statement, **fields)


def paraphrase(sentence: str, paraphrase: str, random_: random.Random) -> NlpTask:
    """Renders a request for a paraphrase."""
    return render(templates.PARAPHRASE, paraphrase, random_, sentence=sentence)


def keywords(text: str, keywords: Sequence[str], random_: random.Random) -> NlpTask:
    """Renders a request for the keywords of a text."""
    form = random_.choice(templates.KEYWORDS)
    return render((form.template,), form.separator.join(keywords), random_, text=text)

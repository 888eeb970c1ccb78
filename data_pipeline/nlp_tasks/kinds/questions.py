"""Questions with answers: those that a document contains, and those that its sentences answer."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.kinds.definitions import (
    DEFINITION,
    capitalize_first,
    inside_sentence,
    is_definition,
    is_term,
    question_of,
)
from data_pipeline.nlp_tasks.kinds.functions import functions
from data_pipeline.nlp_tasks.kinds.source_text import (
    NlpTask,
    SentenceContext,
    SourceText,
    passage_around,
    render,
)

_PAIRS = re.compile(
    r"""
    ^[ \t]*(?:Question|Q)[ \t]*[:.][ \t]*(?P<question>\S(?:[^\n]|\n(?!\s*\n)){5,600}?)\s*\n
    [ \t]*(?:Answer|A)[ \t]*[:.][ \t]*(?P<answer>\S.*?)(?=\n\s*(?:Question|Q)[ \t]*[:.]|\Z)
    """,
    re.M | re.S | re.X,
)
_RESTATED = re.compile(r"\A[^.!?\n]{5,200}\?\s+")  # an answer that first repeats the question
_MAX_ANSWER_WORDS = 200

_WHEN = re.compile(
    r"""
    (?P<subject>(?:The\ )?[A-Z][\w'’-]*(?:\ (?:of\ |the\ |de\ |and\ )?[\w'’-]+){0,5})
    \ (?P<be>was|were)
    \ (?P<verb>born|founded|published|released|established|introduced|completed|signed|built|created
    |discovered|invented|elected|adopted|opened|formed|enacted|launched|added|deprecated|removed)\b
    [^.;:]*?\ (?P<when>(?:in|on)\ (?:(?:January|February|March|April|May|June|July|August|September|
    October|November|December)(?:\ \d{1,2},?)?\ )?(?:1[0-9]|20)\d\d
    |in\ (?:version\ |Python\ )\d+(?:\.\d+)+)(?!\w)
    """,
    re.X,
)
_HOW_MANY = re.compile(
    r"""
    (?P<subject>(?:The\ )?[A-Z][\w'’-]*(?:\ (?:of\ |the\ )?[\w'’-]+){0,3})
    \ (?P<verb>has|have|had|contains?|contained)
    \ (?P<count>\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty)
    \ (?P<noun>[a-z]+s)(?=[,.]|\ that|\ which|\ and)
    """,
    re.X,
)


def question_answering(source: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Yields questions of the text, then those about functions, definitions, dates and counts."""
    pairs = list(_PAIRS.finditer(source.text))
    random_.shuffle(pairs)
    for pair in pairs:
        question = re.sub(
            r" \((?:is|are|was|were)\)| (?=\?$)", "", " ".join(pair["question"].split())
        )
        answer = _RESTATED.sub("", pair["answer"].strip())
        answer = first_sentences(answer, _MAX_ANSWER_WORDS)
        if re.search(r"\d = \d|= [\d(]", answer):
            yield render(templates.WORKED_PROBLEM, answer, random_, question=question)
        elif answer:
            yield rendering.question(question, answer, "", random_)
    yield from functions(source, random_)
    sentences = list(source.sentences)
    random_.shuffle(sentences)
    for sentence in sentences:
        yield from _questions_about(sentence, source, random_)


def _questions_about(
    sentence: SentenceContext, source: SourceText, random_: random.Random
) -> Iterator[NlpTask]:
    """Yields a question that the sentence answers, if it is a definition, a date or a count."""
    text = sentence.text
    if match := DEFINITION.match(text):
        if is_definition(match):
            answer = random_.choice((text, capitalize_first(match["predicate"])))
            yield from _task(question_of(match, source), answer, sentence, random_)
    elif match := _WHEN.match(text):
        if is_term(match["subject"]):
            subject = inside_sentence(match["subject"], source)
            question = f"When {match['be']} {subject} {match['verb']}?"
            answer = capitalize_first(match["when"]) + "."
            yield from _task(question, answer, sentence, random_, needs_passage=True)
    elif (match := _HOW_MANY.match(text)) and is_term(match["subject"]):
        do = {"has": "does", "have": "do", "had": "did"}.get(match["verb"], "does")
        verb = "contain" if match["verb"].startswith("contain") else "have"
        subject = inside_sentence(match["subject"], source)
        answer = capitalize_first(match["count"]) + "."
        question = f"How many {match['noun']} {do} {subject} {verb}?"
        yield from _task(question, answer, sentence, random_, needs_passage=True)


def _task(
    question: str,
    answer: str,
    sentence: SentenceContext,
    random_: random.Random,
    needs_passage: bool = False,
) -> Iterator[NlpTask]:
    """Yields the question with or without its passage, if it can be answered that way.

    A passage is shown only if it holds more than the answer. A question with a definite subject
    ("What is the ...") cannot be answered without its passage.
    """
    context = passage_around(sentence)
    needs_passage = needs_passage or re.match(r"\w+ \w+ the ", question) is not None
    is_longer = len(context) > len(sentence.text) + 40
    if is_longer and (needs_passage or random_.random() < 0.5):
        yield rendering.question(question, answer, context, random_)
    elif not needs_passage:
        yield rendering.question(question, answer, "", random_)


def first_sentences(text: str, max_words: int) -> str:
    """Returns the first sentences of at most `max_words` words; "" if the first one is longer."""
    if len(text.split()) <= max_words:
        return text
    end = 0
    for match in re.finditer(r"[.!?][\"”’)]*\s", text):
        if len(text[: match.end()].split()) > max_words:
            break
        end = match.end()
    return text[:end].strip()

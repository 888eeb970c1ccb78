"""Questions that a document asks, or answers without having been asked."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.kinds.definitions import (
    DEFINITION,
    capital,
    defines,
    inside,
    names_something,
    what_is,
)
from data_pipeline.nlp_tasks.kinds.functions import functions
from data_pipeline.nlp_tasks.kinds.source_text import (
    NlpTask,
    SentenceContext,
    SourceText,
    fill,
    passage,
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


def question_answering(material: SourceText, random_: random.Random) -> Iterator[NlpTask]:
    """Written-out questions first; then functions, definitions, dates and counts."""
    pairs = list(_PAIRS.finditer(material.text))
    random_.shuffle(pairs)
    for pair in pairs:
        question = re.sub(
            r" \((?:is|are|was|were)\)| (?=\?$)", "", " ".join(pair["question"].split())
        )
        answer = _RESTATED.sub("", pair["answer"].strip())
        answer = shorten(answer, _MAX_ANSWER_WORDS)
        if re.search(r"\d = \d|= [\d(]", answer):
            yield fill(templates.WORKED_PROBLEM, answer, random_, question=question)
        elif answer:
            yield rendering.question(question, answer, "", random_)
    yield from functions(material, random_)
    places = list(material.places)
    random_.shuffle(places)
    for place in places:
        yield from _question(place, material, random_)


def _question(
    place: SentenceContext, material: SourceText, random_: random.Random
) -> Iterator[NlpTask]:
    sentence = place.sentence
    if match := DEFINITION.match(sentence):
        if defines(match):
            answer = random_.choice((sentence, capital(match["predicate"])))
            yield from _ask(what_is(match, material), answer, place, random_)
    elif match := _WHEN.match(sentence):
        if names_something(match["subject"]):
            asked = f"When {match['be']} {inside(match['subject'], material)} {match['verb']}?"
            answer = capital(match["when"]) + "."
            yield from _ask(asked, answer, place, random_, must_read=True)
    elif (match := _HOW_MANY.match(sentence)) and names_something(match["subject"]):
        do = {"has": "does", "have": "do", "had": "did"}.get(match["verb"], "does")
        verb = "contain" if match["verb"].startswith("contain") else "have"
        subject = inside(match["subject"], material)
        answer = capital(match["count"]) + "."
        asked = f"How many {match['noun']} {do} {subject} {verb}?"
        yield from _ask(asked, answer, place, random_, must_read=True)


def _ask(
    question: str,
    answer: str,
    place: SentenceContext,
    random_: random.Random,
    must_read: bool = False,
) -> Iterator[NlpTask]:
    """With the passage where that is more than the answer; else alone, if it need not be read."""
    context = passage(place)
    must_read = must_read or re.match(r"\w+ \w+ the ", question) is not None
    is_more = len(context) > len(place.sentence) + 40
    if is_more and (must_read or random_.random() < 0.5):
        yield rendering.question(question, answer, context, random_)
    elif not must_read:
        yield rendering.question(question, answer, "", random_)


def shorten(text: str, most: int) -> str:
    """Whole sentences from the beginning, at most so many words; "" if not even one fits."""
    if len(text.split()) <= most:
        return text
    taken = 0
    for match in re.finditer(r"[.!?][\"”’)]*\s", text):
        if len(text[: match.end()].split()) > most:
            break
        taken = match.end()
    return text[:taken].strip()

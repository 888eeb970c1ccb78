"""Sentences that say what something is."""

from __future__ import annotations

import re

from data_pipeline.nlp_tasks.kinds.source_text import SourceText
from data_pipeline.text import distractors
from data_pipeline.text.word_lists import CONTEXT_DEPENDENT, JUDGMENT, PERSON, STOP_WORDS, VAGUE

_NAME = r"[A-Z`a-z][\w`’-]*(?: (?:of (?:the )?|the |and )?[\w`’-]+){0,3}?"
_KIND = r"(?:an? |one of |any |the (?:[\w-]+ ){1,4}(?:of|that|which|who|for|by|to|in) )[^;:]{15,}"
DEFINITION = re.compile(
    rf"(?P<subject>(?:An? |The )?{_NAME}) (?P<verb>is|are|was|were) (?P<predicate>{_KIND})\Z"
)
# "a better plan", "the same thing", "a very large one": a judgement or a phrase, no definition
_NO_DEFINITION = re.compile(
    rf"(?:an?|the|one of the|any) (?:\w+ly |very |more |most |less )?"
    rf"(?:[a-z]+ (?:one|thing|factor|group|way)|{'|'.join(sorted(JUDGMENT))})\b"
)
_PERSON = re.compile(rf"\b(?:\w{{4,}}(?:ist|ian)|{'|'.join(sorted(PERSON))})\b")
_CONNECTORS = frozenset({"a", "an", "the", "of", "and"})


def what_is(match: re.Match[str], material: SourceText) -> str:
    subject = match["subject"]
    person = subject.istitle() and " " in subject and _PERSON.search(match["predicate"][:60])
    return f"{'Who' if person else 'What'} {match['verb']} {inside(subject, material)}?"


def defines(match: re.Match[str]) -> bool:
    return (
        names_something(match["subject"])
        and not _NO_DEFINITION.match(match["predicate"])
        and not distractors.contains_stem(
            match["subject"].split()[-1].strip("`"), match["predicate"]
        )
    )


def names_something(subject: str) -> bool:
    """A term or a name; not "The reason", "What follows", "Tribalism in this sense"."""
    names = [name.strip("`").lower() for name in subject.split()]
    names = names[1:] if names[0] in _CONNECTORS else names
    if not names or names[0] in CONTEXT_DEPENDENT or names[0].endswith("ing"):
        return False
    return not any(
        name in VAGUE or (name in STOP_WORDS and name not in _CONNECTORS) or name.endswith("ly")
        for name in names
    )


def inside(subject: str, material: SourceText) -> str:
    """Inside a sentence: "The hare" -> "the hare", "Coffee" -> "coffee"; "Berlin" stays."""
    first = subject.split()[0]
    if first in ("A", "An", "The") or f" {first.lower()} " in material.text:
        return subject[0].lower() + subject[1:]
    return subject


def capital(text: str) -> str:
    return text[0].upper() + text[1:]

"""Sentences that define a term, such as "A leveret is a young hare that ..."."""

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
# "a better plan", "the same thing", "a very large one": a judgment or a phrase, no definition
_NO_DEFINITION = re.compile(
    rf"(?:an?|the|one of the|any) (?:\w+ly |very |more |most |less )?"
    rf"(?:[a-z]+ (?:one|thing|factor|group|way)|{'|'.join(sorted(JUDGMENT))})\b"
)
_PERSON = re.compile(rf"\b(?:\w{{4,}}(?:ist|ian)|{'|'.join(sorted(PERSON))})\b")
_CONNECTORS = frozenset({"a", "an", "the", "of", "and"})


def question_of(match: re.Match[str], source: SourceText) -> str:
    """Returns the question that a definition answers: "What is a leveret?"."""
    subject = match["subject"]
    is_person = subject.istitle() and " " in subject and _PERSON.search(match["predicate"][:60])
    inside = inside_sentence(subject, source)
    return f"{'Who' if is_person else 'What'} {match['verb']} {inside}?"


def is_definition(match: re.Match[str]) -> bool:
    """Returns whether a match of DEFINITION defines its subject by other words."""
    return (
        is_term(match["subject"])
        and not _NO_DEFINITION.match(match["predicate"])
        and not distractors.contains_stem(
            match["subject"].split()[-1].strip("`"), match["predicate"]
        )
    )


def is_term(subject: str) -> bool:
    """Returns whether a subject is a term or a name.

    "The reason", "What follows" and "Tribalism in this sense" are not.
    """
    names = [name.strip("`").lower() for name in subject.split()]
    names = names[1:] if names[0] in _CONNECTORS else names
    if not names or names[0] in CONTEXT_DEPENDENT or names[0].endswith("ing"):
        return False
    return not any(
        name in VAGUE or (name in STOP_WORDS and name not in _CONNECTORS) or name.endswith("ly")
        for name in names
    )


def inside_sentence(subject: str, source: SourceText) -> str:
    """Returns a subject as it is written inside a sentence.

    "The hare" becomes "the hare". "Coffee" becomes "coffee" if the document has the word in lower
    case; "Berlin" remains.
    """
    first = subject.split()[0]
    if first in ("A", "An", "The") or f" {first.lower()} " in source.text:
        return subject[0].lower() + subject[1:]
    return subject


def capitalize_first(text: str) -> str:
    """Returns a text with its first letter in upper case."""
    return text[0].upper() + text[1:]

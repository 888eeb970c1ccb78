"""Items in other words by rules, where nobody has rewritten them: reproducible, without a model.

    options     in another order, the right one still right
    clauses     "If it rains, Ann stays." <-> "Ann stays if it rains."
    names       "Ann and Bo" -> "Bo and Ann"

Meaning and words stay, so that a model which knows the subject keeps knowing it; the order of the
words changes, so that one which knows the text by heart is thrown off. An item on which no rule
works stays as it is, and says nothing about leakage: it is left out of the audit. Of long texts
rules change little, of GSM8K's a seventh of the 5-grams: see verdict.py on what that can tell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

import numpy as np

from hare_jax.evaluation.leakage.items import AuditItem

NGRAM = 5  # words
WORD = re.compile(r"\w+(?:['’.,]\w+)*")
_ANYWHERE = "if|because|since|although|though|unless"
_LEADING_WORDS = (
    f"{_ANYWHERE}|when|while|until|after|before|once|in|on|at|during|for|from|with|by|under|between"
)
# The clause ends at the only comma of the sentence.
_LEADING = re.compile(rf"((?:{_LEADING_WORDS})\s[^,;:]*[^,;:\s]), ([^,;:]{{6,}})", re.IGNORECASE)
_TRAILING = re.compile(rf"([^,;:]{{6,}}?),? ((?:{_ANYWHERE}) [^,;:]{{4,}})")
# After these, a clause belongs to a part of the sentence, or says what is asked or known.
_NESTED = re.compile(
    r"\b(?:that|which|who|whom|whose|where|when|while|if|because|since|whether|so|but|then|even|only"
    r"|as|ask\w*|see|know\w*|wonder\w*|just|ever|long)\b",
    re.IGNORECASE,
)
_NAMES = re.compile(r"\b([A-Z][a-z]+) (and|or) ([A-Z][a-z]+)\b")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\d)[^.!?\n]*)*")
# Words that lose their capital inside a sentence; others may be names.
_NO_NAMES = frozenset(
    f"a an the this that these those he she it they we you his her its their our my your there "
    f"here how what who which why where all each every both some many most no one two three any "
    f"{_LEADING_WORDS.replace('|', ' ')}".split()
)


def paraphrased(items: Sequence[AuditItem], seed: int) -> list[AuditItem]:
    """The items on which a rule works, rewritten; the same `seed` gives the same options' order.

    >>> rewritten([Item("1", "If it rains, Ann and Bo stay.", "Who stays?")], seed=0)[0].question
    'Bo and Ann stay if it rains.'
    """
    told = [_item(item, seed) for item in items]
    return [new for old, new in zip(items, told, strict=True) if new.text != old.text]


def copied(new: str, old: str) -> float:
    """The share of a text's word 5-grams that the other has; of a shorter text, all or nothing.

    >>> copied("if it rains on Monday we stay", "we stay if it rains on Monday")
    0.3333333333333333
    """
    ours, theirs = WORD.findall(new.lower()), WORD.findall(old.lower())
    n = min(NGRAM, len(ours))
    known = {tuple(theirs[k : k + n]) for k in range(len(theirs) - n + 1)}
    grams = [tuple(ours[k : k + n]) for k in range(len(ours) - n + 1)]
    return sum(gram in known for gram in grams) / max(1, len(grams))


def _item(item: AuditItem, seed: int) -> AuditItem:
    question = _text(item.question, item)
    if item.choices:
        return dataclasses.replace(item, question=question, choices=shuffled(item, seed))
    return dataclasses.replace(item, question=question, answer=_text(item.answer, item))


def shuffled(item: AuditItem, seed: int) -> tuple[str, ...]:
    """Another order of the choices than theirs, drawn for this item."""
    digest = hashlib.sha256(f"{seed} {item.key}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    order = list(range(len(item.choices)))
    while len(order) > 1 and order == sorted(order):
        order = rng.permutation(len(order)).tolist()
    return tuple(item.choices[k] for k in order)


def _text(text: str, item: AuditItem) -> str:
    words = frozenset(re.findall(r"\b[a-z]+\b", item.text))
    return _SENTENCE.sub(lambda match: _sentence(match.group(), _NO_NAMES | words), text)


def _sentence(sentence: str, no_names: frozenset[str]) -> str:
    """`no_names`: words that are written small within a sentence."""
    body = sentence.strip()
    before = sentence[: len(sentence) - len(sentence.lstrip())]
    after = sentence[len(sentence.rstrip()) :]
    return before + _swapped_names(_moved_clause(body, no_names), no_names) + after


def _moved_clause(sentence: str, no_names: frozenset[str]) -> str:
    if leading := _LEADING.fullmatch(sentence):
        clause, main = leading.groups()
        return f"{_capital(main)} {_small(clause, no_names)}"
    trailing = _TRAILING.fullmatch(sentence)
    if trailing and not _NESTED.search(trailing.group(1)):
        main, clause = trailing.groups()
        return f"{_capital(clause)}, {_small(main, no_names)}"
    return sentence


def _swapped_names(sentence: str, no_names: frozenset[str]) -> str:
    def swapped(match: re.Match[str]) -> str:
        first, word, second = match.groups()
        if first.lower() in no_names or second.lower() in no_names:
            return match.group()
        return f"{second} {word} {first}"

    return _NAMES.sub(swapped, sentence)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str, no_names: frozenset[str]) -> str:
    """`text` inside a sentence: the capital of its first word goes, unless it may be a name."""
    first = re.match(r"[A-Za-z]*", text)
    return text[:1].lower() + text[1:] if first and first.group().lower() in no_names else text

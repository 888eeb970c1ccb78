"""Paraphrases by rules, for items without other paraphrases: reproducible, without a model.

    choices     in another order; the right one stays right
    clauses     "If it rains, Ann stays." <-> "Ann stays if it rains."
    names       "Ann and Bo" -> "Bo and Ann"

Meaning and words are kept, so that a model that knows the subject still answers. The order of words
changes, so that a model that has memorized the text no longer recognizes it. An item to which no
rule applies is unchanged, says nothing about leakage, and is left out of the audit. Rules change
little of long texts, such as a seventh of the 5-grams of GSM8K; verdict.py accounts for this.
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
# After these words, a clause belongs to a part of the sentence, or is its object.
_NESTED = re.compile(
    r"\b(?:that|which|who|whom|whose|where|when|while|if|because|since|whether|so|but|then|even|only"
    r"|as|ask\w*|see|know\w*|wonder\w*|just|ever|long)\b",
    re.IGNORECASE,
)
_NAMES = re.compile(r"\b([A-Z][a-z]+) (and|or) ([A-Z][a-z]+)\b")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?=\d)[^.!?\n]*)*")
# Words that are written without a capital inside a sentence; others may be names.
_NO_NAMES = frozenset(
    f"a an the this that these those he she it they we you his her its their our my your there "
    f"here how what who which why where all each every both some many most no one two three any "
    f"{_LEADING_WORDS.replace('|', ' ')}".split()
)


def paraphrase(items: Sequence[AuditItem], seed: int) -> list[AuditItem]:
    """Returns paraphrases of the items to which a rule applies.

    `seed` decides the order of choices.

    >>> items = [AuditItem("1", "If it rains, Ann and Bo stay.", "Who stays?")]
    >>> paraphrase(items, seed=0)[0].question
    'Bo and Ann stay if it rains.'
    """
    paraphrases = [_paraphrase(item, seed) for item in items]
    return [new for old, new in zip(items, paraphrases, strict=True) if new.text != old.text]


def overlap(new: str, old: str) -> float:
    """Returns the share of the word 5-grams of `new` that also occur in `old`.

    A text of less than 5 words is one n-gram.

    >>> overlap("if it rains on Monday we stay", "we stay if it rains on Monday")
    0.3333333333333333
    """
    new_words, old_words = WORD.findall(new.lower()), WORD.findall(old.lower())
    n = min(NGRAM, len(new_words))
    old_ngrams = {tuple(old_words[k : k + n]) for k in range(len(old_words) - n + 1)}
    new_ngrams = [tuple(new_words[k : k + n]) for k in range(len(new_words) - n + 1)]
    return sum(ngram in old_ngrams for ngram in new_ngrams) / max(1, len(new_ngrams))


def _paraphrase(item: AuditItem, seed: int) -> AuditItem:
    question = _paraphrase_text(item.question, item)
    if item.choices:
        return dataclasses.replace(item, question=question, choices=shuffle_choices(item, seed))
    return dataclasses.replace(item, question=question, answer=_paraphrase_text(item.answer, item))


def shuffle_choices(item: AuditItem, seed: int) -> tuple[str, ...]:
    """Returns the choices in another order than their own, drawn for this item."""
    digest = hashlib.sha256(f"{seed} {item.key}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    order = list(range(len(item.choices)))
    while len(order) > 1 and order == sorted(order):
        order = rng.permutation(len(order)).tolist()
    return tuple(item.choices[k] for k in order)


def _paraphrase_text(text: str, item: AuditItem) -> str:
    # Words that the item also writes in lower case are not names.
    words = frozenset(re.findall(r"\b[a-z]+\b", item.text))
    return _SENTENCE.sub(lambda match: _paraphrase_sentence(match.group(), _NO_NAMES | words), text)


def _paraphrase_sentence(sentence: str, no_names: frozenset[str]) -> str:
    """Applies the rules to a sentence; `no_names`: words without a capital inside a sentence."""
    body = sentence.strip()
    before = sentence[: len(sentence) - len(sentence.lstrip())]
    after = sentence[len(sentence.rstrip()) :]
    return before + _swap_names(_move_clause(body, no_names), no_names) + after


def _move_clause(sentence: str, no_names: frozenset[str]) -> str:
    """Moves a clause from the beginning of a sentence to its end, or the reverse."""
    if leading := _LEADING.fullmatch(sentence):
        clause, main = leading.groups()
        return f"{_capitalize(main)} {_uncapitalize(clause, no_names)}"
    trailing = _TRAILING.fullmatch(sentence)
    if trailing and not _NESTED.search(trailing.group(1)):
        main, clause = trailing.groups()
        return f"{_capitalize(clause)}, {_uncapitalize(main, no_names)}"
    return sentence


def _swap_names(sentence: str, no_names: frozenset[str]) -> str:
    """Swaps two names that are joined by "and" or "or"."""

    def swap(match: re.Match[str]) -> str:
        first, word, second = match.groups()
        if first.lower() in no_names or second.lower() in no_names:
            return match.group()
        return f"{second} {word} {first}"

    return _NAMES.sub(swap, sentence)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _uncapitalize(text: str, no_names: frozenset[str]) -> str:
    """Returns `text` for inside a sentence: in lower case, unless its first word may be a name."""
    first = re.match(r"[A-Za-z]*", text)
    return text[:1].lower() + text[1:] if first and first.group().lower() in no_names else text

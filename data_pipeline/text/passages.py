"""Passages: stretches of a document, of bounded length, that begin and end where the text does.

A passage is whole paragraphs, or whole sentences of one paragraph that is too long; it never cuts
a fenced block of code, and it does not end with a heading.

>>> text = "# Hares\\n\\nHares are fast. They live in forms.\\n\\nRabbits dig tunnels."
>>> [passage.text for passage in draw(text, (5, 9), 1, random.Random(0))]
['# Hares\\n\\nHares are fast. They live in forms.']
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from data_pipeline.text import prose

# Code, formulas and tables have few spaces: there, so many characters count as a word.
CHARACTERS_A_WORD = 6

_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADING = re.compile(r"#{1,6} |(?:= )+\S|\\(?:chapter|(?:sub)*section)\b")
_UNDERLINED = re.compile(r"[^\n]+\n[ \t]*([=\-~^*#\"'+])\1{2,}[ \t]*\Z")
_TITLE_WORDS = 12


class Passage(NamedTuple):
    """`text` is the document's text from the character `start` on."""

    text: str
    start: int


class Unit(NamedTuple):
    """A paragraph, block of code, or sentence of a long paragraph: text[start:end]."""

    start: int
    end: int
    opens: bool  # a passage may begin here
    closes: bool  # a passage may end here


def length(text: str) -> int:
    """Words of a text, but no fewer than one for each six characters.

    >>> length("Hares are fast."), length("sum(x[i]*y[i]for(i)in(range(n)))")
    (3, 5)
    """
    return max(len(text.split()), len(text) // CHARACTERS_A_WORD)


def draw(
    text: str, words: tuple[int, int], count: int, random_: random.Random, code: bool = False
) -> list[Passage]:
    """At most `count` passages that do not overlap, in the order of the text.

    Args:
      words: the least and the greatest length of a passage (see `length`).
      code: a passage begins only at a line that is not indented.
    """
    least, most = words
    if not 0 < least <= most:
        raise ValueError(f"words: got {words}, expected 0 < least <= greatest length of a passage")
    found = units(text, most, code)
    starts = [k for k, unit in enumerate(found) if unit.opens]
    random_.shuffle(starts)
    taken: set[int] = set()
    chosen: list[Passage] = []
    for start in starts:
        if len(chosen) == count:
            break
        run = _run(text, found, start, most, taken)
        passage = text[found[start].start : found[run[-1]].end] if run else ""
        if length(passage) >= least:
            chosen.append(Passage(passage, found[start].start))
            taken.update(run)
    return sorted(chosen, key=lambda passage: passage.start)


def _run(text: str, found: list[Unit], start: int, most: int, taken: set[int]) -> range:
    """The units from `start` on that fit together, up to the last that may end a passage."""
    end = start
    for k in range(start, len(found)):
        if k in taken or length(text[found[start].start : found[k].end]) > most:
            break
        if found[k].closes:
            end = k + 1
    return range(start, end)


def units(text: str, most: int, code: bool = False) -> list[Unit]:
    """What passages of at most `most` words are made of, in order.

    A sentence or block of code that is longer than that stands among them, and in no passage.
    """
    found = []
    for start, end in _blocks(text):
        block = text[start:end]
        fenced = _FENCE.match(block) is not None
        if fenced or code or length(block) <= most:
            opens = not code or not block[:1].isspace()
            found.append(Unit(start, end, opens, code or not _is_heading(block)))
        else:
            found += _sentences(text, start, end)
    return found


def _sentences(text: str, start: int, end: int) -> Iterator[Unit]:
    for sentence in prose.sentences(text[start:end]):
        at = text.index(sentence, start)
        start = at + len(sentence)
        yield Unit(at, start, True, True)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines between blank ones, without the line break at their end; a fence is one."""
    at, start, end, fence = 0, -1, 0, ""
    for line in text.split("\n"):
        bare = line.strip()
        if not bare and not fence:
            if start >= 0:
                yield start, end
            start = -1
        else:
            if start < 0:
                start = at
            end = at + len(line.rstrip())
            if match := _FENCE.match(line):
                fence = "" if match[1] == fence else fence or match[1]
        at += len(line) + 1
    if start >= 0:
        yield start, end


def _is_heading(block: str) -> bool:
    """A block that announces what follows: a heading, or a line like one."""
    bare = block.strip()
    if _UNDERLINED.match(bare):
        return True
    if "\n" in bare:
        return False
    is_line = bare[-1].isalnum() and len(bare.split()) <= _TITLE_WORDS
    return _HEADING.match(bare) is not None or is_line or bare.endswith(":")

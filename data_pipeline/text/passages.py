r"""Random passages of bounded length, cut from a document at paragraph or sentence boundaries.

A passage consists of whole paragraphs, or of whole sentences of a paragraph that is too long. It
never cuts a fenced block of code, and it does not end with a heading.

>>> text = "# Hares\n\nHares are fast. They live in forms.\n\nRabbits dig tunnels."
>>> [passage.text for passage in draw(text, (5, 9), 1, random.Random(0))]
['# Hares\n\nHares are fast. They live in forms.']
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from data_pipeline.text import prose

# Code, formulas and tables have few spaces. There, this number of characters counts as a word.
CHARACTERS_PER_WORD = 6

_FENCE = re.compile(r"[ \t]*(```|~~~)")
_HEADING = re.compile(r"#{1,6} |(?:= )+\S|\\(?:chapter|(?:sub)*section)\b")
_UNDERLINED = re.compile(r"[^\n]+\n[ \t]*([=\-~^*#\"'+])\1{2,}[ \t]*\Z")
_MAX_TITLE_WORDS = 12


class Passage(NamedTuple):
    """A passage; `text` begins at the character `start` of its document."""

    text: str
    start: int


class Unit(NamedTuple):
    """A paragraph, a block of code, or a sentence of a long paragraph: `text[start:end]`."""

    start: int
    end: int
    opens: bool  # a passage may begin here
    closes: bool  # a passage may end here


def length(text: str) -> int:
    """Returns the length of a text in words, at least one per `CHARACTERS_PER_WORD` characters.

    >>> length("Hares are fast."), length("sum(x[i]*y[i]for(i)in(range(n)))")
    (3, 5)
    """
    return max(len(text.split()), len(text) // CHARACTERS_PER_WORD)


def draw(
    text: str, words: tuple[int, int], count: int, random_: random.Random, code: bool = False
) -> list[Passage]:
    """Draws at most `count` passages that do not overlap, and returns them in text order.

    Args:
      text: the document's text.
      words: the minimum and the maximum length of a passage (see `length`).
      count: the maximum number of passages.
      random_: the random number generator that selects them.
      code: whether the text is source code: then a passage begins only at a line that is not
        indented.

    Raises:
      ValueError: `words` is not a pair with 0 < minimum <= maximum.
    """
    min_words, max_words = words
    if not 0 < min_words <= max_words:
        raise ValueError(f"words: got {words}, expected 0 < minimum <= maximum length of a passage")
    all_units = units(text, max_words, code)
    starts = [k for k, unit in enumerate(all_units) if unit.opens]
    random_.shuffle(starts)
    used: set[int] = set()  # indices of units that are in a passage
    chosen: list[Passage] = []
    for start in starts:
        if len(chosen) == count:
            break
        run = _longest_run(text, all_units, start, max_words, used)
        passage = text[all_units[start].start : all_units[run[-1]].end] if run else ""
        if length(passage) >= min_words:
            chosen.append(Passage(passage, all_units[start].start))
            used.update(run)
    return sorted(chosen, key=lambda passage: passage.start)


def _longest_run(
    text: str, all_units: list[Unit], start: int, max_words: int, used: set[int]
) -> range:
    """Returns the units from `start` on that fit into a passage, up to the last that may end it."""
    end = start
    for k in range(start, len(all_units)):
        if k in used or length(text[all_units[start].start : all_units[k].end]) > max_words:
            break
        if all_units[k].closes:
            end = k + 1
    return range(start, end)


def units(text: str, max_words: int, code: bool = False) -> list[Unit]:
    """Splits a text into the units of which passages of at most `max_words` words are composed.

    A sentence or fenced block of code that is longer is a unit too, but is in no passage.
    """
    result = []
    for start, end in _blocks(text):
        block = text[start:end]
        is_fenced = _FENCE.match(block) is not None
        if is_fenced or code or length(block) <= max_words:
            opens = not code or not block[:1].isspace()
            result.append(Unit(start, end, opens, code or not _is_heading(block)))
        else:
            result += _sentences(text, start, end)
    return result


def _sentences(text: str, start: int, end: int) -> Iterator[Unit]:
    """Yields the sentences of `text[start:end]` as units."""
    for sentence in prose.sentences(text[start:end]):
        first = text.index(sentence, start)
        start = first + len(sentence)
        yield Unit(first, start, True, True)


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of each run of lines between blank lines, without its last line break.

    A fenced block of code is one run, with its blank lines.
    """
    position, start, end, fence = 0, -1, 0, ""  # start -1: outside a block
    for line in text.split("\n"):
        if not line.strip() and not fence:
            if start >= 0:
                yield start, end
            start = -1
        else:
            if start < 0:
                start = position
            end = position + len(line.rstrip())
            if match := _FENCE.match(line):
                # The same kind of fence closes an open one; another kind inside it is text.
                fence = "" if match[1] == fence else fence or match[1]
        position += len(line) + 1
    if start >= 0:
        yield start, end


def _is_heading(block: str) -> bool:
    """Returns whether a block introduces the next one: a heading, or a short line like one."""
    stripped = block.strip()
    if _UNDERLINED.match(stripped):
        return True
    if "\n" in stripped:
        return False
    is_title = stripped[-1].isalnum() and len(stripped.split()) <= _MAX_TITLE_WORDS
    return _HEADING.match(stripped) is not None or is_title or stripped.endswith(":")

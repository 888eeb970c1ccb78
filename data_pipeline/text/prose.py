r"""Extraction of a document's prose: sections, paragraphs and sentences, without code and tables.

>>> for section in sections("# Hares\n\nHares are fast. They live in forms.\n\n    x = 1\n"):
...     print(section.heading, section.paragraphs)
Hares [['Hares are fast.', 'They live in forms.']]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from data_pipeline.text.word_lists import CONTEXT_DEPENDENT

_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")
_WIKI_HEADING = re.compile(r"(?:= ){1,4}(.+?)(?: =){1,4}$")
_LATEX_HEADING = re.compile(r"\\(?:chapter|(?:sub)*section)\*?\{([^{}]+)\}")
_UNDERLINE = re.compile(r"([=\-~^*#\"'+])\1{2,}$")
_NOT_PROSE = re.compile(
    r"(?:[-*+•·|>$%@:\\<{}\[\]=~^&]|\.\. |>>>|\d+[.)]\s|\(?[a-zA-Z0-9]{1,3}\)\s|#|//|/\*)"
)
# Table columns. Two spaces after a full stop do not match: they are a typing convention.
_COLUMNS = re.compile(r"[^.!?:;\"”’)]  +\S|\t")
# *word*, **word** and _word_, but not __word__, which is a name in code.
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_(?!_))(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")
_CODE = re.compile(r"(?::\w+:)?`{1,2}([^`\n]+)`{1,2}_{0,2}")
_SENTENCE_END = re.compile(r"[.!?][\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Capt|Sen|Rep|Gov|Rev|Hon|Messrs|Mt|No|Nos|Vol|"
    r"Fig|Figs|Eq|Sec|Ch|pp|cf|al|vs|etc|viz|approx|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|"
    r"Nov|Dec)|\b(?:[A-Za-z]\.)+[A-Za-z])\.\Z"
)
_PLAIN = re.compile(r"[\"“‘']?[A-Z][\w\s.,;:'\"‘’“”()!?%$£€&/`–—-]*[.!?][\"”’')]*\Z")
# "P. These rules" is the second part of a sentence that was split after "Civ."
_FRAGMENT = re.compile(r"\w\. |(?:Question|Answer|Q|A)\s*:")
_MIN_WORDS, _MAX_WORDS = 6, 45  # of a sentence that is used in a task
_MIN_LETTER_SHARE = 0.75  # of its characters other than spaces


@dataclass(slots=True)
class Section:
    """A heading and the paragraphs below it."""

    heading: str  # "" before the first heading
    paragraphs: list[list[str]] = field(default_factory=list)  # each a list of sentences


def sections(text: str) -> list[Section]:
    """Returns the sections of a text that contain prose, in text order."""
    result = [Section("")]
    block: list[str] = []  # the lines since the last blank line or fence
    fence = ""  # of the open code block, "" outside one
    for line in [*text.split("\n"), ""]:  # the "" ends the last block
        stripped = line.strip()
        if fence:
            fence = "" if stripped.startswith(fence) else fence
        elif stripped.startswith(("```", "~~~")):
            fence = stripped[:3]
        elif stripped:
            block.append(line)
            continue
        if block:
            heading, lines = _split_heading(block)
            if heading:
                result.append(Section(heading))
            if paragraph := _paragraph(lines):
                result[-1].paragraphs.append(paragraph)
            block = []
    return [section for section in result if section.paragraphs]


def sentences(paragraph: str) -> list[str]:
    """Splits a paragraph into sentences, not after abbreviations.

    >>> sentences("Dr. Hare ran. He won! (So they say.) Done.")
    ['Dr. Hare ran.', 'He won!', '(So they say.)', 'Done.']
    """
    result, start = [], 0
    for match in _SENTENCE_END.finditer(paragraph):
        end = match.start() + 1
        # No abbreviation of the pattern is longer than 12 characters.
        if match[0][0] != "." or not _ABBREVIATION.search(paragraph, max(start, end - 12), end):
            result.append(paragraph[start : match.end()].strip())
            start = match.end()
    return [*result, paragraph[start:].strip()] if paragraph[start:].strip() else result


def is_plain(sentence: str) -> bool:
    """Returns whether a sentence is complete and of ordinary words, without markup or formulas."""
    if _FRAGMENT.match(sentence) or not _PLAIN.match(sentence):
        return False
    if not _MIN_WORDS <= len(sentence.split()) <= _MAX_WORDS:
        return False
    letters = sum(map(str.isalpha, sentence))
    balanced = (
        sentence.count("(") == sentence.count(")")
        and sentence.count('"') % 2 == 0
        and sentence.count("`") % 2 == 0
        and sentence.count("“") == sentence.count("”")
    )
    return (
        balanced
        and letters >= _MIN_LETTER_SHARE * (len(sentence) - sentence.count(" "))
        and "___" not in sentence
    )


def stands_alone(sentence: str) -> bool:
    """Returns whether a sentence does not begin with a pronoun or connective that needs context."""
    return first_word(sentence) not in CONTEXT_DEPENDENT


def first_word(sentence: str) -> str:
    """Returns the first word of a sentence in lower case, without quotes and punctuation."""
    return sentence.lstrip("\"“‘'(").split(maxsplit=1)[0].strip(",;:'’").lower()


def _split_heading(block: list[str]) -> tuple[str, list[str]]:
    """Returns the heading at the start of a block of lines ("" if there is none) and the rest."""
    first = block[0].strip()
    for pattern in (_MARKDOWN_HEADING, _WIKI_HEADING, _LATEX_HEADING):
        if match := pattern.match(first):
            return match[1].strip(), block[1:]
    if _UNDERLINE.match(first) and len(block) > 2 and _UNDERLINE.match(block[2].strip()):
        return block[1].strip(), block[3:]  # reStructuredText with an overline
    if len(block) > 1 and _UNDERLINE.match(block[1].strip()):
        return first, block[2:]
    if len(block) == 1 and _is_title(first):
        return first, []
    return "", block


def _is_title(line: str) -> bool:
    """Returns whether a line of its own is a title: capitalized, short, without a full stop."""
    if not line[0].isupper() or not line[-1].isalnum() or len(line.split()) > 12:
        return False
    return not _NOT_PROSE.match(line) and not _COLUMNS.search(line)


def _paragraph(lines: list[str]) -> list[str]:
    """Returns the sentences of a block of lines; [] if it is code, a list or a table."""
    if not lines or lines[0].startswith(("    ", "\t")):
        return []
    lines = [line.strip() for line in lines]
    if any(_NOT_PROSE.match(line) or _COLUMNS.search(line) for line in lines):
        return []
    text = " ".join(lines)
    if "*" in text or "`" in text or "_" in text:
        text = _CODE.sub(r"`\1`", _EMPHASIS.sub(r"\2", text))
    return sentences(text)

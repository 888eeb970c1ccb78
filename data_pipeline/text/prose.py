"""The prose in a document, without code, tables and lists: its sections, paragraphs, sentences.

>>> for section in sections("# Hares\\n\\nHares are fast. They live in forms.\\n\\n    x = 1\\n"):
...     print(section.heading, section.paragraphs)
Hares [['Hares are fast.', 'They live in forms.']]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from data_pipeline.text.word_lists import LEANING

_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")
_WIKI_HEADING = re.compile(r"(?:= ){1,4}(.+?)(?: =){1,4}$")
_LATEX_HEADING = re.compile(r"\\(?:chapter|(?:sub)*section)\*?\{([^{}]+)\}")
_UNDERLINE = re.compile(r"([=\-~^*#\"'+])\1{2,}$")
_NOT_PROSE = re.compile(
    r"(?:[-*+•·|>$%@:\\<{}\[\]=~^&]|\.\. |>>>|\d+[.)]\s|\(?[a-zA-Z0-9]{1,3}\)\s|#|//|/\*)"
)
_COLUMNS = re.compile(r"[^.!?:;\"”’)]  +\S|\t")  # two spaces after a full stop are typing
# *so*, **so** and _so_, but not __so__: that is a name
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_(?!_))(?=\S)([^*_\n]+?)(?<=\S)\1(?![\w*])")
_CODE = re.compile(r"(?::\w+:)?`{1,2}([^`\n]+)`{1,2}_{0,2}")
_SENTENCE_END = re.compile(r"[.!?][\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Gen|Col|Capt|Sen|Rep|Gov|Rev|Hon|Messrs|Mt|No|Nos|Vol|"
    r"Fig|Figs|Eq|Sec|Ch|pp|cf|al|vs|etc|viz|approx|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|"
    r"Nov|Dec)|\b(?:[A-Za-z]\.)+[A-Za-z])\.\Z"
)
_PLAIN = re.compile(r"[\"“‘']?[A-Z][\w\s.,;:'\"‘’“”()!?%$£€&/`–—-]*[.!?][\"”’')]*\Z")
_FRAGMENT = re.compile(
    r"\w\. |(?:Question|Answer|Q|A)\s*:"
)  # "P. These rules" was cut in "Civ. P."
_MIN_WORDS, _MAX_WORDS = 6, 45  # of a sentence that can stand in a task
_MIN_LETTERS = 0.75  # of its characters other than spaces


@dataclass(slots=True)
class Section:
    heading: str  # "" before the first heading
    paragraphs: list[list[str]] = field(default_factory=list)  # each a list of sentences


def sections(text: str) -> list[Section]:
    """The sections of a text that hold any prose, in order."""
    found = [Section("")]
    block: list[str] = []
    fence = ""
    for line in [*text.split("\n"), ""]:
        bare = line.strip()
        if fence:
            fence = "" if bare.startswith(fence) else fence
        elif bare.startswith(("```", "~~~")):
            fence = bare[:3]
        elif bare:
            block.append(line)
            continue
        if block:
            heading, lines = _split_heading(block)
            if heading:
                found.append(Section(heading))
            if paragraph := _paragraph(lines):
                found[-1].paragraphs.append(paragraph)
            block = []
    return [section for section in found if section.paragraphs]


def sentences(paragraph: str) -> list[str]:
    """
    >>> sentences("Dr. Hare ran. He won! (So they say.) Done.")
    ['Dr. Hare ran.', 'He won!', '(So they say.)', 'Done.']
    """
    found, start = [], 0
    for match in _SENTENCE_END.finditer(paragraph):
        end = match.start() + 1
        if match[0][0] != "." or not _ABBREVIATION.search(paragraph, max(start, end - 12), end):
            found.append(paragraph[start : match.end()].strip())
            start = match.end()
    return [*found, paragraph[start:].strip()] if paragraph[start:].strip() else found


def is_plain(sentence: str) -> bool:
    """A whole sentence of ordinary words: no markup, no formula, nothing cut."""
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
        and letters >= _MIN_LETTERS * (len(sentence) - sentence.count(" "))
        and "___" not in sentence
    )


def stands_alone(sentence: str) -> bool:
    """Does not open with a pronoun or a connective that points to the sentence before."""
    return first_word(sentence) not in LEANING


def first_word(sentence: str) -> str:
    return sentence.lstrip("\"“‘'(").split(maxsplit=1)[0].strip(",;:'’").lower()


def _split_heading(block: list[str]) -> tuple[str, list[str]]:
    """The heading that a block of lines begins with, or "", and the other lines."""
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
    if not line[0].isupper() or not line[-1].isalnum() or len(line.split()) > 12:
        return False
    return not _NOT_PROSE.match(line) and not _COLUMNS.search(line)


def _paragraph(lines: list[str]) -> list[str]:
    """The sentences of a block of lines; none of a block that is code, a list or a table."""
    if not lines or lines[0].startswith(("    ", "\t")):
        return []
    lines = [line.strip() for line in lines]
    if any(_NOT_PROSE.match(line) or _COLUMNS.search(line) for line in lines):
        return []
    text = " ".join(lines)
    if "*" in text or "`" in text or "_" in text:
        text = _CODE.sub(r"`\1`", _EMPHASIS.sub(r"\2", text))
    return sentences(text)

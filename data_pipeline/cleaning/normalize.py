"""Unicode and whitespace: one spelling for every text, and nothing that no file can hold.

>>> normalize("cafe\\u0301\\r\\nItâ€™s \\ufb01ne.  \\n\\n\\n\\nBye", Profile.PROSE)
'café\\nIt’s fine.\\n\\nBye'
"""

from __future__ import annotations

import html
import re
import unicodedata

import ftfy

from data_pipeline.config import CleaningProfile

# UTF-8 read as Latin-1 or Windows-1252: the image of a lead byte, then one of a continuation byte.
# ftfy's own search for mojibake reads 15 MB/s, so it sees only the lines in which this matches.
_MOJIBAKE = re.compile(r"[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

_REPLACED = {
    "\n": "\x0b\x0c\x85\u2028\u2029",
    " ": "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000",
    # soft hyphen, zero-width space, direction marks, word joiner, byte order mark; the zero-width
    # joiners U+200C and U+200D stay: emoji and several scripts need them
    "": "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufeff\ufffe\uffff",
}
_TABLE: dict[int, str] = {
    **dict.fromkeys((*range(9), *range(14, 32), *range(127, 160)), ""),
    **{ord(char): to for to, characters in _REPLACED.items() for char in characters},
    **{
        0xFB00 + i: letters
        for i, letters in enumerate(["ff", "fi", "fl", "ffi", "ffl", "st", "st"])
    },
    **dict.fromkeys(range(55296, 57344), "�"),  # half a surrogate pair has no UTF-8
}
_IN_TABLE = re.compile("[" + "".join(re.escape(chr(code)) for code in sorted(_TABLE)) + "]")
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CONTROL_BYTES = bytes((*range(9), *range(0x0B, 0x20), 0x7F))
_C1_CONTROL = re.compile(r"[\x80-\x9f]")


def normalize(text: str, profile: CleaningProfile) -> str:
    """The same text in NFC, with Unix line ends, without mojibake, control characters, entities
    (prose only: code and markup may be about them), trailing spaces and runs of blank lines.

    Curly quotes and dashes stay: they are the author's. Applying it twice changes nothing.
    """
    if profile in (CleaningProfile.PROSE, CleaningProfile.TASKS):
        text = _unescape(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    if "\x1b" in text:
        text = _ANSI_ESCAPE.sub("", text)
    if not text.isascii():
        if _MOJIBAKE.search(text):
            text = "\n".join([_fix_mojibake(line) for line in text.split("\n")])
        text = ftfy.fixes.fix_surrogates(text)
        if _C1_CONTROL.search(text):
            text = ftfy.fixes.fix_c1_controls(text)
        text = _IN_TABLE.sub(lambda match: _TABLE[ord(match[0])], text)
        text = unicodedata.normalize("NFC", text)
    elif len(text.encode().translate(None, _CONTROL_BYTES)) < len(text):  # quicker than a search
        text = _ASCII_CONTROL.sub(lambda match: _TABLE[ord(match[0])], text)
    return tidy_whitespace(text, profile)


def tidy_whitespace(text: str, profile: CleaningProfile) -> str:
    """No spaces at line ends, at most one blank line in a row (two in code), none at either end."""
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    most = 3 if profile is CleaningProfile.CODE else 2
    if "\n" * (most + 1) in text:
        text = re.sub("\n" * most + "\n+", "\n" * most, text)
    return text.rstrip().lstrip("\n")  # the first line may be indented


def _fix_mojibake(line: str) -> str:
    return line if line.isascii() or not _MOJIBAKE.search(line) else ftfy.fix_encoding(line)


def _unescape(text: str) -> str:
    # Repeated because scraped pages hold "&amp;quot;".
    before = ""
    while "&" in text and text != before:
        before, text = text, _ENTITY.sub(_about_html if "<" in text else _character, text)
    return text


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def _about_html(entity: re.Match[str]) -> str:
    """A text with a literal "<" is HTML or speaks of it: what it escapes is meant to be so."""
    return entity[0] if html.unescape(entity[0]) in "<>&\"'" else html.unescape(entity[0])

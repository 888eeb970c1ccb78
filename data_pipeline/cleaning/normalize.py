r"""Normalization of Unicode and white space, and repair of encoding errors.

>>> normalize("cafe\u0301\r\nItâ€™s \ufb01ne.  \n\n\n\nBye", CleaningProfile.PROSE)
'café\nIt’s fine.\n\nBye'
"""

from __future__ import annotations

import html
import re
import unicodedata

import ftfy

from data_pipeline.config import CleaningProfile

# Mojibake, UTF-8 decoded as Latin-1 or Windows-1252: the character of a lead byte followed by that
# of a continuation byte. ftfy searches only 15 MB per second, so it gets only lines that match.
_MOJIBAKE = re.compile(r"[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_ANSI_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

_REPLACED = {
    "\n": "\x0b\x0c\x85\u2028\u2029",
    " ": "\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000",
    # Soft hyphen, zero-width space, direction marks, word joiner, byte order mark. The zero-width
    # joiners U+200C and U+200D are kept because emoji and several scripts need them.
    "": "\xad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufeff\ufffe\uffff",
}
# Code point -> its replacement.
_TABLE: dict[int, str] = {
    **dict.fromkeys((*range(9), *range(14, 32), *range(127, 160)), ""),  # control characters
    **{ord(char): to for to, characters in _REPLACED.items() for char in characters},
    **{  # ligatures from U+FB00 on
        0xFB00 + i: letters
        for i, letters in enumerate(["ff", "fi", "fl", "ffi", "ffl", "st", "st"])
    },
    **dict.fromkeys(range(55296, 57344), "�"),  # lone surrogates, which UTF-8 cannot encode
}
_IN_TABLE = re.compile("[" + "".join(re.escape(chr(code)) for code in sorted(_TABLE)) + "]")
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CONTROL_BYTES = bytes((*range(9), *range(0x0B, 0x20), 0x7F))
_C1_CONTROL = re.compile(r"[\x80-\x9f]")


def normalize(text: str, profile: CleaningProfile) -> str:
    """Normalizes a text to Unicode NFC with Unix line ends.

    Removes mojibake, control characters, trailing spaces and runs of blank lines. HTML entities are
    decoded in prose and tasks only, because code and markup may be about them. Curly quotes and
    dashes are kept, because they are the author's choice. The function is idempotent.
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
    # Deleting the bytes and comparing lengths is faster than a search.
    elif len(text.encode().translate(None, _CONTROL_BYTES)) < len(text):
        text = _ASCII_CONTROL.sub(lambda match: _TABLE[ord(match[0])], text)
    return tidy_whitespace(text, profile)


def tidy_whitespace(text: str, profile: CleaningProfile) -> str:
    """Removes trailing spaces, blank lines at both ends and surplus blank lines.

    At most one blank line in a row is kept, in code two.
    """
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    max_breaks = 3 if profile is CleaningProfile.CODE else 2  # one more than the blank lines
    if "\n" * (max_breaks + 1) in text:
        text = re.sub("\n" * max_breaks + "\n+", "\n" * max_breaks, text)
    return text.rstrip().lstrip("\n")  # the first line may be indented


def _fix_mojibake(line: str) -> str:
    """Repairs UTF-8 that was decoded with a single-byte encoding."""
    return line if line.isascii() or not _MOJIBAKE.search(line) else ftfy.fix_encoding(line)


def _unescape(text: str) -> str:
    """Decodes HTML entities until none is left; scraped pages contain "&amp;quot;"."""
    before = ""
    while "&" in text and text != before:
        before, text = text, _ENTITY.sub(_decode_in_html if "<" in text else _decode, text)
    return text


def _decode(entity: re.Match[str]) -> str:
    """Decodes an entity."""
    return html.unescape(entity[0])


def _decode_in_html(entity: re.Match[str]) -> str:
    """Decodes an entity unless it stands for a character of HTML syntax.

    A text with a literal "<" is HTML or about HTML, so such entities are intended.
    """
    return entity[0] if html.unescape(entity[0]) in "<>&\"'" else html.unescape(entity[0])

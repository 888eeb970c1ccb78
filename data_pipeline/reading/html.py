"""The main text of an HTML page, as Markdown: headings, lists, tables and code stay what they are.

Extraction is trafilatura's; it drops navigation and footers, and blank lines inside code blocks.
"""

from __future__ import annotations

import codecs
import re

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HEAD_BYTES = 1024  # a declaration has to come within these (HTML standard, 4.2.5.5)
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\s[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]+)""", re.I
)
# Pages that declare these are read by every browser as Windows-1252 (Encoding standard, 4.2).
_WINDOWS_1252 = {"iso8859-1", "ascii"}

# trafilatura escapes Markdown's signs outside code and formulas; a model should see them bare.
_ESCAPED = re.compile(r"(```.*?```|`[^`\n]*`|\$[^$\n]+\$)|\\([<>*_\[\]~])", re.S)


class NoMainTextError(ValueError):
    """A page holds nothing but navigation, or nothing at all."""


def main_text(page: str) -> str:
    """Raises NoMainTextError."""
    import trafilatura

    text = trafilatura.extract(
        page, output_format="markdown", include_comments=False, include_links=False
    )
    if not text or not text.strip():
        raise NoMainTextError("no main text was found in this page")
    return _ESCAPED.sub(lambda match: match[1] or match[2], text)


def decode(page: bytes) -> str:
    """By its byte order mark, else its declaration, else as UTF-8; raises UnicodeDecodeError.

    >>> decode(b'<meta charset="windows-1251"><p>\\xe7\\xe0\\xff\\xf6')
    '<meta charset="windows-1251"><p>заяц'
    """
    for mark, encoding in BOMS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding)
    if declared := _DECLARED.search(page[:HEAD_BYTES]):
        try:
            encoding = codecs.lookup(declared[1].decode()).name
            if not encoding.startswith("utf-16"):  # the declaration was read as ASCII, so it is not
                return page.decode("cp1252" if encoding in _WINDOWS_1252 else encoding)
        except (LookupError, UnicodeError):  # an unknown name, or a false declaration
            pass
    return page.decode()

"""Extraction of the main text of an HTML page as Markdown, with headings, lists, tables and code.

The extraction is trafilatura's. It drops navigation and footers, and blank lines in code blocks.
"""

from __future__ import annotations

import codecs
import re

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HEAD_BYTES = 1024  # in which the encoding has to be declared (HTML standard, section 4.2.5.5)
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\s[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]+)""", re.I
)
# Browsers read pages that declare these as Windows-1252 (Encoding standard, section 4.2).
_WINDOWS_1252 = {"iso8859-1", "ascii"}

# trafilatura escapes Markdown characters outside code and formulas; training text needs them as is.
_ESCAPED = re.compile(r"(```.*?```|`[^`\n]*`|\$[^$\n]+\$)|\\([<>*_\[\]~])", re.S)


class NoMainTextError(ValueError):
    """A page without main text: empty, or only navigation."""


def main_text(page: str) -> str:
    """Returns the main text of a page as Markdown.

    Raises:
      NoMainTextError: the page has none.
    """
    import trafilatura

    text = trafilatura.extract(
        page, output_format="markdown", include_comments=False, include_links=False
    )
    if not text or not text.strip():
        raise NoMainTextError("no main text was found in this page")
    return _ESCAPED.sub(lambda match: match[1] or match[2], text)


def decode(page: bytes) -> str:
    r"""Decodes a page by its byte order mark, else by its declared encoding, else as UTF-8.

    Raises:
      UnicodeDecodeError: the page is invalid in that encoding.

    >>> decode(b'<meta charset="windows-1251"><p>\xe7\xe0\xff\xf6')
    '<meta charset="windows-1251"><p>заяц'
    """
    for mark, encoding in BOMS:
        if page.startswith(mark):
            return page[len(mark) :].decode(encoding)
    if declared := _DECLARED.search(page[:HEAD_BYTES]):
        try:
            encoding = codecs.lookup(declared[1].decode()).name
            # A declaration that was found as ASCII text cannot be in UTF-16.
            if not encoding.startswith("utf-16"):
                return page.decode("cp1252" if encoding in _WINDOWS_1252 else encoding)
        except (LookupError, UnicodeError):  # an unknown encoding, or a wrong declaration
            pass
    return page.decode()

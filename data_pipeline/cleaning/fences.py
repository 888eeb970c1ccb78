"""A fast test for Markdown fences: the lines of ``` or ~~~ around a block of code."""

from __future__ import annotations


def may_have_fences(text: str) -> bool:
    r"""Returns whether a text contains three consecutive backticks or tildes.

    >>> may_have_fences("Run `make`."), may_have_fences("~~~\nmake\n~~~")
    (False, True)
    """
    # Searching for one character is ten times as fast as searching for three equal ones.
    return ("`" in text and "```" in text) or ("~" in text and "~~~" in text)

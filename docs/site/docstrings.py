"""Griffe extension: descriptions of config fields, and examples in docstrings.

The config modules describe each field in a comment, on the line of the field or on the lines
directly above it. The comment becomes the description of the field:

    partitions: int = 0  # number of partitions; 0: one for each 256 MiB of text

A doctest example becomes a code block, wherever it stands in a docstring.
"""

from __future__ import annotations

import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

import griffe

DOCTEST_FLAG = re.compile(r"\s*# doctest: .*$")
EXAMPLES = ("Example:", "Examples:")  # griffe itself makes code blocks in these sections


@cache
def comments(path: Path) -> dict[int, tuple[str, bool]]:
    """Returns the comments of a file: line -> (text, whether it stands alone on its line)."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            alone = not token.line[: token.start[1]].strip()
            found[token.start[0]] = (token.string.lstrip("# "), alone)
    return found


def description(path: Path, first: int, last: int) -> str:
    """Returns the comment of the statement on lines `first` to `last`, or ""."""
    found = comments(path)
    lines = []
    line = first - 1
    while line in found and found[line][1]:
        lines.insert(0, found[line][0])
        line -= 1
    lines += [found[line][0] for line in range(first, last + 1) if line in found]
    return " ".join(lines)


def with_code_blocks(docstring: str) -> str:
    r"""Returns `docstring` with each doctest example, up to an empty line, as a code block.

    >>> with_code_blocks("Adds.\n\n>>> 1 + 1\n2").splitlines()
    ['Adds.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    lines: list[str] = []
    indent = None  # that of the block that is open
    fenced = False  # inside a code block that the docstring has itself
    in_examples = False
    for line in docstring.splitlines():
        stripped = line.strip()
        fenced ^= stripped.startswith("```")
        if indent is not None and not stripped:
            lines.append(indent + "```")
            indent = None
        elif stripped.startswith(">>>") and indent is None and not fenced and not in_examples:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(indent + "```pycon")
        if stripped and indent is None:
            in_examples = stripped in EXAMPLES
        lines.append(DOCTEST_FLAG.sub("", line) if indent is not None else line)
    if indent is not None:
        lines.append(indent + "```")
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Completes the docstrings of the objects that griffe has found."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Makes code blocks of the examples in the docstring of `obj`."""
        if obj.docstring and ">>>" in obj.docstring.value:
            obj.docstring.value = with_code_blocks(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Gives `attr` a docstring if it is a class attribute with a comment and has none."""
        if attr.docstring or not attr.parent or not attr.parent.is_class or attr.lineno is None:
            return
        if not isinstance(attr.filepath, Path):
            return
        text = description(attr.filepath, attr.lineno, attr.endlineno or attr.lineno)
        if text:
            attr.docstring = griffe.Docstring(text, parent=attr)

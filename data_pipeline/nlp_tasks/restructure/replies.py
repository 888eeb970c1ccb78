r"""JSON objects in a teacher's reply: fenced or bare, with text around them or trailing commas.

Nothing is completed or guessed. An object that is truncated, has a key twice or is not valid JSON
is ignored.

>>> objects('Sure!\n```json\n{"title": "Tides",}\n```')
[{'title': 'Tides'}]
>>> objects('{"title": "Ti')
[]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# The reasoning that some models write before their answer.
_REASONING = re.compile(r"\A\s*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.S)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_NOT_BRACKET = re.compile(r'[^"{}\[\]]+')
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.S)
_MAX_DEPTH = 50


def objects(text: str) -> list[dict[str, Any]]:
    """Returns the outermost JSON objects of a text in order, without repetitions."""
    values: list[dict[str, Any]] = []
    for value in _outermost(_REASONING.sub("", text)):
        if value not in values:
            values.append(value)
    return values


def _outermost(text: str) -> Iterator[dict[str, Any]]:
    """Yields the objects of the outermost substrings in braces that are valid JSON objects."""
    start = text.find("{")
    while start >= 0:
        end = _end_of(text, start)
        value = None if end is None else _load(text[start:end])
        if value is not None:
            yield value
        start = text.find("{", start + 1 if value is None else end)


def _end_of(text: str, start: int) -> int | None:
    """Returns the position after the bracket that closes the one at `start`; None without one.

    Brackets inside strings are ignored. Nesting deeper than _MAX_DEPTH gives None.
    """
    expected: list[str] = []  # the closing brackets of all open ones
    position = start
    while position < len(text):
        character = text[position]
        if character == '"':
            match = _STRING.match(text, position)
            if match is None:  # a string that is not closed
                return None
            position = match.end()
            continue
        if character in "{[":
            expected.append("}" if character == "{" else "]")
            if len(expected) > _MAX_DEPTH:
                return None
        elif character in "}]":
            if expected.pop() != character:
                return None
            if not expected:
                return position + 1
        skipped = _NOT_BRACKET.match(text, position)
        position = skipped.end() if skipped else position + 1
    return None


def _load(text: str) -> dict[str, Any] | None:
    """Parses a JSON object, if necessary without trailing commas; None if it is not valid."""
    for candidate in (text, _TRAILING_COMMA.sub(lambda match: match[1] or "", text)):
        try:
            # strict=False permits a line break inside a string.
            value = json.loads(
                candidate,
                strict=False,
                parse_constant=_reject_constant,
                object_pairs_hook=_unique_keys,
            )
            json.dumps(value, ensure_ascii=False).encode()
        except ValueError:  # not JSON, or a lone surrogate, which cannot be encoded
            continue
        return value if isinstance(value, dict) else None
    return None


def _reject_constant(constant: str) -> Any:
    """Raises ValueError for NaN and Infinity, which Python reads as JSON by default."""
    raise ValueError(f"{constant} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of these pairs. Raises ValueError if a key occurs twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)

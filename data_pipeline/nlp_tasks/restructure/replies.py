r"""JSON objects in what a teacher wrote: fenced or bare, with text around them, commas too many.

Only what stands there is read. A value that is cut off, given twice or no JSON is no object;
nothing is completed or guessed.

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

# What a model writes before its answer, if it is one that thinks aloud.
_THOUGHTS = re.compile(r"\A\s*<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.S)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_NOT_BRACKET = re.compile(r'[^"{}\[\]]+')
_SPARE_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.S)
_DEPTH = 50


def objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects of a text, in order, each different one once."""
    found: list[dict[str, Any]] = []
    for candidate in _braced(_THOUGHTS.sub("", text)):
        value = _load(candidate)
        if value is not None and value not in found:
            found.append(value)
    return found


def _braced(text: str) -> Iterator[str]:
    """Stretches from a brace to the one that closes it, braces in strings left aside."""
    at = text.find("{")
    while at >= 0:
        end = _close(text, at)
        if end is not None and _load(text[at:end]) is not None:
            yield text[at:end]
            at = text.find("{", end)
        else:
            at = text.find("{", at + 1)


def _close(text: str, start: int) -> int | None:
    """Behind the bracket that closes the one at `start`, or None where there is none."""
    open_: list[str] = []
    at = start
    while at < len(text):
        sign = text[at]
        if sign == '"':
            match = _STRING.match(text, at)
            if match is None:
                return None
            at = match.end()
            continue
        if sign in "{[":
            open_.append("}" if sign == "{" else "]")
            if len(open_) > _DEPTH:
                return None
        elif sign in "}]":
            if open_.pop() != sign:
                return None
            if not open_:
                return at + 1
        skipped = _NOT_BRACKET.match(text, at)
        at = skipped.end() if skipped else at + 1
    return None


def _load(text: str) -> dict[str, Any] | None:
    for candidate in (text, _SPARE_COMMA.sub(lambda match: match[1] or "", text)):
        try:
            # strict=False: a line break inside a string is read as one.
            value = json.loads(
                candidate, strict=False, parse_constant=_refuse, object_pairs_hook=_once
            )
            json.dumps(value, ensure_ascii=False).encode()
        except ValueError:  # no JSON, or a lone surrogate, which is no text
            continue
        return value if isinstance(value, dict) else None
    return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)

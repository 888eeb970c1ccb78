"""The JSON that a teacher answers with, one schema for each kind of task.

A server that can hold a model to a schema gets it with the request; the answer is validated here
all the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jsonschema

_TEXT = {"type": "string", "minLength": 1}
_FLAG = {"type": "boolean"}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


OPTIONS = 4
KEYWORDS = 3, 8

SCHEMAS: dict[str, dict[str, Any]] = {
    "question_answering": _object(question=_TEXT, answer=_TEXT, needs_passage=_FLAG),
    "multiple_choice": _object(
        question=_TEXT,
        options={"type": "array", "items": _TEXT, "minItems": OPTIONS, "maxItems": OPTIONS},
        answer=_TEXT,
        needs_passage=_FLAG,
    ),
    "cloze": _object(sentence=_TEXT, answer=_TEXT),
    "summary": _object(summary=_TEXT),
    "true_false": _object(statement=_TEXT, verdict=_FLAG, reason=_TEXT, needs_passage=_FLAG),
    "paraphrase": _object(sentence=_TEXT, paraphrase=_TEXT),
    "keywords": _object(
        keywords={"type": "array", "items": _TEXT, "minItems": KEYWORDS[0], "maxItems": KEYWORDS[1]}
    ),
    "title": _object(title=_TEXT),
}


class Breach(NamedTuple):
    """Where an object does not fit its schema, and how."""

    at: str  # a path like /options/2
    detail: str


def breach(kind: str, value: Any) -> Breach | None:
    """The most telling way in which a value is not what the schema of its kind asks for, or None.

    >>> breach("title", {"title": 3})
    Breach(at='/title', detail="3 is not of type 'string'")
    """
    error = jsonschema.exceptions.best_match(_validator(kind).iter_errors(value))
    if error is None:
        return None
    return Breach("".join(f"/{part}" for part in error.absolute_path), error.message)


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(SCHEMAS[kind])

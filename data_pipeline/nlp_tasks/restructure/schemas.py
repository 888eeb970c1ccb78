"""The JSON schemas of a teacher's replies, one per kind of task.

The schema is sent with the request, for servers that can constrain a model's output to a schema.
Replies are validated against it in any case.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jsonschema

_TEXT = {"type": "string", "minLength": 1}
_FLAG = {"type": "boolean"}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


OPTIONS = 4
KEYWORDS = 3, 8  # minimum and maximum

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


class SchemaViolation(NamedTuple):
    """The part of an object that violates its schema, as a path like /options/2, and a message."""

    at: str
    detail: str


def violation(kind: str, value: Any) -> SchemaViolation | None:
    """Returns the most relevant violation of the schema of a kind, or None if the value is valid.

    >>> violation("title", {"title": 3})
    SchemaViolation(at='/title', detail="3 is not of type 'string'")
    """
    error = jsonschema.exceptions.best_match(_validator(kind).iter_errors(value))
    if error is None:
        return None
    return SchemaViolation("".join(f"/{part}" for part in error.absolute_path), error.message)


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    """Returns the validator of a kind."""
    return jsonschema.Draft202012Validator(SCHEMAS[kind])

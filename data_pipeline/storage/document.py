"""The one record, and what a stage may answer about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """A text with its name and where it came from.

    >>> Document("web/7", "Hares are fast.", "web", "web", {"file": "a.jsonl"}).source
    'web'
    """

    id: str
    text: str
    source: str
    category: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Dropped:
    """A stage's "no": `reason` is a stable snake_case name, `evidence` says what was seen."""

    document: Document
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class BadInput:
    """Input that never became a document: where it lies (byte offset) and its first bytes."""

    reason: str
    file: str
    offset: int
    detail: str
    raw: bytes

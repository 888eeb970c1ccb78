"""A document, and the two other outcomes of a stage: dropped documents and bad input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """A text with its id and origin.

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
    """A document that a stage dropped.

    `reason` is a stable snake_case identifier; `evidence` contains what the rule found.
    """

    document: Document
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class BadInput:
    """Input that could not be read as a document.

    `file` and `offset` (bytes) locate it; `raw` contains its first bytes.
    """

    reason: str
    file: str
    offset: int
    detail: str
    raw: bytes

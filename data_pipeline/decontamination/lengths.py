"""How long a document may be before decontamination (paper, A.4): tokens, by tier.

The tokenizer is asked only where the number of bytes leaves it open: a token has at least one.

>>> too_long(Document("tasks/1", "Hares are fast.", "tasks", "tasks"), 512) is None
True
>>> too_long(Document("tasks/1", "Hares are fast.", "tasks", "tasks"), 4).evidence
{'tokens': 5, 'most': 4}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.mixture.tokenizer import opened
from data_pipeline.storage.document import Document, Dropped

TOO_MANY_TOKENS = "too_many_tokens"


def too_long(document: Document, most: int, tokenizer: str = "") -> Dropped | None:
    """The document as dropped if it has more than `most` tokens; `most` = 0 allows any length.

    `tokenizer`: a SentencePiece model; "" is Mistral's.
    """
    text = document.text
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if not most or size < most:
        return None
    tokens = len(opened(tokenizer).encode(text))
    if tokens <= most:
        return None
    evidence: dict[str, Any] = {"tokens": tokens, "most": most}
    return Dropped(document, TOO_MANY_TOKENS, evidence)


def check(max_tokens: Mapping[str, int], tiers: set[str]) -> None:
    """Raises ValueError for a limit of no tier, or below 0."""
    for tier, most in max_tokens.items():
        if tier not in tiers or most < 0:
            raise ValueError(
                f"decontamination.max_tokens: got {tier!r}: {most}; expected tokens of a document, "
                f"0 for any length, for tiers {', '.join(sorted(tiers))}"
            )

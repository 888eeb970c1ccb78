"""The maximum length of a document before decontamination (paper, A.4): tokens, by tier.

The text is tokenized only if its number of bytes does not decide: a token has at least one byte.

>>> too_long(Document("tasks/1", "Hares are fast.", "tasks", "tasks"), 512) is None
True
>>> too_long(Document("tasks/1", "Hares are fast.", "tasks", "tasks"), 4).evidence
{'tokens': 5, 'max_tokens': 4}
"""

from __future__ import annotations

from typing import Any

from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.storage.document import Document, Dropped

TOO_MANY_TOKENS = "too_many_tokens"


def too_long(document: Document, max_tokens: int, tokenizer: str = "") -> Dropped | None:
    """Returns the document as dropped if it is too long, else None.

    Args:
      document: any document.
      max_tokens: the largest number of tokens that is kept; 0 allows any length.
      tokenizer: path of a SentencePiece model; "" is Mistral's.
    """
    text = document.text
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if not max_tokens or size < max_tokens:
        return None
    tokens = len(open_tokenizer(tokenizer).encode(text))
    if tokens <= max_tokens:
        return None
    evidence: dict[str, Any] = {"tokens": tokens, "max_tokens": max_tokens}
    return Dropped(document, TOO_MANY_TOKENS, evidence)

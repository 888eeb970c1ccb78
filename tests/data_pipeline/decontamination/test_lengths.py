"""The length limit is that of the tokenizer, to the token."""

import pytest

from data_pipeline.decontamination import lengths
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.storage.document import Document


def document(text: str) -> Document:
    return Document("tasks/1", text, "tasks", "tasks")


@pytest.mark.parametrize(
    "text", ["Hares are fast. " * 40, "a" * 600, "日本語" * 90, "🐇" * 60, "x = 1\n" * 50]
)
def test_a_document_may_have_as_many_tokens_as_the_limit(text: str) -> None:
    tokens = len(MixtureTokenizer().encode(text))
    assert lengths.too_long(document(text), tokens) is None
    dropped = lengths.too_long(document(text), tokens - 1)
    assert dropped is not None
    assert dropped.reason == "too_many_tokens"
    assert dropped.evidence == {"tokens": tokens, "max_tokens": tokens - 1}


def test_no_limit_and_short_texts_need_no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "open_tokenizer", None)
    assert lengths.too_long(document("Hares are fast. " * 4000), 0) is None
    assert lengths.too_long(document("x" * 511), 512) is None

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.mixture.tokenizer import (
    MixtureTokenizer,
    mistral_model,
    open_tokenizer,
)
from tests.data_pipeline.mixture.tokenization_samples import TEXTS, changed_model


@pytest.fixture(scope="module")
def tokenizer() -> MixtureTokenizer:
    return MixtureTokenizer()


def test_a_tokenizer_is_read_again_where_its_file_has_changed(tmp_path: Path) -> None:
    """A notebook lives longer than the file; what is baked is named by the file's hash."""
    path = str(changed_model(tmp_path, {5000: "one,"}))
    first = open_tokenizer(path)
    assert open_tokenizer(path) is first
    changed_model(tmp_path, {5000: "two,"})
    assert open_tokenizer(path).sha256 == MixtureTokenizer(path).sha256 != first.sha256
    assert open_tokenizer("").sha256 == MixtureTokenizer().sha256
    with pytest.raises(FileNotFoundError, match="expected a SentencePiece model"):
        open_tokenizer(str(tmp_path / "none.model"))


def test_is_the_mistral_tokenizer(tokenizer: MixtureTokenizer) -> None:
    assert (tokenizer.vocab_size, tokenizer.unk_id) == (32_000, 0)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.encode("Hares are fast.") == [382, 4585, 460, 4102, 28723]
    assert tokenizer.sha256 == "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055"


@pytest.mark.parametrize("text", TEXTS)
def test_decodes_to_the_same_text(tokenizer: MixtureTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert tokenizer.decode(ids) == text.replace("\u2581", " ")


def test_does_not_import_mistral_common() -> None:
    program = (
        "import sys\nfrom data_pipeline.mixture.tokenizer import MixtureTokenizer\n"
        "MixtureTokenizer()\n"
        "print(sorted({'mistral_common', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    got = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert got.stdout.strip() == "[]"


@pytest.mark.parametrize("content", [b"", b"no model at all" * 100, b"\x0a\xff", None])
def test_refuses_what_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(mistral_model().read_bytes()[:200_000] if content is None else content)
    with pytest.raises(ValueError, match=r"tokenizer\.model is not a SentencePiece model"):
        MixtureTokenizer(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a SentencePiece model"):
        MixtureTokenizer(tmp_path / "none.model")


def test_refuses_a_model_without_a_begin_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got BOS id -1 and EOS id 2"):
        MixtureTokenizer(changed_model(tmp_path, {1: "<start>"}))


def test_the_mistral_vocabulary_splits_at_words(tokenizer: MixtureTokenizer) -> None:
    assert tokenizer.splits_at_words


@pytest.mark.parametrize("piece", ["a,", "a b", "a\u2581", "e\n", "12", "x1", "é\u2581", ",a"])
def test_a_piece_that_lies_in_two_words_is_seen(tmp_path: Path, piece: str) -> None:
    assert not MixtureTokenizer(changed_model(tmp_path, {5000: piece})).splits_at_words


def test_a_unigram_model_does_not_split_at_words(tmp_path: Path) -> None:
    assert not MixtureTokenizer(changed_model(tmp_path, {}, unigram=True)).splits_at_words

"""Tokenizer files of transformers: the same ids as SentencePiece's, for any text."""

from __future__ import annotations

import random
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from hare_jax.interop import vocabulary
from hare_jax.interop.vocabulary import PieceKind, Vocabulary
from tests.builders import ROOT
from tests.hare_jax.builders import train_sentencepiece

sentencepiece = pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def mistral() -> Path:
    package = util.find_spec("mistral_common")
    if package is None or not package.submodule_search_locations:
        pytest.skip("mistral-common, whose wheel has the tokenizer, is not installed")
    return Path(package.submodule_search_locations[0]) / "data" / "tokenizer.model.v1"


def texts() -> list[str]:
    """Real files, spaces of every length, special names as text, and noise."""
    rng = random.Random(0)
    found = ["", " ", "\n", "\n\n a", "Hares are fast.", "<s>hi</s> <unk>", "<0x41>", "\x00\x01"]
    found += ["e\u0301 \u00e9 \u6f22\u5b57 \U0001f407 \ufb01 \u00bd", "\u2581", "a\u2581 b", "\r\n"]
    found += [" " * n + "x" for n in range(80)] + ["a" * n for n in range(40)]
    found += [(ROOT / "docs" / "architecture.md").read_text("utf-8")]
    found += [path.read_text("utf-8") for path in sorted(ROOT.glob("hare_jax/model/*.py"))]
    letters = [
        *map(chr, range(32, 127)),
        *map(chr, range(0xA0, 0x250)),
        *"\n\t\u2581\u4e2d\U0001f407",
    ]
    for alphabet in (letters, [*"abtheinsr \n."], ["  ", " ", "a", "\n", "\u2581"]):
        found += ["".join(rng.choices(alphabet, k=rng.randrange(1, 60))) for _ in range(400)]
    return found


def test_ids_are_those_of_sentencepiece(mistral: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    expected = sentencepiece.SentencePieceProcessor(model_file=str(mistral))
    vocabulary.write(tmp_path, vocabulary.read(mistral), 100_000)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    assert len(tokenizer) == 32_000
    for text in texts():
        ids = expected.encode(text)
        assert tokenizer.encode(text) == [1, *ids], text
        assert tokenizer.decode(ids) == expected.decode(ids), text
    assert (tmp_path / "tokenizer.model").read_bytes() == mistral.read_bytes()


def test_pieces_of_the_user_stay_whole(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = trained(tmp_path, user_defined_symbols="<round_start>,<round_end>")
    expected = sentencepiece.SentencePieceProcessor(model_file=str(model))
    (tmp_path / "out").mkdir()
    vocabulary.write(tmp_path / "out", vocabulary.read(model), 1000)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    start = expected.piece_to_id("<round_start>")
    rng = random.Random(0)
    parts = ["<round_start>", "<round_end>", "\n", "system", " ", "the data", "<s> ", "<round"]
    found = ["<round_start>user\nHow fast?<round_end>\n<round_start>assistant\n", "<round_start>"]
    for text in found + ["".join(rng.choices(parts, k=6)) for _ in range(300)]:
        ids = expected.encode(text)
        assert tokenizer.encode(text) == [1, *ids], text
        assert ids.count(start) == text.count("<round_start>")
        assert tokenizer.decode(ids) == expected.decode(ids), text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "unigram"}, "model_type is 1, expected 2"),
        ({"byte_fallback": False}, "byte_fallback is False, expected True"),
        ({"normalization_rule_name": "nmt_nfkc"}, "precompiled_charsmap is"),
        ({"add_dummy_prefix": False}, "add_dummy_prefix is False, expected True"),
    ],
    ids=str,
)
def test_other_kinds_of_models_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        vocabulary.read(trained(tmp_path, **changes))


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        vocabulary.read(tmp_path / "tokenizer.model")


def trained(folder: Path, **changes: Any) -> Path:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    return train_sentencepiece(folder, text, **changes)


def test_pairs_of_the_best_piece_come_first() -> None:
    pieces = ["<unk>", "<s>", "</s>", "a", "b", "ab", "aba", "ba"]
    scores = [0.0, 0.0, 0.0, -9.0, -9.0, -2.0, -1.0, -3.0]
    kinds = [PieceKind.UNKNOWN, PieceKind.CONTROL, PieceKind.CONTROL, *[PieceKind.NORMAL] * 5]
    got = vocabulary.merges(Vocabulary(Path("m"), pieces, scores, kinds, 1, 2, 0))
    assert got == [("a", "ba"), ("ab", "a"), ("a", "b"), ("b", "a")]

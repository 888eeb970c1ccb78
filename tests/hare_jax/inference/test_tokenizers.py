"""Tokenizers give the ids of their libraries, whatever is cached."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.mixture.tokenizer import MixtureTokenizer, mistral_model
from hare_jax.inference.tokenizers import (
    CACHED_LINE_LENGTH,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    beginning,
    open_fitting,
    open_tokenizer,
)
from tests.builders import ROOT
from tests.data_pipeline.mixture import tokenization_samples
from tests.hare_jax.builders import train_sentencepiece

TEXTS = st.text(st.sampled_from("ab \n\t\u00e9\u2581\U0001f407<s>the"), max_size=40)


def train(folder: Path, **options: Any) -> Path:
    return train_sentencepiece(folder, (ROOT / "README.md").read_text("utf-8"), **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentencePieceTokenizer, Any]:
    path = train(tmp_path_factory.mktemp("plain"))
    tokenizer = SentencePieceTokenizer(path)
    assert tokenizer._lines_are_independent
    return tokenizer, sentencepiece.SentencePieceProcessor(model_file=str(path))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_lines_apart_have_the_ids_of_the_text(
    plain: tuple[SentencePieceTokenizer, Any], text: str
) -> None:
    tokenizer, processor = plain
    assert tokenizer.encode(text) == processor.encode(text)
    assert tokenizer.decode(processor.encode(text)) == processor.decode(processor.encode(text))


def test_long_lines_and_special_ids(plain: tuple[SentencePieceTokenizer, Any]) -> None:
    tokenizer, processor = plain
    text = "the hare runs " * 200
    assert tokenizer.encode(f"{text}\n{text}") == processor.encode(f"{text}\n{text}")
    ids = processor.encode("the hare")
    assert tokenizer.decode([1, *ids, 2]) == "the hare"
    assert [tokenizer.special_token(i) for i in (1, 2)] == ["<s>", "</s>"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 400)


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram"},
        {"user_defined_symbols": ["\n\n"]},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
    ],
    ids=str,
)
def test_other_models_encode_texts_as_a_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    path = train(tmp_path, **options)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = SentencePieceTokenizer(path)
    assert not tokenizer._lines_are_independent
    for text in ("", "the hare\n\nruns", "\n\n\n the  hare \n"):
        assert tokenizer.encode(text) == processor.encode(text)


def test_the_mistral_model_gives_the_ids_that_data_was_baked_with() -> None:
    ours, baked = SentencePieceTokenizer(mistral_model()), MixtureTokenizer()
    assert ours._lines_are_independent and ours.sha256 == baked.sha256
    text = (ROOT / "docs" / "data.md").read_text("utf-8")
    assert ours.encode(text) == baked.encode(text)
    assert ours.decode(ours.encode(text)) == text


def random_text(rng: random.Random) -> str:
    choices = tokenization_samples.TEXTS if rng.random() < 0.1 else tokenization_samples.PARTS
    return rng.choice(choices)


@pytest.mark.slow
def test_ids_of_a_text_are_those_of_its_lines() -> None:
    rng = random.Random(2)
    lines = [
        "",
        " ",
        "Hares run.",
        "  indented",
        "\u2581",
        "7",
        "é",
        "\tx",
        "a" * CACHED_LINE_LENGTH + " b",
    ]
    texts = [*tokenization_samples.TEXTS, "\n", "\n\na", "a\n"]
    texts += ["".join(random_text(rng) for _ in range(40)) for _ in range(100)]
    texts += ["\n".join(rng.choices(lines, k=rng.randint(1, 9))) for _ in range(200)]
    tokenizer = SentencePieceTokenizer(mistral_model())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer.path))
    for text in texts * 2:  # the second time from the cache
        assert tokenizer.encode(text) == processor.encode(text)


def test_a_piece_across_lines_is_found(tmp_path: Path) -> None:
    path = tokenization_samples.changed_model(tmp_path, {5000: "\ne"})
    tokenizer = SentencePieceTokenizer(path)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert 5000 in tokenizer.encode("a\ne")
    assert tokenizer.encode("a\ne") == processor.encode("a\ne")


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"tokenizer\.model: no such file; put the Sentence"
    ):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    with pytest.raises(ValueError, match=r"tokenizer\.model is not a SentencePiece model"):
        open_tokenizer(tmp_path)
    path = train(tmp_path, bos_id=-1)
    with pytest.raises(ValueError, match="has begin and end ids -1 and 2; expected a model with"):
        SentencePieceTokenizer(path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: no such file; expected a tok"):
        HuggingFaceTokenizer(tmp_path)


def test_an_imported_checkpoint_has_its_own_tokenizer(tmp_path: Path) -> None:
    import tokenizers

    train(tmp_path)
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "hare": 2, "?": 3}, unk_token="?")
    )
    folder = tmp_path / "huggingface"
    folder.mkdir()
    words.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="name no end-of-text token"):
        open_tokenizer(tmp_path)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": [1, 3], "bos_token_id": 0}))
    tokenizer = open_tokenizer(tmp_path)
    assert tokenizer.path == folder / "tokenizer.json"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 4)
    assert tokenizer.encode("hare") == [2] and not tokenizer.adds_bos
    assert tokenizer.special_token(0) == "<s>"


def hugging_face_folder(folder: Path, **files: Any) -> Path:
    """A tokenizer of words with every setting of a Hugging Face folder, beside `files`."""
    import tokenizers

    vocabulary = {"<s>": 0, "</s>": 1, "hare": 2, "?": 3, "<end>": 4}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.add_special_tokens(["<s>", "</s>", "<end>"])
    words.enable_truncation(max_length=2)
    words.enable_padding(length=6, pad_id=3)
    folder.mkdir(parents=True)
    words.save(str(folder / "tokenizer.json"))
    contents = {"tokenizer_config": {"bos_token": "<s>", "eos_token": "</s>"}, **files}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_texts_are_neither_truncated_nor_padded(tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer(hugging_face_folder(tmp_path / "f"))
    assert tokenizer.encode("hare") == [2]
    assert tokenizer.encode("hare hare hare") == [2, 2, 2]


def test_every_end_of_a_folder_is_one(tmp_path: Path) -> None:
    for name, files, ends in (
        ("neither", {}, (1,)),
        ("model", {"config": {"eos_token_id": [1, 4]}}, (1, 4)),
        (
            "generation",
            {"config": {"eos_token_id": 3}, "generation_config": {"eos_token_id": [4, 0]}},
            (1, 4, 0),
        ),
    ):
        tokenizer = open_tokenizer(hugging_face_folder(tmp_path / name, **files))
        assert (tokenizer.eos_id, tokenizer.eos_ids) == (1, ends)
    train(tmp_path)
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert open_tokenizer(tmp_path).eos_ids == (2, 5)  # with SentencePiece's pieces, too


def test_tokens_beside_tokenizer_json_are_added(tmp_path: Path) -> None:
    config = {
        "eos_token": {"content": "<new>"},
        "bos_token": None,
        "added_tokens_decoder": {"5": {"content": "<new>", "special": True}},
    }
    folder = hugging_face_folder(
        tmp_path / "f",
        tokenizer_config=config,
        added_tokens={"<more>": 6},
        config={"bos_token_id": 0},
    )
    tokenizer = HuggingFaceTokenizer(folder)
    assert tokenizer.encode("hare<new><more>") == [2, 5, 6]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (None, 5, 7)
    before = tokenizer.sha256
    (folder / "generation_config.json").write_text('{"eos_token_id": 6}')
    assert HuggingFaceTokenizer(folder).sha256 != before
    (folder / "added_tokens.json").write_text('{"<more>": 9}')
    with pytest.raises(ValueError, match="'<more>' has the id 6, expected 9 as in tok"):
        HuggingFaceTokenizer(folder)


def test_special_tokens_in_a_text_and_bos_are_as_the_folder_has_them(tmp_path: Path) -> None:
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    config = {**named, "split_special_tokens": True, "add_bos_token": True}
    split = HuggingFaceTokenizer(hugging_face_folder(tmp_path / "f", tokenizer_config=config))
    assert 1 not in split.encode("hare</s>") and beginning(split) == [0]
    whole = HuggingFaceTokenizer(hugging_face_folder(tmp_path / "g"))
    assert whole.encode("hare</s>") == [2, 1] and beginning(whole) == []


def test_ids_without_a_row_are_refused_and_rows_without_a_piece_have_no_text(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match=r"has 5 pieces, the model vocab_size=4; put the tok"):
        open_fitting(hugging_face_folder(tmp_path / "f"), 4)
    assert open_fitting(tmp_path / "f", 5).decode([2, 60]) == "hare"
    tokenizer = SentencePieceTokenizer(train(tmp_path))
    assert tokenizer.decode([*tokenizer.encode("hare"), 400, 450]) == "hare"

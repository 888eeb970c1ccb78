"""A SentencePiece model's pieces, and the tokenizer files of transformers made of them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hare_jax.files import write_json

SPACE = "\u2581"  # SentencePiece writes spaces so


class Kind(enum.IntEnum):
    """As SentencePiece numbers them, and GGUF after it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # never in a text: <s>, </s>
    USER_DEFINED = 4  # one piece wherever it stands in a text
    UNUSED = 5
    BYTE = 6


@dataclass(slots=True)
class Vocabulary:
    """`pieces`, `scores`, `kinds`: of id 0, 1, ..."""

    path: Path
    pieces: list[str]
    scores: list[float]
    kinds: list[Kind]
    bos_id: int
    eos_id: int
    unk_id: int


def read(path: Path) -> Vocabulary:
    """Reads tokenizer.model, which must be such that other programs give the same ids.

    Raises ValueError where it is not BPE with byte fallback, no normalization and a space before
    the text: what Llama and Mistral have, and all that transformers and llama.cpp can repeat.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own, by whichever backend it has
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    for what, got, expected in (
        ("model_type", trainer.model_type, trainer.BPE),
        ("byte_fallback", trainer.byte_fallback, True),
        ("treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, False),
        ("precompiled_charsmap", normalizer.precompiled_charsmap, b""),
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces, False),
        ("add_dummy_prefix", normalizer.add_dummy_prefix, True),
        ("escape_whitespaces", normalizer.escape_whitespaces, True),
    ):
        if got != expected:
            raise ValueError(
                f"{path}: {what} is {got!r}, expected {expected!r}: other programs would give "
                "other ids; such a tokenizer cannot be exported"
            )
    return Vocabulary(
        path=path,
        pieces=[piece.piece for piece in proto.pieces],
        scores=[piece.score for piece in proto.pieces],
        kinds=[Kind(piece.type) for piece in proto.pieces],
        bos_id=trainer.bos_id,
        eos_id=trainer.eos_id,
        unk_id=trainer.unk_id,
    )


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The pairs that make a piece, in the order in which `tokenizers` must merge them.

    SentencePiece merges the neighbors that make the piece of the highest score; of equal ones,
    such as runs of spaces have, the leftmost. So a run grows from its left, which an order of pairs
    says as: the longest first.
    """
    number = {piece: i for i, piece in enumerate(vocabulary.pieces)}
    kinds = zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    normal = [piece for piece, kind in kinds if kind is Kind.NORMAL]
    score = {piece: vocabulary.scores[number[piece]] for piece in normal}
    pairs = [
        (piece[:i], piece[i:])
        for piece in normal
        for i in range(1, len(piece))
        if piece[:i] in score and piece[i:] in score
    ]

    def order(pair: tuple[str, str]) -> tuple[float, int, int, int]:
        left, right = pair
        return -score[left + right], -len(left + right), number[left], number[right]

    return sorted(pairs, key=order)


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """tokenizer.json: the same ids as SentencePiece, with <s> before the first."""
    v = vocabulary
    special = [i for i, kind in enumerate(v.kinds) if kind in (Kind.UNKNOWN, Kind.CONTROL)]
    whole = [p for p, kind in zip(v.pieces, v.kinds, strict=True) if kind is Kind.USER_DEFINED]
    bos = v.pieces[v.bos_id]
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, v.pieces[i]) for i in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        "pre_tokenizer": _apart(whole) if whole else None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                start,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [v.bos_id], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": v.pieces[v.unk_id],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": bool(whole),  # a word that is a piece is that piece
            "vocab": {piece: i for i, piece in enumerate(v.pieces)},
            "merges": merges(v),
        },
    }


def tokenizer_config(vocabulary: Vocabulary, max_positions: int) -> dict[str, Any]:
    """tokenizer_config.json."""
    v = vocabulary
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": v.pieces[v.bos_id],
        "eos_token": v.pieces[v.eos_id],
        "unk_token": v.pieces[v.unk_id],
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
        # "<s>" in a text is text, as it was in training; only the first id is the token.
        "split_special_tokens": True,
    }


def write(folder: Path, vocabulary: Vocabulary, max_positions: int) -> None:
    """tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    config = tokenizer_config(vocabulary, max_positions)
    special = {name: config[name] for name in ("bos_token", "eos_token", "unk_token")}
    (folder / "tokenizer.model").write_bytes(vocabulary.path.read_bytes())
    for name, value in (
        ("tokenizer.json", tokenizer_json(vocabulary)),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
    ):
        write_json(folder / name, value)


def _apart(pieces: list[str]) -> dict[str, Any]:
    """Makes each of these pieces a word of its own; what lies between two is another word.

    As added tokens they would each begin a text, and what follows would get a space before it.
    Limit: nothing but the name of a special piece ("<s>") between two of them is read as that.
    """
    longest_first = sorted(pieces, key=len, reverse=True)
    pattern = {"Regex": "|".join(map(re.escape, longest_first))}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _added(number: int, piece: str) -> dict[str, Any]:
    return {
        "id": number,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }

"""The pieces of a SentencePiece model, and transformers' tokenizer files made from them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hare_jax.files import write_json
from hare_jax.inference.tokenizers import deviations_from_plain_bpe, parse_sentencepiece

SPACE = "\u2581"  # how SentencePiece writes a space


class PieceKind(enum.IntEnum):
    """The kind of a piece, numbered as in SentencePiece and GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # <s>, </s>: never the result of encoding a text
    USER_DEFINED = 4  # always one piece, wherever it occurs in a text
    UNUSED = 5
    BYTE = 6


@dataclass(slots=True)
class Vocabulary:
    """The vocabulary of a SentencePiece model, or of byte-level BPE.

    Attributes:
      path: of its file.
      pieces: by id.
      scores: by id.
      kinds: by id.
      bos_id: None if there is none.
      eos_id: the end of a text.
      unk_id: None if there is none.
      merges: of byte-level BPE, in their order: "a b".
      pre_tokenizer: of byte-level BPE, its name in GGUF; "": SentencePiece.
    """

    path: Path
    pieces: list[str]
    scores: list[float]
    kinds: list[PieceKind]
    bos_id: int | None
    eos_id: int
    unk_id: int | None
    merges: list[str] = field(default_factory=list)
    pre_tokenizer: str = ""


def read(path: Path) -> Vocabulary:
    """Reads a tokenizer.model to which other programs can give the same ids.

    Raises ValueError if it is not BPE with byte fallback, without normalization and with a space
    before the text: what Llama and Mistral have, and all that transformers and llama.cpp reproduce.
    """
    proto = parse_sentencepiece(path.read_bytes(), path)
    for setting, got, expected in deviations_from_plain_bpe(proto):
        raise ValueError(
            f"{path}: {setting} is {got!r}, expected {expected!r}: other programs would give "
            "other ids; such a tokenizer cannot be exported"
        )
    trainer = proto.trainer_spec
    return Vocabulary(
        path=path,
        pieces=[piece.piece for piece in proto.pieces],
        scores=[piece.score for piece in proto.pieces],
        kinds=[PieceKind(piece.type) for piece in proto.pieces],
        bos_id=trainer.bos_id,
        eos_id=trainer.eos_id,
        unk_id=trainer.unk_id,
    )


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Returns the pairs that form a piece, in the order in which `tokenizers` must merge them.

    SentencePiece merges the neighbors that form the piece with the highest score, and the leftmost
    ones among equal scores, which runs of spaces have. Such a run grows from its left; in an order
    of pairs this means that the longest piece comes first.
    """
    id_of = {piece: i for i, piece in enumerate(vocabulary.pieces)}
    kinds = zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    normal = [piece for piece, kind in kinds if kind is PieceKind.NORMAL]
    score = {piece: vocabulary.scores[id_of[piece]] for piece in normal}
    pairs = [
        (piece[:i], piece[i:])
        for piece in normal
        for i in range(1, len(piece))
        if piece[:i] in score and piece[i:] in score
    ]

    def order(pair: tuple[str, str]) -> tuple[float, int, int, int]:
        left, right = pair
        return -score[left + right], -len(left + right), id_of[left], id_of[right]

    return sorted(pairs, key=order)


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the content of tokenizer.json: the ids of SentencePiece, after <s>."""
    v = vocabulary
    special = [
        i for i, kind in enumerate(v.kinds) if kind in (PieceKind.UNKNOWN, PieceKind.CONTROL)
    ]
    kinds = zip(v.pieces, v.kinds, strict=True)
    user_defined = [piece for piece, kind in kinds if kind is PieceKind.USER_DEFINED]
    bos, unk = _text(v, v.bos_id), _text(v, v.unk_id)
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
        "pre_tokenizer": _isolate(user_defined) if user_defined else None,
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
            "unk_token": unk,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": bool(user_defined),  # a word that is a piece is not split
            "vocab": {piece: i for i, piece in enumerate(v.pieces)},
            "merges": merges(v),
        },
    }


def tokenizer_config(vocabulary: Vocabulary, max_positions: int) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json; `max_positions` in tokens."""
    v = vocabulary
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _text(v, v.bos_id),
        "eos_token": _text(v, v.eos_id),
        "unk_token": _text(v, v.unk_id),
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
        # "<s>" inside a text is encoded as text, as in training; only the first id is the token.
        "split_special_tokens": True,
    }


def write(folder: Path, vocabulary: Vocabulary, max_positions: int) -> None:
    """Writes tokenizer.model, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
      folder: an existing folder.
      vocabulary: of the tokenizer.model, which is copied.
      max_positions: tokens that the model reads at most.
    """
    config = tokenizer_config(vocabulary, max_positions)
    special = {name: config[name] for name in ("bos_token", "eos_token", "unk_token")}
    (folder / "tokenizer.model").write_bytes(vocabulary.path.read_bytes())
    for name, value in (
        ("tokenizer.json", tokenizer_json(vocabulary)),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", special),
    ):
        write_json(folder / name, value)


def _text(vocabulary: Vocabulary, token_id: int | None) -> str:
    """Returns the piece of a special id, which every SentencePiece model has."""
    assert token_id is not None
    return vocabulary.pieces[token_id]


def _isolate(pieces: list[str]) -> dict[str, Any]:
    """Returns a pre-tokenizer that makes each of these pieces a word of its own.

    As added tokens, each of them would begin a new text, and a space would be put before what
    follows. Limitation: a special piece ("<s>") alone between two of them is read as that piece.
    """
    longest_first = sorted(pieces, key=len, reverse=True)
    pattern = {"Regex": "|".join(map(re.escape, longest_first))}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _added(token_id: int, piece: str) -> dict[str, Any]:
    """Returns the entry of a special piece in "added_tokens"."""
    return {
        "id": token_id,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }

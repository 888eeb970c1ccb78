"""Texts on which two ways of tokenizing would differ if they could, and changed vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2

from data_pipeline.mixture.tokenizer import mistral_model

APOSTROPHES = "It's 2026-11-30: 3.14159, isn't it?"
TEXTS = [
    "",
    " ",
    "a ",
    " b",
    "  two  spaces  ",
    "\n",
    "\n\n  def f(x):\r\n\treturn x ** 2  # ok\n",
    "a\x00b\tc \x00\x00 \x00",
    APOSTROPHES,
    "“curly” — dashes… naïve café ﬁ ² »,",
    "\u2581 SentencePiece's own \u2581\u2581space\u2581",
    "日本語のテキスト、 русский текст 🐇🧑‍🌾 e\u0301 \ufeff\u200b\U0010ffff",
    "<s> </s> <unk> <0x0A>",
    "x" * 3000 + " ab" * 1000,
    "7",
]
# What words and texts are made of.
PARTS = [*"aZ .,;'\n\t0123456789-(){}", "  ", "é", "’", "\u2581", "漢", "the", "Hare"]


def changed_model(folder: Path, pieces: Mapping[int, str], *, unigram: bool = False) -> Path:
    """The Mistral model with some pieces, by id, named otherwise; or weighing segmentations."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(mistral_model().read_bytes())
    for piece_id, piece in pieces.items():
        proto.pieces[piece_id].piece = piece
    if unigram:
        proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    path = folder / "changed.model"
    path.write_bytes(proto.SerializeToString())
    return path

"""The tokenizer: a SentencePiece model, by default the Mistral one of 32 000 pieces.

The file comes out of mistral-common's wheel, which is located but never imported (its import takes
seconds). Special ids are 0 <unk>, 1 <s>, 2 </s>; there is no padding id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from data_pipeline.mixture.word_boundaries import to_bytes, word_begins

MISTRAL_MODEL = "data/tokenizer.model.v1"
KNOWN_LINES, KNOWN_LINE = 4096, 1000  # lines whose ids are kept, and characters of the longest


class MixtureTokenizer:
    """Text to ids and back, without <s> and </s>.

    `path`: a SentencePiece model file; "" is the Mistral tokenizer. Raises FileNotFoundError, and
    ValueError where the file is no SentencePiece model with <s> and </s>.

    >>> tokenizer = MixtureTokenizer()
    >>> tokenizer.encode("Hares are fast.")
    [382, 4585, 460, 4102, 28723]
    """

    def __init__(self, path: str | Path = "") -> None:
        self.path = Path(path) if path else mistral_model()
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file; expected a SentencePiece model")
        self.model = self.path.read_bytes()
        self.sha256 = hashlib.sha256(self.model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = self._processor.LoadFromSerializedProto(self.model)
        except RuntimeError as error:
            raise ValueError(
                f"{self.path} is not a SentencePiece model ({error}); "
                'give one, or "" for the Mistral tokenizer'
            ) from None
        assert loaded
        self.vocab_size: int = self._processor.vocab_size()
        self.unk_id: int = self._processor.unk_id()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise ValueError(
                f"{self.path} has begin and end ids {self.bos_id} and {self.eos_id}; expected a "
                "model with both, since they separate documents"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Where the vocabulary allows it, a line that came before is looked up: the
        requests of a benchmark have most of theirs in common."""
        if not text or not self.splits_at_words:
            return self._processor.encode(text)
        first, *others = text.split("\n")
        ids = list(self._ids_of_line(" " + first))
        for line in others:
            ids += self._newline
            ids += self._ids_of_line(line)
        return ids

    def encode_inside(self, words: list[str]) -> list[list[int]]:
        """Ids of pieces of a text, without the space that is put before a whole one."""
        return self._inside.encode(words)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    def describe(self) -> dict[str, Any]:
        """What a manifest says about it."""
        return {
            "sha256": self.sha256,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "unk_id": self.unk_id,
        }

    @cached_property
    def splits_at_words(self) -> bool:
        """Whether the ids of a text are those of its words (word_boundaries.py).

        True for BPE with byte fallback and no normalization where no piece lies across the end of a
        word: then no merge does. Unigram models weigh whole segmentations: False.
        """
        proto = self._proto()
        trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
        return (
            trainer.model_type == trainer.BPE
            and trainer.byte_fallback
            and not trainer.treat_whitespace_as_suffix
            and not normalizer.precompiled_charsmap
            and not normalizer.remove_extra_whitespaces
            and normalizer.add_dummy_prefix
            and normalizer.escape_whitespaces
            and _are_inside_words(
                [
                    piece.piece
                    for piece in proto.pieces
                    if piece.type in (piece.NORMAL, piece.USER_DEFINED)
                ]
            )
        )

    @cached_property
    def _inside(self) -> sentencepiece.SentencePieceProcessor:
        """Encodes what stands inside a text: puts no space before it."""
        proto = self._proto()
        proto.normalizer_spec.add_dummy_prefix = False
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(proto.SerializeToString())
        return processor

    @cached_property
    def _newline(self) -> list[int]:
        return self._inside.encode("\n")

    @cached_property
    def _ids_of_line(self) -> Callable[[str], list[int]]:
        encode = self._inside.encode
        known = lru_cache(KNOWN_LINES)(encode)
        return lambda line: known(line) if len(line) <= KNOWN_LINE else encode(line)

    def _proto(self) -> Any:
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        proto.ParseFromString(self.model)
        return proto


def _are_inside_words(pieces: list[str]) -> bool:
    """Whether none of them lies in two words."""
    encoded = [to_bytes(piece) for piece in pieces]
    first = np.cumsum([0, *map(len, encoded)])[:-1]
    return len(word_begins(b"".join(encoded), first)) == len(pieces)


def opened(path: str) -> MixtureTokenizer:
    """Returns the tokenizer at `path`; reads it again if the file has changed."""
    file = Path(path) if path else mistral_model()
    if not file.is_file():
        return MixtureTokenizer(file)  # says what is missing
    stat = file.stat()
    return _opened(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(4)
def _opened(file: Path, *state: int) -> MixtureTokenizer:
    return MixtureTokenizer(file)


@cache
def mistral_model() -> Path:
    """The Mistral tokenizer's file inside the installed mistral-common."""
    package = util.find_spec("mistral_common")  # does not import it
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / MISTRAL_MODEL
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"mistral-common's {MISTRAL_MODEL} is not installed: pip install -e .[data], or set "
        "baking.tokenizer to a SentencePiece model"
    )

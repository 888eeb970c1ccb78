"""The tokenizer of a mixture: a SentencePiece model, by default Mistral's with 32 000 pieces.

The default is a file of the package mistral-common, which is located but not imported (its import
takes seconds). Its special ids are 0 <unk>, 1 <s>, 2 </s>; it has no padding id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from data_pipeline.mixture.word_boundaries import to_bytes, word_begins

MISTRAL_MODEL = "data/tokenizer.model.v1"


class MixtureTokenizer:
    """Converts text to ids and back, without <s> and </s>.

    >>> tokenizer = MixtureTokenizer()
    >>> tokenizer.encode("Hares are fast.")
    [382, 4585, 460, 4102, 28723]
    """

    def __init__(self, path: str | Path = "") -> None:
        """Reads a SentencePiece model.

        Args:
          path: the model file; "" is the Mistral tokenizer.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is not a SentencePiece model, or lacks <s> or </s>.
        """
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
                f"{self.path}: got BOS id {self.bos_id} and EOS id {self.eos_id} (-1: none); "
                "expected a model with both, because they separate documents"
            )

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return self._processor.encode(text)

    def encode_inside(self, words: list[str]) -> list[list[int]]:
        """Returns the ids of parts of a text, without the space added before a whole text."""
        return self._inside.encode(words)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids."""
        return self._processor.decode([int(i) for i in ids])

    def describe(self) -> dict[str, Any]:
        """Returns the description that mixture.json contains."""
        return {
            "sha256": self.sha256,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "unk_id": self.unk_id,
        }

    @cached_property
    def splits_at_words(self) -> bool:
        """Whether the ids of a text are the concatenated ids of its words (word_boundaries.py).

        True for BPE with byte fallback and without normalization if no piece spans two words,
        because then no merge does. False for unigram models, which score whole segmentations.
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
        """A processor that adds no space before its input, for parts of a text."""
        proto = self._proto()
        proto.normalizer_spec.add_dummy_prefix = False
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(proto.SerializeToString())
        return processor

    def _proto(self) -> Any:
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        proto.ParseFromString(self.model)
        return proto


def _are_inside_words(pieces: list[str]) -> bool:
    """Returns whether none of the pieces spans two words."""
    encoded = [to_bytes(piece) for piece in pieces]
    first = np.cumsum([0, *map(len, encoded)])[:-1]
    return len(word_begins(b"".join(encoded), first)) == len(pieces)


def open_tokenizer(path: str) -> MixtureTokenizer:
    """Returns the tokenizer at `path`; reads it again if the file has changed."""
    file = Path(path) if path else mistral_model()
    if not file.is_file():
        return MixtureTokenizer(file)  # raises FileNotFoundError
    stat = file.stat()
    return _open_unchanged(file, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(4)
def _open_unchanged(file: Path, *state: int) -> MixtureTokenizer:
    """Returns the tokenizer of a file; `state` is its inode, time and size, which key the cache."""
    return MixtureTokenizer(file)


@cache
def mistral_model() -> Path:
    """Returns the path of the Mistral tokenizer in the installed mistral-common.

    Raises:
      FileNotFoundError: mistral-common is not installed.
    """
    package = util.find_spec("mistral_common")  # does not import it
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / MISTRAL_MODEL
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"mistral-common's {MISTRAL_MODEL} is not installed: pip install -e '.[data]', or set "
        "baking.tokenizer to a SentencePiece model"
    )

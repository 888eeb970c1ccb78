"""Text to token ids and back, as a checkpoint's own tokenizer has it.

Two kinds: a SentencePiece model, as ours carry, and the tokenizer.json of a Hugging Face folder,
read by the `tokenizers` library without transformers or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from hare_jax.training.run_dir import Run

Encode = Callable[[str], list[int]]  # text -> token ids, without BOS
Decode = Callable[[list[int]], str]  # token ids -> text


class Tokenizer(Protocol):
    """`bos_id`: None where the tokenizer has none; `adds_bos`: whether it puts it before a text
    unless told otherwise."""

    bos_id: int | None
    eos_id: int
    adds_bos: bool
    sha256: str

    def encode(self, text: str) -> list[int]:
        """Ids without special ones before or after."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text, special ids left out."""

    def special(self, token_id: int) -> str:
        """How a special id is written: "<s>"."""


class SentencePieceTokenizer:
    """Around a class of the data side that reads a SentencePiece model: see `Tokenizer` there."""

    adds_bos = True  # every document of ours begins with BOS

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.bos_id: int | None = tokenizer.bos_id
        self.eos_id: int = tokenizer.eos_id
        self.sha256: str = tokenizer.sha256

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        special = {self.bos_id, self.eos_id}
        return self._tokenizer.decode([i for i in ids if i not in special])

    def special(self, token_id: int) -> str:
        return {self.bos_id: "<s>", self.eos_id: "</s>"}[token_id]


class HuggingFaceTokenizer:
    """tokenizer.json of a folder; its special tokens from tokenizer_config.json or config.json.

    Raises FileNotFoundError or ValueError where the folder has no such tokenizer, or no EOS.
    """

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected a tokenizer of Hugging Face")
        content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._tokenizer = Tokenizer.from_str(content.decode("utf-8"))
        named = _json(folder / "tokenizer_config.json")
        model = _json(folder / "config.json")
        self.bos_id = self._id(named.get("bos_token"), model.get("bos_token_id"))
        eos_id = self._id(named.get("eos_token"), model.get("eos_token_id"))
        if eos_id is None:
            raise ValueError(
                f"{folder}: tokenizer_config.json and config.json name no end-of-text token"
            )
        self.eos_id = eos_id
        first = self._tokenizer.encode("a").ids[:1]
        self.adds_bos = self.bos_id is not None and first == [self.bos_id]

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def special(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(token_id) or ""

    def _id(self, token: Any, fallback: Any) -> int | None:
        text = token.get("content") if isinstance(token, dict) else token
        if text is not None:
            return self._tokenizer.token_to_id(text)
        return fallback[0] if isinstance(fallback, list) else fallback


def open_texts(run: Run, open_tokenizer: Callable[[Path], Any]) -> Tokenizer:
    """The tokenizer of a run, or of what was imported; `open_tokenizer`: a SentencePiece model.

    Raises FileNotFoundError or ValueError where there is none.
    """
    theirs = run.directory / "huggingface"
    if (theirs / "tokenizer.json").is_file():
        return HuggingFaceTokenizer(theirs)
    return SentencePieceTokenizer(open_tokenizer(run.tokenizer))


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}

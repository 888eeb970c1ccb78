"""A tokenizer made of two functions, for tests that need no real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class FunctionTokenizer:
    """See hare_jax.inference.tokenizers.Tokenizer."""

    encode_text: Callable[[str], list[int]]
    decode_ids: Callable[[list[int]], str]
    bos_id: int | None = 1
    eos_id: int = 2
    eos_ids: tuple[int, ...] = (2,)
    vocab_size: int = 64
    adds_bos: bool = True
    sha256: str = "functions"
    path: Path = Path("tokenizer.model")

    def encode(self, text: str) -> list[int]:
        return self.encode_text(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_ids(list(ids))

    def special_token(self, token_id: int) -> str:
        return {self.bos_id: "<s>", self.eos_id: "</s>"}[token_id]

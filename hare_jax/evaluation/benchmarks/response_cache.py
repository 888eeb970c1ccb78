"""What a model has answered, kept on disk as it comes: a killed evaluation goes on from there.

One file for one model, a line an answer; its name is a fingerprint of all that decides answers
(weights, tokenizer, code), so that no other model is ever served from it. A key is a hash of the
token ids that were asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class ResponseCache:
    """`found`: how many answers were there already. Without a `path` nothing is written.

    Raises ValueError where a line before the last one is damaged; a last line that breaks off was
    being written when the evaluation was killed, and is forgotten.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            whole, _, rest = path.read_bytes().rpartition(b"\n")
            for number, line in enumerate(whole.splitlines(), start=1):
                try:
                    key, value = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}:{number}: {error}; remove the file") from error
                self._known[key] = value
            if rest:
                with path.open("r+b") as file:
                    file.truncate(len(whole) + bool(whole))
        self.found = len(self._known)

    def get(self, key: str) -> Any:
        """None where it was not answered yet."""
        return self._known.get(key)

    def add(self, answers: Mapping[str, Any]) -> None:
        self._known |= answers
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([key, value]) + "\n" for key, value in answers.items())


def key_of(kind: str, *ids: Sequence[int]) -> str:
    """A name for a question: its kind, and each of its sequences of token ids."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for sequence in ids:
        digest.update(len(sequence).to_bytes(8, "little"))
        digest.update(np.asarray(sequence, "<i4").tobytes())
    return digest.hexdigest()

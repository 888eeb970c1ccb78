"""The responses of a model, written to disk as they arrive: a killed evaluation continues.

One file belongs to one model, with one line per response. Its name is a fingerprint of all that
decides responses (weights, tokenizer, code), so that no other model is ever served from it. A key
is a hash of the token ids of the request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class ResponseCache:
    """Key -> response. `num_loaded`: how many responses the file had at first."""

    def __init__(self, path: Path | None = None):
        """Loads the responses in `path`; without a path nothing is written.

        An incomplete last line was being written when the evaluation was killed, and is removed.

        Raises:
          ValueError: another line is damaged.
        """
        self.path = path
        self._responses: dict[str, Any] = {}
        if path is not None and path.is_file():
            complete, _, incomplete = path.read_bytes().rpartition(b"\n")
            for number, line in enumerate(complete.splitlines(), start=1):
                try:
                    key, value = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}:{number}: {error}; remove the file") from error
                self._responses[key] = value
            if incomplete:
                with path.open("r+b") as file:
                    file.truncate(len(complete) + bool(complete))  # with its newline
        self.num_loaded = len(self._responses)

    def get(self, key: str) -> Any:
        """Returns the response, or None if there is none yet."""
        return self._responses.get(key)

    def add(self, responses: Mapping[str, Any]) -> None:
        """Adds responses and appends them to the file."""
        self._responses |= responses
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([key, value]) + "\n" for key, value in responses.items())


def key_of(kind: str, *ids: Sequence[int]) -> str:
    """Returns the key of a request: a hash of its kind and its sequences of token ids."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for sequence in ids:
        digest.update(len(sequence).to_bytes(8, "little"))
        digest.update(np.asarray(sequence, "<i4").tobytes())
    return digest.hexdigest()

"""The finished parts of an evaluation, so that an interrupted one continues after the last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hare_jax.files import write_text


class FinishedParts:
    """Results of the parts of one evaluation, kept in a file until all of them are finished.

    Parts that were written under another fingerprint belong to another evaluation and are ignored.
    """

    def __init__(self, path: Path, fingerprint: str):
        """Reads the parts in `path` that have this fingerprint."""
        self.path, self.fingerprint = path, fingerprint
        kept = read_json_or_none(path)
        same = kept is not None and kept["fingerprint"] == fingerprint
        self.finished: dict[str, Any] = kept["parts"] if kept is not None and same else {}

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns the part `name`, from the file or else from `compute()`, as JSON values."""
        if name in self.finished:
            print(f"  {name}: finished before", flush=True)
        else:
            self.finished[name] = compute()
            kept = {"fingerprint": self.fingerprint, "parts": self.finished}
            write_text(self.path, json.dumps(kept))
        return self.finished[name]

    def remove(self) -> None:
        """Deletes the file, once the results are written."""
        self.path.unlink()


def read_json_or_none(path: Path) -> Any:
    """Returns the content of a JSON file, or None if it is missing or not valid JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None

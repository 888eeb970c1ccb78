"""The finished parts of an evaluation, so that an interrupted one continues after the last."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
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
        kept = read_finished(path, fingerprint)
        self.finished: dict[str, Any] = {} if kept is None else kept["parts"]

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


def read_finished(results: Path, fingerprint: str, others: Iterable[Path] = ()) -> Any:
    """Returns the content of the file `results` if an evaluation with this fingerprint wrote it.

    Args:
      results: a JSON file with a field "fingerprint".
      fingerprint: of the evaluation.
      others: files that it wrote too.

    Returns:
      None if the results are of another evaluation, or one of the files is missing or damaged.
    """
    content = read_json_or_none(results)
    if content is None or content.get("fingerprint") != fingerprint:
        return None
    return content if all(path.is_file() for path in others) else None


def read_json_or_none(path: Path) -> Any:
    """Returns the content of a JSON file, or None if it is missing or not valid JSON."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None

"""Builders for tests of both packages: files of JSON Lines and Python processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Writes one JSON value per line, makes the folder of `path`, and returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[Any]:
    """Returns the JSON values of a file, one per line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def python_output(script: str, *arguments: str, hash_seed: str = "0", **environment: str) -> str:
    """Returns what a script prints in a process of its own, with the given seed of `hash()`."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout

"""Builders for tests of both packages: texts, files of JSON Lines, and Python processes."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


NOUNS = "river valley garden bridge teacher village harbour winter letter engine market window"
VERBS = "shows explains carries measures follows protects changes reaches answers repairs crosses"


def prose(seed: str, sentences: int) -> str:
    """Returns English sentences that no other seed has."""
    rng = random.Random(seed)
    return " ".join(
        f"When number {rng.randrange(10_000)} of the {one} {rng.choice(VERBS.split())} the "
        f"{other}, people of the {third} notice it {rng.randrange(10_000)} times."
        for one, other, third in (rng.sample(NOUNS.split(), 3) for _ in range(sentences))
    )


def jsonl(*rows: Any) -> bytes:
    """Returns one JSON value per line."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Writes one JSON value per line, makes the folder of `path`, and returns `path`.

    A file whose name ends in .gz or .zst is compressed.
    """
    data = jsonl(*rows)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        import zstandard

        data = zstandard.ZstdCompressor().compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
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

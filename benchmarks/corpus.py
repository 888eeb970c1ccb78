"""Shared code of the curation benchmarks: input documents and tables of CPU time."""

from __future__ import annotations

import argparse
import json
import sysconfig
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from data_pipeline.storage.compressed import read_chunks, split_lines
from data_pipeline.storage.document import Document

T = TypeVar("T")


class SpeedTable:
    """A printed table with one row per program: its rate, and the ratio to the first row."""

    def __init__(self, title: str, megabytes: float, repeats: int):
        """Prints the title."""
        print(f"\n{title}")
        self.megabytes, self.repeats, self.first = megabytes, repeats, 0.0

    def row(self, name: str, function: Callable[[], T]) -> T:
        """Prints the lowest CPU time of several calls of a function, and returns its result."""
        best = float("inf")
        for _ in range(self.repeats):
            begin = time.process_time()
            result = function()
            best = min(best, time.process_time() - begin)
        self.timed(name, best)
        return result

    def timed(self, name: str, seconds: float) -> None:
        """Prints a row for a time in CPU seconds."""
        rate = self.megabytes / seconds
        self.first = self.first or rate
        print(f"  {name:<58} {rate:9.2f} MB/s {rate / self.first:7.1f} x", flush=True)


def arguments(document: str, **more: tuple[object, str]) -> argparse.Namespace:
    """Parses the folder, --field, --megabytes and `more`: name -> (default, help)."""
    description, _, epilog = document.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"))
    parser.add_argument("--field", default="text")
    parser.add_argument("--megabytes", type=float, default=20.0)
    for name, (default, help_) in more.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help=help_)
    return parser.parse_args()


def load(folder: str, field: str, megabytes: float) -> list[Document]:
    """Returns at most `megabytes` of text, an equal share of each file (of .py files the first).

    Raises:
      SystemExit: the folder has neither.
    """
    found = sorted(p for p in Path(folder).rglob("*.jsonl*") if p.is_file())
    paths = found or sorted(Path(folder).rglob("*.py"))
    if not paths:
        raise SystemExit(f"no .jsonl, .jsonl.gz or .jsonl.zst files in {folder}")
    documents = list(_read(paths, field, megabytes))
    print(f"{len(documents)} documents, {megabytes_of(documents):.1f} MB of text, from {folder}")
    return documents


def megabytes_of(documents: Sequence[Document]) -> float:
    """Returns the size of the texts in MB of UTF-8."""
    return sum(len(d.text.encode()) for d in documents) / 1e6


def _read(paths: Sequence[Path], field: str, megabytes: float) -> Iterable[Document]:
    """Yields documents until the share of each file is used up."""
    left = megabytes * 1e6
    for path in paths:
        if path.suffix == ".py":
            text = path.read_text(errors="replace")
            if (left := left - len(text)) < 0:
                return
            yield Document(path.name, text, "python", "code")
            continue
        left = megabytes * 1e6 / len(paths)
        source = path.name.partition(".")[0]
        for k, (_, line, _) in enumerate(split_lines(read_chunks(path))):
            row = json.loads(line)
            if (left := left - len(row[field])) < 0:
                break
            yield Document(f"{source}/{k}", row[field], source, row.get("category", source))

"""The job of configs/compare.py: results of several evaluations side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hare_jax.config import ResultComparison
from hare_jax.evaluation.benchmarks import chart, tables
from hare_jax.evaluation.benchmarks.tables import Result
from hare_jax.files import write_text


def run(config: ResultComparison, workdir: Path) -> dict[str, Path]:
    """Writes compare.md and compare.svg to `workdir`, and prints the tables.

    Raises:
      FileNotFoundError: a name in `config.results` has no results.
      ValueError: `config.results` is empty, or a file is not the result of an evaluation.
    """
    if not config.results:
        raise ValueError(
            "results: got none, expected files scores-*.json or folders that hold some: "
            "--config=configs/compare.py:A,B"
        )
    paths = dict.fromkeys(path for name in config.results for path in _files(Path(name)))
    results = [_read(path) for path in paths]
    written = write(results, workdir / "compare")
    print(written["table"].read_text("utf-8"), flush=True)
    return written


def write(results: Sequence[Result], path: Path) -> dict[str, Path]:
    """Writes the tables and the chart of `results` to `path` with the suffixes .md and .svg."""
    written = {"table": path.with_suffix(".md"), "chart": path.with_suffix(".svg")}
    write_text(written["table"], tables.markdown(results))
    write_text(written["chart"], chart.svg(results))
    return written


def _files(path: Path) -> list[Path]:
    """Returns the results at `path`, a file or a folder."""
    files = sorted(path.glob("scores-*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(
            f"{path}: got no results, expected a file scores-*.json or a folder that holds some, "
            "as configs/evaluate.py writes them"
        )
    return [file.resolve() for file in files]


def _read(path: Path) -> dict[str, Any]:
    """Reads a result and checks that it has all that is shown."""
    try:
        result = json.loads(path.read_text("utf-8"))
        tables.markdown([result])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not what configs/evaluate.py writes ({type(error).__name__}: {error}); "
            "evaluate the checkpoint again"
        ) from error
    return dict(result)

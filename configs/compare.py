"""Compares results of configs/evaluate.py with each other and with Table 1 of the paper.

    python main.py --config=configs/compare.py:A,B --workdir=runs/compared

A and B are files scores-*.json, or folders that contain some. Writes compare.md and compare.svg to
the work folder, and prints the tables.
"""

from __future__ import annotations

from hare_jax.config import ResultComparison


def get_config(results: str = "") -> ResultComparison:
    """Returns the job for a comma-separated list of result files or folders."""
    return ResultComparison(results=[name for name in results.split(",") if name])

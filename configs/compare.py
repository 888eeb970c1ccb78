"""Results of configs/evaluate.py side by side, beside the paper's Table 1.

    python main.py --config=configs/compare.py:A,B --workdir=runs/compared

A and B are files scores-*.json, or folders that hold some. Writes compare.md and compare.svg to the
workdir, and prints the tables.
"""

from __future__ import annotations

from hare_jax.config import ResultComparison


def get_config(results: str = "") -> ResultComparison:
    return ResultComparison(results=[name for name in results.split(",") if name])

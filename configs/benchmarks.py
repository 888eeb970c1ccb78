"""Prepares benchmark files once, so that they are evaluated without the Hugging Face hub.

    python main.py --config=configs/benchmarks.py:SOURCE --config.out=data/benchmarks

SOURCE has one folder per benchmark (mmlu, arc_challenge, truthfulqa, winogrande, hellaswag, gsm8k,
...) with its splits as SPLIT.jsonl.gz, .jsonl or .parquet, as their authors published them or as
the hub holds them. Afterwards configs/evaluate.py takes --config.data=data/benchmarks.
"""

from __future__ import annotations

from hare_jax.config import OfflineBenchmarkData


def get_config(source: str = "") -> OfflineBenchmarkData:
    """Returns the job for a folder of benchmark files."""
    return OfflineBenchmarkData(source=source)

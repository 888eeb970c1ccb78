"""Lays benchmark files out once, so that they are evaluated without the Hugging Face hub.

    python main.py --config=configs/benchmarks.py:SOURCE --config.out=data/benchmarks

SOURCE has a folder for each benchmark (mmlu, arc_challenge, truthfulqa, winogrande, hellaswag,
gsm8k, ...) with its splits as SPLIT.jsonl.gz, .jsonl or .parquet, as they were published or as the
hub has them. Then configs/evaluate.py takes --config.data=data/benchmarks.
"""

from __future__ import annotations

from hare_jax.config import OfflineBenchmarkData


def get_config(source: str = "") -> OfflineBenchmarkData:
    return OfflineBenchmarkData(source=source)

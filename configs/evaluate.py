r"""Scores a checkpoint on benchmarks: the Open LLM Leaderboard's six unless others are named.

    python main.py --config=configs/evaluate.py --config.checkpoint=DIR --workdir=runs/scores
    python main.py --config=configs/evaluate.py:hellaswag,piqa --config.checkpoint=DIR \
        --config.protocol=leaderboard_v1 --config.data=data/benchmarks --config.limit=200

DIR is a run's folder, one checkpoint of it, or a folder of Hugging Face. Benchmarks: those of
hare_jax/evaluation/benchmarks/registry.py, and every task of lm-evaluation-harness. The same command
continues an interrupted evaluation.
"""

from __future__ import annotations

from hare_jax.config import BenchmarkEvaluation


def get_config(benchmarks: str = "") -> BenchmarkEvaluation:
    config = BenchmarkEvaluation()
    if benchmarks:
        config.benchmarks = benchmarks.split(",")
    return config

r"""Scores a checkpoint on benchmarks: by default on the six of the Open LLM Leaderboard.

    python main.py --config=configs/evaluate.py --config.checkpoint=DIR --workdir=runs/scores
    python main.py --config=configs/evaluate.py:hellaswag,piqa --config.checkpoint=DIR \
        --config.protocol=leaderboard_v1 --config.data=data/benchmarks --config.limit=200

DIR is a run's folder, one checkpoint of it, or a Hugging Face folder. Benchmarks are those of
hare_jax/evaluation/benchmarks/registry.py, and every task of lm-evaluation-harness. The same
command continues an interrupted evaluation.
"""

from __future__ import annotations

from hare_jax.config import BenchmarkEvaluation


def get_config(benchmarks: str = "") -> BenchmarkEvaluation:
    """Returns the job for a comma-separated list of benchmarks."""
    config = BenchmarkEvaluation()
    if benchmarks:
        config.benchmarks = tuple(benchmarks.split(","))
    return config

r"""Trains the 0.25 B model of the paper's data ablations (Figure 3): one stage of 5 B tokens.

    python main.py --config=configs/hare_250m.py:MIXTURE --workdir=runs/ablation
    python main.py --config=configs/hare_250m.py:MIXTURE --workdir=runs/ablation \
        '--config.training.stages[0].mixture=stage1'

MIXTURE is a mixture folder that curation wrote. Compare mixtures with the same seed: the initial
parameters and everything else but the data are then equal. A plan that repeats a source more than
`training.max_epochs` times is refused: 5 B tokens need a mixture of at least 0.25 B tokens. For a
smaller one, give fewer tokens:

    '--config.training.stages[0].tokens=2_000_000' --config.training.batch_size=8
"""

from __future__ import annotations

from configs import hare_1b
from configs.experiment import Experiment
from hare_jax.config import Stage, Training


def get_config(mixture: str = "") -> Experiment:
    """Returns the experiment for a mixture folder."""
    config = hare_1b.get_config(mixture)
    config.model.num_layers = 16
    config.model.d_model, config.model.d_ff = 1024, 2816
    config.model.num_heads, config.model.num_kv_heads = 16, 4
    config.training = training()
    return config


def training() -> Training:
    """Returns HARE-1.1B's training with one stage and a smaller batch."""
    config = hare_1b.training()
    config.stages = [Stage("ablation", mixture="stage2", tokens=5_000_000_000)]
    config.batch_size = 256
    config.optimizer.warmup_steps = 500
    return config

r"""The model for ablations of data (paper, Figure 3): 0.25 B parameters, one stage of 5 B tokens.

    python main.py --config=configs/hare_250m.py:MIXTURE --workdir=runs/ablation
    python main.py --config=configs/hare_250m.py:MIXTURE --workdir=runs/ablation \
        '--config.training.stages[0].mixture=stage1'

MIXTURE is a folder that curation has baked. Compare mixtures with the same seed: initial parameters
and everything else but the data stay the same.
"""

from __future__ import annotations

from configs import hare_1b
from configs.experiment import Experiment
from hare_jax.config import Stage


def get_config(mixture: str = "") -> Experiment:
    config = hare_1b.get_config(mixture)
    config.model.num_layers = 16
    config.model.d_model, config.model.d_ff = 1024, 2816
    config.model.num_heads, config.model.num_kv_heads = 16, 4
    assert config.training is not None
    config.training.stages = [Stage("ablation", mixture="stage2", tokens=5_000_000_000)]
    config.training.batch_size = 256
    config.training.optimizer.warmup_steps = 500
    return config

"""HARE-1.1B (arXiv 2406.11410): 52 B tokens of D1, then 548 B tokens of D1, D2 and D3.

    python main.py --config=configs/hare_1b.py:MIXTURE --workdir=runs/hare_1b

MIXTURE is a folder that curation has baked, with the mixtures "stage1" and "stage2" (see
configs/curate_hare.py). The batch is 2 M tokens on any number of devices: with few of them it is
computed in parts, such as 32 rows a part on one GPU of 80 GiB and more:

    --config.training.accumulation=32
"""

from __future__ import annotations

from configs.experiment import Experiment
from hare_jax.config import Checkpointing, Model, Optimizer, Remat, Stage, Training


def get_config(mixture: str = "") -> Experiment:
    if not mixture:
        raise ValueError("configs/hare_1b.py:MIXTURE needs a folder of baked data, got nothing")
    return Experiment(
        mixture=mixture,
        model=Model(remat=Remat.ATTENTION),  # the defaults are the paper's model
        training=Training(
            stages=[
                Stage("stage 1", mixture="stage1", tokens=52_000_000_000),
                Stage("stage 2", mixture="stage2", tokens=548_000_000_000),
            ],
            batch_size=1024,  # of 2048 tokens
            optimizer=Optimizer(peak_lr=3e-4, warmup_steps=2000),
            checkpointing=Checkpointing(every_steps=1000),
        ),
    )

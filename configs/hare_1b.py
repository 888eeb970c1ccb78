"""Trains HARE-1.1B (arXiv 2406.11410): 52 B tokens of D1, then 548 B tokens of D1, D2 and D3.

    python main.py --config=configs/hare_1b.py:MIXTURE --workdir=runs/hare_1b

MIXTURE is a mixture folder that curation wrote, with the mixtures "stage1" and "stage2" (see
configs/curate_hare.py). A batch has 2 M tokens on any number of devices. On few devices it is
computed in several parts: 32 rows at a time on one H200 (80.9 of 124.8 GiB by configs/aot.py:h200),
or 16 on one H100 (50.8 of 71.0 GiB by configs/aot.py:h100):

    --config.training.accumulation=32
    --config.training.accumulation=64
"""

from __future__ import annotations

from configs.experiment import Experiment
from hare_jax.config import Checkpointing, Model, Optimizer, Remat, Stage, Training


def get_config(mixture: str = "") -> Experiment:
    """Returns the experiment for a mixture folder."""
    if not mixture:
        raise ValueError("configs/hare_1b.py:MIXTURE needs a mixture folder, got nothing")
    return Experiment(mixture=mixture, model=model(), training=training())


def model() -> Model:
    """Returns the paper's model; its sizes are the defaults."""
    return Model(remat=Remat.ATTENTION)


def training() -> Training:
    """Returns the paper's two stages (section 3.1)."""
    return Training(
        stages=[
            Stage("stage 1", mixture="stage1", tokens=52_000_000_000),
            Stage("stage 2", mixture="stage2", tokens=548_000_000_000),
        ],
        batch_size=1024,  # of 2048 tokens
        optimizer=Optimizer(peak_lr=3e-4, warmup_steps=2000),
        checkpointing=Checkpointing(every_steps=1000),
    )

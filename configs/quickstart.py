"""Raw text to a trained model and a report, on a laptop CPU, offline, in minutes.

    make quickstart
    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

The raw text is this Python installation: real, messy, of several categories, and on every machine.
The model is a small one of the paper's architecture, trained in the paper's two stages.
"""

from __future__ import annotations

from configs.experiment import Experiment
from data_pipeline.config import Baking, HeldOut, Reader, Recipe, Source
from hare_jax.config import (
    Checkpointing,
    DType,
    Evaluation,
    Model,
    Optimizer,
    Remat,
    Stage,
    Training,
)

SEQUENCE_LENGTH = 256
BATCH_SIZE = 8  # sequences
# By size alone two thirds would be code; small sources of other kinds are worth more.
D1 = {"code": 0.35, "web": 0.20, "docs": 0.20, "math": 0.17, "reference": 0.06, "law": 0.02}


def get_config() -> Experiment:
    """Returns the experiment."""
    return Experiment(
        data=recipe(),
        model=Model(
            num_layers=4,
            d_model=128,
            num_heads=4,
            num_kv_heads=2,
            head_dim=32,
            d_ff=384,
            compute_dtype=DType.FLOAT32,  # faster than bfloat16 on a CPU
            remat=Remat.DOTS,  # so is computing some things twice instead of fetching them
        ),
        training=Training(
            stages=[
                Stage("stage 1", mixture="stage1", tokens=150 * BATCH_SIZE * SEQUENCE_LENGTH),
                Stage("stage 2", mixture="stage2", tokens=250 * BATCH_SIZE * SEQUENCE_LENGTH),
            ],
            batch_size=BATCH_SIZE,
            optimizer=Optimizer(peak_lr=3e-3, warmup_steps=20),
            checkpointing=Checkpointing(every_steps=50),
            log_every=5,
        ),
        evaluation=Evaluation(batch_tokens=4096),
    )


def recipe() -> Recipe:
    """Returns the curation of this Python installation."""
    return Recipe(
        # An earlier source keeps the copy where two have the same text.
        sources=[
            Source("reference", category="reference", reader=Reader.PYTHON_REFERENCE),
            Source("docs", category="docs", reader=Reader.PYTHON_DOCSTRINGS),
            Source("code", category="code", reader=Reader.PYTHON_CODE),
            Source("web", category="web", reader=Reader.PYTHON_READMES),
            Source("law", category="law", reader=Reader.PYTHON_LICENSES),
            Source("math", category="math", reader=Reader.SCHOOL_MATH, max_documents=4000),
        ],
        held_out=HeldOut(fraction=0.1, max_documents=12, items=32),
        baking=Baking(sequence_length=SEQUENCE_LENGTH),
        # As in the paper: stage 1 is D1 alone; in stage 2, D1 to D3 weigh 46.50 to 39.87
        # (Tables 3 and 5; D2 needs a teacher, so that the quickstart has none).
        mixtures={
            "stage1": D1,
            "stage2": {name: 46.50 * weight for name, weight in D1.items()} | {"D3": 39.87},
        },
    )

"""Which documents a step of a run was made of: where from, which record, which part of each.

    python main.py --config=configs/trace.py:RUN_DIR --config.step=1234
    python main.py --config=configs/trace.py:RUN_DIR --config.step=1200 --config.last_step=1234 \\
        --config.json=documents.json

RUN_DIR is the folder `training-HASH` that a run has written, or one of its checkpoints. Steps count
from 1, as in metrics.jsonl and on the progress line. The first words of each piece as well:
--config.words=8. Where the data has moved since: --config.mixture=DIR.
"""

from __future__ import annotations

from hare_jax.config import Trace


def get_config(run_dir: str = "") -> Trace:
    if not run_dir:
        raise ValueError("configs/trace.py:RUN_DIR needs the folder of a run, got nothing")
    return Trace(run_dir=run_dir)

r"""Lists the documents in the batches of a run: source, record and position of each.

    python main.py --config=configs/trace.py:RUN_DIR --config.step=1234
    python main.py --config=configs/trace.py:RUN_DIR --config.step=1200 --config.last_step=1234 \
        --config.json=documents.json

RUN_DIR is the folder `training-HASH` of a run, or one of its checkpoints. Steps count from 1, as in
metrics.jsonl and on the progress line. --config.words=8 adds the first words of each document. If
the data has moved since training: --config.mixture=DIR.
"""

from __future__ import annotations

from hare_jax.config import Trace


def get_config(run_dir: str = "") -> Trace:
    """Returns the job for a run folder."""
    if not run_dir:
        raise ValueError("configs/trace.py:RUN_DIR needs the folder of a run, got nothing")
    return Trace(run_dir=run_dir)

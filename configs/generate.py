"""Continues a prompt with a checkpoint, and prints the text as it is generated.

    python main.py --config=configs/generate.py --config.checkpoint=RUN --config.prompt="The sea"
    python main.py --config=configs/generate.py:RUN --config.temperature=0 --config.max_tokens=64

RUN is a run's folder, one checkpoint of it (RUN/checkpoints/4000), or a folder that
configs/import_hf.py wrote. The text is printed to standard output, the speed to standard error.
"""

from __future__ import annotations

from hare_jax.config import Generation


def get_config(checkpoint: str = "") -> Generation:
    """Returns the job for a checkpoint."""
    return Generation(checkpoint=checkpoint)

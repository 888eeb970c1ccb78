"""A prompt and what the model makes of it, word by word.

    python main.py --config=configs/generate.py --config.checkpoint=RUN --config.prompt="The sea"
    python main.py --config=configs/generate.py:RUN --config.temperature=0 --config.max_tokens=64

RUN is a run's folder, one checkpoint of it (RUN/checkpoints/4000), or what configs/import_hf.py has
written. Text goes to standard output, speed to standard error.
"""

from __future__ import annotations

from hare_jax.config import Generation


def get_config(checkpoint: str = "") -> Generation:
    return Generation(checkpoint=checkpoint)

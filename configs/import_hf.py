"""Imports a Mistral or Llama checkpoint from a Hugging Face folder.

    python main.py --config=configs/import_hf.py:FOLDER --config.out=DIR

FOLDER contains config.json and safetensors. DIR is then accepted wherever a run's folder is
expected: by configs/generate.py, configs/evaluate.py, the exports, and by training, which starts
from it with `--config.training.start_from=DIR`. Features that the model does not have (scaled
rotary positions, biases, another activation) and tensors with another shape or name are refused by
name.
"""

from __future__ import annotations

from hare_jax.config import HuggingFaceImport


def get_config(source: str = "") -> HuggingFaceImport:
    """Returns the job for a Hugging Face folder."""
    return HuggingFaceImport(source=source)

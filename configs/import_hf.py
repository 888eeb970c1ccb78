"""A Mistral or Llama checkpoint of Hugging Face as one of ours.

    python main.py --config=configs/import_hf.py:FOLDER --config.out=DIR

FOLDER holds config.json and safetensors. DIR can then be given wherever a run's folder is asked
for: to configs/generate.py, configs/evaluate.py, the exports, and to training, which starts from it
with `--config.training.start_from=DIR`. What our model cannot be (scaled rotary positions, biases,
another activation), and a tensor of another shape or name, is refused by name.
"""

from __future__ import annotations

from hare_jax.config import HuggingFaceImport


def get_config(source: str = "") -> HuggingFaceImport:
    return HuggingFaceImport(source=source)

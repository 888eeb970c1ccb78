r"""Exports a checkpoint as a Hugging Face folder, for transformers and compatible programs.

    python main.py --config=configs/export_hf.py:RUN --config.out=DIR
    python main.py --config=configs/export_hf.py:RUN/checkpoints/4000 --config.out=DIR \
        --config.dtype=bfloat16 --config.architecture=llama

RUN is a run's folder, such as runs/quickstart/training-0123456789ab, or a folder that
configs/import_hf.py wrote. DIR receives the tensors (safetensors, in files of at most
`--config.shard_gb=5`), config.json and the tokenizer; AutoModelForCausalLM and AutoTokenizer load
it. Needs the extra `export`.
"""

from __future__ import annotations

from hare_jax.config import HuggingFaceExport


def get_config(checkpoint: str = "") -> HuggingFaceExport:
    """Returns the job for a checkpoint."""
    return HuggingFaceExport(checkpoint=checkpoint)

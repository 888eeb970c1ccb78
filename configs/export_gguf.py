r"""Exports a checkpoint as one GGUF file, for llama.cpp and programs built on it.

    python main.py --config=configs/export_gguf.py:RUN --config.out=model.gguf
    python main.py --config=configs/export_gguf.py:RUN --config.out=q4.gguf \
        --config.quantization=Q4_0

RUN is a run's folder, one checkpoint of it (RUN/checkpoints/4000), or a folder that
configs/import_hf.py wrote. Needs the extra `export`. `python -m benchmarks.quantization RUN TEXT`
prints perplexity and speed of each format.
"""

from __future__ import annotations

from hare_jax.config import GgufExport


def get_config(checkpoint: str = "") -> GgufExport:
    """Returns the job for a checkpoint."""
    return GgufExport(checkpoint=checkpoint)

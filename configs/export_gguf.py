"""A checkpoint as one GGUF file, for llama.cpp and what is built on it.

    python main.py --config=configs/export_gguf.py:RUN --config.out=model.gguf
    python main.py --config=configs/export_gguf.py:RUN --config.out=q4.gguf \\
        --config.quantization=Q4_0

RUN is a run's folder, one checkpoint of it (RUN/checkpoints/4000), or what configs/import_hf.py has
written. Needs the extra `export`. `python -m benchmarks.quantization RUN TEXT` prints what
the formats cost in perplexity and bring in speed.
"""

from __future__ import annotations

from hare_jax.config import GgufExport


def get_config(checkpoint: str = "") -> GgufExport:
    return GgufExport(checkpoint=checkpoint)

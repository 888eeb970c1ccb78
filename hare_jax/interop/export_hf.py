"""Export of a checkpoint as a Hugging Face folder, which transformers loads as it is.

The folder holds config.json, the tensors (shards.py) and the files of the tokenizer. Logits are the
same on both sides.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from hare_jax.config import HuggingFaceExport
from hare_jax.files import write_json
from hare_jax.inference.tokenizers import HUGGING_FACE_FOLDER
from hare_jax.interop import hf_config, names, shards, vocabulary
from hare_jax.interop.folders import new_folder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import TOKENIZER, Run, open_run


def run(config: HuggingFaceExport, workdir: Path) -> dict[str, Path]:
    """Writes a checkpoint as the folder `config.out`; returns its path.

    Args:
      config: the checkpoint, and how it is written.
      workdir: not used.

    Raises:
      FileNotFoundError: there is no such checkpoint, or it has no tokenizer.
      FileExistsError: `config.out` is not empty.
      ValueError: transformers cannot represent the model or its tokenizer.
    """
    del workdir
    checkpoint_run = open_run(config.checkpoint)
    dtype = jnp.dtype(config.dtype.value)
    hf_model = hf_config.from_model(
        checkpoint_run.model, checkpoint_run.mixture, config.architecture, dtype.name
    )
    hf_model |= _token_ids(checkpoint_run)
    with new_folder(config.out) as folder:
        write_json(folder / "config.json", hf_model)
        _write_tokenizer(checkpoint_run, folder)
        params = checkpoint.stream_params(
            checkpoint_run.checkpoints, checkpoint_run.model, step=checkpoint_run.step
        )
        shards.write(
            folder,
            [(tensor.name, tensor.hf_shape) for tensor in names.tensors(checkpoint_run.model)],
            (array for _, array in names.hf_arrays(checkpoint_run.model, params)),
            dtype,
            config.shard_gb * 1e9,
        )
    return {"Hugging Face": Path(config.out)}


def _token_ids(run: Run) -> dict[str, Any]:
    """Returns the special ids of the original's config.json, which may be several or null."""
    original = run.directory / HUGGING_FACE_FOLDER / "config.json"
    config = json.loads(original.read_text("utf-8")) if original.is_file() else {}
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if name in config}


def _write_tokenizer(run: Run, folder: Path) -> None:
    """Writes the tokenizer's files: those of the original if the checkpoint was imported."""
    original = run.directory / HUGGING_FACE_FOLDER
    if not original.is_dir():
        length = run.mixture["sequence_length"]
        vocabulary.write(folder, vocabulary.read(run.tokenizer), length)
        return
    for file in original.iterdir():
        if file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(file, folder / file.name)
    if (run.directory / TOKENIZER).is_file():
        shutil.copyfile(run.directory / TOKENIZER, folder / TOKENIZER)

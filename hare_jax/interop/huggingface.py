"""Checkpoints of ours as Hugging Face has Mistral and Llama models, and theirs as ours.

Both names stand for the same decoder, and logits are the same on both sides. A checkpoint of theirs
is a folder of config.json, the tensors (see shards.py) and the files of its tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hare_jax.config import HuggingFaceExport, HuggingFaceImport, Model, plain
from hare_jax.files import write_json
from hare_jax.interop import hf_config, names, shards, vocabulary
from hare_jax.interop.folders import new_folder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import TOKENIZER, Run, open_run

# Beside an imported checkpoint: the source's own small files, which its export gives back.
ORIGINAL = "huggingface"
READABLE = ("F32", "F16", "BF16")


def export(config: HuggingFaceExport) -> dict[str, Path]:
    """Writes a checkpoint of ours as a folder that transformers reads.

    Raises ValueError or OSError where there is no such checkpoint, its tokenizer is one that
    transformers cannot repeat, or `config.out` is there already.
    """
    run = open_run(config.checkpoint)
    dtype = jnp.dtype(config.dtype.value)
    theirs = hf_config.to_theirs(run.model, run.mixture, config.architecture, dtype.name)
    with new_folder(config.out) as folder:
        write_json(folder / "config.json", theirs)
        _write_tokenizer(run, folder)
        params = checkpoint.stream_params(run.checkpoints, run.model, step=run.step)
        shards.write(
            folder,
            [(tensor.name, tensor.theirs) for tensor in names.tensors(run.model)],
            (array for _, array in names.each(run.model, params)),
            dtype,
            config.shard_gb * 1e9,
        )
    return {"Hugging Face": Path(config.out)}


def import_(config: HuggingFaceImport) -> dict[str, Path]:
    """Writes a checkpoint of theirs as one of ours: a folder that can stand for a run's.

    Its config.json has the fields of the Model. Raises ValueError or OSError where there is no such
    checkpoint, config.json has what a Model has not, or the tensors are not what it says.
    """
    source = _source(config.source)
    theirs = _read_json(source / "config.json")
    model = hf_config.to_ours(theirs, source / "config.json")
    with new_folder(config.out) as folder, _opened(source) as theirs_by_name:
        check(model, theirs_by_name, source)
        params = _stacked(model, theirs_by_name)
        checkpoint.save_params(folder / "checkpoints", model, params)
        mixture = hf_config.mixture(theirs)
        if (source / TOKENIZER).is_file():
            shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
        (folder / ORIGINAL).mkdir()
        for file in source.iterdir():
            if file.name != TOKENIZER and file.suffix in (".json", ".jinja", ".txt"):
                shutil.copyfile(file, folder / ORIGINAL / file.name)
        write_json(folder / "config.json", {"model": plain(model), "mixture": mixture})
    return {"checkpoint": Path(config.out), "model": Path(config.out) / "config.json"}


def check(model: Model, theirs: Mapping[str, Any], source: Path) -> None:
    """Raises ValueError at the first tensor that is missing, too much, or not of its shape.

    `theirs`: name -> what safetensors calls a slice.
    """
    expected = {tensor.name: tensor for tensor in names.tensors(model)}
    for name, tensor in expected.items():
        if name not in theirs:
            raise ValueError(
                f"{source}: no tensor {name}, expected one of shape {list(tensor.theirs)}; "
                "config.json and the tensors are of different models, or a file is missing"
            )
        shape, dtype = theirs[name].get_shape(), theirs[name].get_dtype()
        if tuple(shape) != tensor.theirs:
            raise ValueError(
                f"{source}: {name} has shape {shape}, config.json says {list(tensor.theirs)}; "
                "give the config.json that belongs to these tensors"
            )
        if dtype not in READABLE:
            raise ValueError(
                f"{source}: {name} is of dtype {dtype}, expected one of {', '.join(READABLE)}; "
                "quantized checkpoints have to be made whole first"
            )
    ignored = {"lm_head.weight"} if model.tied_head else set()  # as transformers does
    if unknown := sorted(set(theirs) - set(expected) - ignored):
        raise ValueError(
            f"{source}: tensor {unknown[0]} (and {len(unknown) - 1} more) is in no model that "
            "config.json describes; expected those of a Mistral or Llama and no others"
        )


def _stacked(model: Model, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameters, float32; besides them one tensor is in memory at a time."""
    params: dict[str, Any] = {}
    for tensor in names.tensors(model):
        array = tensor.to_ours(theirs[tensor.name][:]).astype(np.float32)
        node = params
        for key in tensor.path[:-1]:
            node = node.setdefault(key, {})
        if tensor.layer is None:
            node[tensor.path[-1]] = np.ascontiguousarray(array)
        else:
            shape = (model.num_layers, *tensor.ours)
            node.setdefault(tensor.path[-1], np.empty(shape, np.float32))[tensor.layer] = array
    return params


@contextmanager
def _opened(source: Path) -> Iterator[dict[str, Any]]:
    """Name -> slice of each tensor in all the files; nothing is read yet."""
    from safetensors import SafetensorError, safe_open

    files = [source / "model.safetensors"]
    index = source / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({source / name for name in _read_json(index)["weight_map"].values()})
    with ExitStack() as stack:
        found: dict[str, Any] = {}
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file}: no such file; expected model.safetensors, or all the files of "
                    f"{index.name} (of a checkpoint in another format, save it as safetensors)"
                )
            try:
                opened = stack.enter_context(safe_open(file, framework="numpy"))
            except SafetensorError as error:
                raise ValueError(f"{file}: not a whole safetensors file: {error}") from error
            found |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        # Buffers of old checkpoints, computed from the config by everybody.
        yield {name: s for name, s in found.items() if not name.endswith("rotary_emb.inv_freq")}


def _source(path: str) -> Path:
    if not path:
        raise ValueError("source: got nothing, expected a folder: configs/import_hf.py:DIR")
    source = Path(path).absolute()
    if not (source / "config.json").is_file():
        raise FileNotFoundError(
            f"source: {source} has no config.json; expected a folder of a Hugging Face checkpoint"
        )
    return source


def _write_tokenizer(run: Run, folder: Path) -> None:
    original = run.directory / ORIGINAL
    if not original.is_dir():
        length = run.mixture["sequence_length"]
        vocabulary.write(folder, vocabulary.read(run.tokenizer), length)
        return
    for file in original.iterdir():
        if file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(file, folder / file.name)
    if (run.directory / TOKENIZER).is_file():
        shutil.copyfile(run.directory / TOKENIZER, folder / TOKENIZER)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}") from error

"""Import of a Hugging Face Mistral or Llama checkpoint as a checkpoint of this project.

Both names stand for the same decoder, and logits are the same on both sides. The source is a folder
with config.json, the tensors as safetensors, and the files of the tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import HuggingFaceImport, Model, plain
from hare_jax.files import write_json
from hare_jax.inference.tokenizers import HUGGING_FACE_FOLDER
from hare_jax.interop import hf_config, names
from hare_jax.interop.folders import new_folder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import TOKENIZER

READABLE_DTYPES = ("F32", "F16", "BF16")


def run(config: HuggingFaceImport, workdir: Path) -> dict[str, Path]:
    """Writes the checkpoint at `config.source` as a folder that can be used like a run's folder.

    The source's own small files are kept in its subfolder "huggingface"; an export copies them.

    Args:
      config: source and output folder.
      workdir: not used.

    Raises:
      FileNotFoundError: there is no such checkpoint, or one of its files is missing.
      FileExistsError: `config.out` is not empty.
      ValueError: config.json describes what a Model cannot represent, or the tensors do not fit it.
    """
    del workdir
    source = _source_folder(config.source)
    hf_model = _read_json(source / "config.json")
    model = hf_config.to_model(hf_model, source / "config.json")
    with new_folder(config.out) as folder, _open_tensors(source) as tensors:
        check(model, tensors, source)
        checkpoint.save_params(folder / "checkpoints", model, _stack_layers(model, tensors))
        if (source / TOKENIZER).is_file():
            shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
        (folder / HUGGING_FACE_FOLDER).mkdir()
        for file in source.iterdir():
            if file.name != TOKENIZER and file.suffix in (".json", ".jinja", ".txt"):
                shutil.copyfile(file, folder / HUGGING_FACE_FOLDER / file.name)
        mixture = hf_config.mixture(hf_model)
        write_json(folder / "config.json", {"model": plain(model), "mixture": mixture})
    return {"checkpoint": Path(config.out), "model": Path(config.out) / "config.json"}


def check(model: Model, tensors: Mapping[str, Any], source: Path) -> None:
    """Checks names, shapes and dtypes of all tensors before any of them is read.

    Args:
      model: the Model of the source's config.json.
      tensors: name -> slice object of safetensors.
      source: the folder, named in errors.

    Raises:
      ValueError: a tensor is missing or unknown, or has another shape or dtype.
    """
    expected = {tensor.name: tensor for tensor in names.tensors(model)}
    for name, tensor in expected.items():
        if name not in tensors:
            raise ValueError(
                f"{source}: no tensor {name}, expected one of shape {list(tensor.hf_shape)}; "
                "config.json and the tensors are of different models, or a file is missing"
            )
        shape, dtype = tensors[name].get_shape(), tensors[name].get_dtype()
        if tuple(shape) != tensor.hf_shape:
            raise ValueError(
                f"{source}: {name} has shape {shape}, expected {list(tensor.hf_shape)} from "
                "config.json; use the config.json that belongs to these tensors"
            )
        if dtype not in READABLE_DTYPES:
            raise ValueError(
                f"{source}: {name} is of dtype {dtype}, expected one of "
                f"{', '.join(READABLE_DTYPES)}; dequantize the checkpoint first"
            )
    ignored = {"lm_head.weight"} if model.tied_head else set()  # as transformers does
    if unknown := sorted(set(tensors) - set(expected) - ignored):
        raise ValueError(
            f"{source}: tensor {unknown[0]} (and {len(unknown) - 1} more) is in no model that "
            "config.json describes; expected those of a Mistral or Llama and no others"
        )


def _stack_layers(model: Model, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters, float32; besides them one tensor is in memory at a time."""
    params: dict[str, Any] = {}
    for tensor in names.tensors(model):
        array = tensor.from_hf(tensors[tensor.name][:]).astype(np.float32)
        node = params
        for key in tensor.path[:-1]:
            node = node.setdefault(key, {})
        if tensor.layer is None:
            node[tensor.path[-1]] = np.ascontiguousarray(array)
        else:
            shape = (model.num_layers, *tensor.shape)
            node.setdefault(tensor.path[-1], np.empty(shape, np.float32))[tensor.layer] = array
    return params


@contextmanager
def _open_tensors(source: Path) -> Iterator[dict[str, Any]]:
    """Opens all files; yields name -> slice object of each tensor, none of them read yet."""
    from safetensors import SafetensorError, safe_open

    files = [source / "model.safetensors"]
    index = source / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({source / name for name in _read_json(index)["weight_map"].values()})
    with ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(
                    f"{file}: no such file; expected model.safetensors, or all the files of "
                    f"{index.name} (of a checkpoint in another format, save it as safetensors)"
                )
            try:
                opened = stack.enter_context(safe_open(file, framework="numpy"))
            except SafetensorError as error:
                raise ValueError(f"{file}: not a complete safetensors file: {error}") from error
            tensors |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        # Old checkpoints also hold the rotary frequencies, which follow from config.json.
        yield {name: s for name, s in tensors.items() if not name.endswith("rotary_emb.inv_freq")}


def _source_folder(path: str) -> Path:
    """Returns the absolute path of the source; raises ValueError or FileNotFoundError."""
    if not path:
        raise ValueError("source: got nothing, expected a folder: configs/import_hf.py:DIR")
    source = Path(path).absolute()
    if not (source / "config.json").is_file():
        raise FileNotFoundError(
            f"source: {source} has no config.json; expected a folder of a Hugging Face checkpoint"
        )
    return source


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON: {error}") from error

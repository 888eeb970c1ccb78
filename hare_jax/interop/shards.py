"""Writer of safetensors files of any total size that holds one tensor in memory at a time.

A file is the length of its header (8 bytes), a JSON header with dtypes, shapes and byte ranges, and
the bytes of the tensors. The header follows from the shapes alone, so tensors can be written one
after another. The safetensors library itself writes a file only from tensors that are all in
memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hare_jax.files import write_json

DTYPE_CODES = {"float32": "F32", "bfloat16": "BF16"}
NamedShape = tuple[str, tuple[int, ...]]  # name and shape of a tensor


def write(
    folder: Path,
    shapes: Sequence[NamedShape],
    arrays: Iterable[np.ndarray],
    dtype: np.dtype,
    max_bytes: float,
) -> list[Path]:
    """Writes tensors as safetensors files; returns the files.

    If all tensors fit into `max_bytes`, one file model.safetensors is written. Otherwise there are
    several, and model.safetensors.index.json maps each tensor to its file.

    Args:
      folder: an existing folder.
      shapes: name and shape of each tensor.
      arrays: the tensors, in the order of `shapes`.
      dtype: of the files, float32 or bfloat16.
      max_bytes: maximum size of a file, unless a single tensor is larger.
    """
    parts = partition(shapes, dtype, max_bytes)
    files = [folder / "model.safetensors"]
    if len(parts) > 1:
        numbers = range(1, len(parts) + 1)
        files = [folder / f"model-{n:05d}-of-{len(parts):05d}.safetensors" for n in numbers]
    remaining = iter(arrays)
    for path, part in zip(files, parts, strict=True):
        with path.open("wb") as file:
            file.write(header(part, dtype))
            for (name, shape), array in zip(part, remaining, strict=False):
                assert array.shape == shape, (name, array.shape, shape)
                file.write(np.ascontiguousarray(array, dtype).view(np.uint8).data)
    if len(parts) > 1:
        weight_map = {
            name: file.name for file, part in zip(files, parts, strict=True) for name, _ in part
        }
        total = sum(_num_bytes(shape, dtype) for shape in shapes)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    return files


def partition(
    shapes: Sequence[NamedShape], dtype: np.dtype, max_bytes: float
) -> list[list[NamedShape]]:
    """Splits `shapes`, in order, into parts of at most `max_bytes` each."""
    parts: list[list[NamedShape]] = []
    size = math.inf  # the first tensor begins a part
    for shape in shapes:
        size += _num_bytes(shape, dtype)
        if size > max_bytes:
            parts.append([])
            size = _num_bytes(shape, dtype)
        parts[-1].append(shape)
    return parts


def header(shapes: Sequence[NamedShape], dtype: np.dtype) -> bytes:
    """Returns the bytes before the first tensor of a file, padded to a multiple of 8."""
    # transformers refuses files whose metadata does not name a framework.
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes:
        end = start + _num_bytes((name, shape), dtype)
        entries[name] = {
            "dtype": DTYPE_CODES[dtype.name],
            "shape": shape,
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _num_bytes(shape: NamedShape, dtype: np.dtype) -> int:
    return math.prod(shape[1]) * dtype.itemsize

"""Writes safetensors files of any total size with one tensor in memory at a time.

A file is the length of its header (8 bytes), a JSON header of dtypes, shapes and byte ranges, and
the bytes. The header follows from the shapes, so that tensors can be written as they come; the
safetensors library, which reads them, writes a file only whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hare_jax.files import write_json

CODES = {"float32": "F32", "bfloat16": "BF16"}
Shape = tuple[str, tuple[int, ...]]  # name and shape of a tensor


def write(
    folder: Path,
    shapes: Sequence[Shape],
    arrays: Iterable[np.ndarray],
    dtype: np.dtype,
    max_bytes: float,
) -> list[Path]:
    """Writes `arrays`, in the order of `shapes`, as `dtype`; returns the files.

    One model.safetensors where `max_bytes` suffice, else files of at most so many (more where one
    tensor is larger) and model.safetensors.index.json, which says what lies where.
    """
    parts = partition(shapes, dtype, max_bytes)
    files = [folder / "model.safetensors"]
    if len(parts) > 1:
        numbers = range(1, len(parts) + 1)
        files = [folder / f"model-{n:05d}-of-{len(parts):05d}.safetensors" for n in numbers]
    coming = iter(arrays)
    for path, part in zip(files, parts, strict=True):
        with path.open("wb") as file:
            file.write(header(part, dtype))
            for (name, shape), array in zip(part, coming, strict=False):
                assert array.shape == shape, (name, array.shape, shape)
                file.write(np.ascontiguousarray(array, dtype).view(np.uint8).data)
    if len(parts) > 1:
        where = {name: f.name for f, part in zip(files, parts, strict=True) for name, _ in part}
        total = sum(_bytes(shape, dtype) for shape in shapes)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_json(folder / "model.safetensors.index.json", index)
    return files


def partition(shapes: Sequence[Shape], dtype: np.dtype, max_bytes: float) -> list[list[Shape]]:
    """Neighbours together, as many as `max_bytes` hold."""
    parts: list[list[Shape]] = []
    size = math.inf
    for shape in shapes:
        size += _bytes(shape, dtype)
        if size > max_bytes:
            parts.append([])
            size = _bytes(shape, dtype)
        parts[-1].append(shape)
    return parts


def header(shapes: Sequence[Shape], dtype: np.dtype) -> bytes:
    """The bytes before the first tensor, padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    start = 0
    for name, shape in shapes:
        end = start + _bytes((name, shape), dtype)
        entries[name] = {
            "dtype": CODES[dtype.name],
            "shape": shape,
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(shape: Shape, dtype: np.dtype) -> int:
    return math.prod(shape[1]) * dtype.itemsize

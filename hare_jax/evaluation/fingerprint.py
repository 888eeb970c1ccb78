"""Hashes of the parameters and of the code that an evaluation's numbers depend on."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hare_jax.model import decoder

_PACKAGE = "hare_jax"
_ROOT = Path(__file__).parents[2]
# Fields of the configuration are part of a fingerprint by their values, and progress lines change
# no number.
_NOT_PART_OF_RESULT = {f"{_PACKAGE}.config", f"{_PACKAGE}.progress"}


def digest_of_params(params: decoder.Params) -> str:
    """Returns the sha256 of the names, shapes, dtypes and bits of all parameters."""
    digest = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(value)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digest_of_code(module: str) -> str:
    """Returns the sha256 of the source of `module` and of all that it imports from this package.

    Args:
      module: dotted name, usually the caller's `__name__`.
    """
    sources: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        if name in sources or name in _NOT_PART_OF_RESULT:
            continue
        source = _file(name).read_bytes()
        sources[name] = hashlib.sha256(source).hexdigest()
        pending += _imports(source)
    return digest_of_json(sources)


def digest_of_json(value: Any) -> str:
    """Returns the sha256 of `value` as JSON with sorted keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _file(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(source: bytes) -> list[str]:
    """Returns the modules of this package that `source` imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from hare_jax.model import decoder` imports a module, or a name of a module.
                submodule = f"{node.module}.{alias.name}"
                is_local = node.module.split(".")[0] == _PACKAGE
                found.add(submodule if is_local and _file(submodule).exists() else node.module)
    return sorted(name for name in found if name.split(".")[0] == _PACKAGE)

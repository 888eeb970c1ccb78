"""The version of the code behind a result, found by following its imports."""

from __future__ import annotations

import ast
import hashlib
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGE = "data_pipeline"
ROOT = Path(__file__).parents[2]
# Modules that determine no result. Settings enter an address by their values; checks refuse or pass
# a recipe; how work is displayed or divided, and where bytes are stored, does not change them.
NOT_PART_OF_RESULT = {
    f"{PACKAGE}.{name}"
    for name in (
        "config",
        "config_problems",
        "execution.beam_engine",
        "execution.code_version",
        "execution.local_engine",
        "execution.progress",
        "execution.runner",
        "reading.check",
        "storage.object_store",
        "teacher.check",
    )
}


def code_version(module: str) -> dict[str, str]:
    """Returns everything that the results of a module depend on besides input and settings.

    These are a hash of each source file of this package that it reaches by imports (itself
    included), the version of each library that one of them imports, and that of Python.

    >>> sorted(code_version("data_pipeline.storage.document"))    # doctest: +SKIP
    ['data_pipeline.storage.document', 'python']
    """
    version = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    pending = [module]
    while pending:
        name = pending.pop()
        if name in version or name in NOT_PART_OF_RESULT:
            continue
        version[name] = _file_hash(name)
        ours, libraries = _imports(name)
        pending += ours
        for library in libraries:
            version |= _library_version(library)
    return dict(sorted(version.items()))


def _file(name: str) -> Path:
    """Returns the source file of a module."""
    if name.partition(".")[0] != PACKAGE:  # a stage that is defined elsewhere
        return Path(str(sys.modules[name].__file__))
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _file_hash(name: str) -> str:
    return hashlib.sha256(_file(name).read_bytes()).hexdigest()[:16]


@cache
def _imports(name: str) -> tuple[list[str], list[str]]:
    """Returns (modules of this package, libraries) that a module imports, inside functions too."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(_file(name).read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours, libraries = set(), set()
    for module in imported:
        root = module.partition(".")[0]
        if root == PACKAGE:
            # `from data_pipeline.x import y`: y is a module or a name in x.
            ours.add(module if _file(module).exists() else module.rpartition(".")[0])
        elif root not in sys.stdlib_module_names:
            libraries.add(root)
    return sorted(ours - {PACKAGE}), sorted(libraries)


@cache
def _library_version(library: str) -> dict[str, str]:
    """Returns distribution -> version for a top-level module."""
    return {name: metadata.version(name) for name in _distributions().get(library, [])}


@cache
def _distributions() -> dict[str, list[str]]:
    """Returns top-level module -> names of the distributions that provide it."""
    return {name: sorted(set(dists)) for name, dists in metadata.packages_distributions().items()}

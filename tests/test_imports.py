"""The import rule: two leaves, one root (docs/architecture.md)."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.builders import ROOT

# What a file, or the files of a folder, may import of this repository. TensorFlow and SeqIO are
# allowed in three files, inside functions; JAX never in data_pipeline.
CONFIG_MODULES = {"configs.experiment", "hare_jax.config", "data_pipeline.config"}
ALLOWED = {
    "main.py": {"configs", "hare_jax.runtime"},
    "configs": {"configs"} | CONFIG_MODULES,  # pages
    "configs/jobs.py": {"configs"} | CONFIG_MODULES,  # inside functions: see JOINS
    "configs/experiment_check.py": {
        "configs",
        "hare_jax.config_check",
        "hare_jax.runtime",
        *CONFIG_MODULES,
    },
    "hare_jax": {"hare_jax"},
    "data_pipeline": {"data_pipeline"},
}
# May import both packages inside functions.
JOINS = {"configs/jobs.py", "configs/experiment_check.py"}
OURS = ("configs", "hare_jax", "data_pipeline", "main")
JAX_SIDE = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "chex"}
TENSORFLOW_SIDE = {"tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio", "t5", "clu"}
TENSORFLOW_ROOMS = {
    "data_pipeline/reading/tfds_source.py",
    "data_pipeline/mixture/tasks.py",
    "data_pipeline/mixture/bake.py",
}


def imports(tree: ast.AST) -> list[tuple[str, int]]:
    """(module, line) of every import, wherever in the file it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import on line {node.lineno}"
            # `from data_pipeline import config` imports data_pipeline.config.
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@cache
def imported_modules(path: Path) -> list[str]:
    """The modules that a file imports."""
    return [module for module, _ in imports(ast.parse(path.read_text(encoding="utf-8")))]


def broken_rules(file: str, source: str) -> list[str]:
    """Each import of `source` that breaks the rule, as "file:line: reason"."""
    tree = ast.parse(source)
    room = file.split("/")[0]
    allowed = ALLOWED.get(file, ALLOWED[room])
    top_level = {node.lineno for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    broken = []
    for module, line in imports(tree):
        root = module.split(".")[0]
        is_allowed = any(module == name or module.startswith(name + ".") for name in allowed)
        if file in JOINS and line not in top_level:
            is_allowed = True
        if root in OURS and not is_allowed:
            broken.append(f"{file}:{line}: {room} must not import {module}")
        if room != "hare_jax" and root in JAX_SIDE:
            broken.append(f"{file}:{line}: JAX belongs to hare_jax, not to {room}")
        if root in TENSORFLOW_SIDE and (file not in TENSORFLOW_ROOMS or line in top_level):
            broken.append(
                f"{file}:{line}: {root} only inside functions of {sorted(TENSORFLOW_ROOMS)}"
            )
    return broken


FILES = sorted(
    str(path.relative_to(ROOT))
    for room in ("main.py", "configs", "hare_jax", "data_pipeline")
    for path in ([ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"))
)


@pytest.mark.parametrize("file", FILES)
def test_import_rule(file: str) -> None:
    assert broken_rules(file, (ROOT / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("hare_jax/data/packed_dataset.py", "from data_pipeline.storage.document import Document"),
        ("data_pipeline/pipeline.py", "import hare_jax.config"),
        ("data_pipeline/pipeline.py", "import jax.numpy as jnp"),
        ("data_pipeline/mixture/tasks.py", "import seqio"),
        ("hare_jax/data/packed_dataset.py", "def f():\n    import tensorflow as tf"),
        ("configs/quickstart.py", "from hare_jax.training import train"),
        ("configs/quickstart.py", "from data_pipeline import stages"),
        ("configs/quickstart.py", "def f():\n    from hare_jax.training import train"),
        ("configs/jobs.py", "from hare_jax.training import train"),
        ("main.py", "from hare_jax.training import train"),
        ("main.py", "def f():\n    from data_pipeline import pipeline"),
        ("data_pipeline/cleaning/rules.py", "import main"),
    ],
)
def test_the_rule_sees_a_breach(file: str, line: str) -> None:
    assert len(broken_rules(file, line)) == 1


def cycles(package: str) -> list[str]:
    """Modules of a package that import one another in a circle."""
    graph: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        modules = set(imported_modules(path))
        graph[name] = modules | {m.rpartition(".")[0] for m in modules}
    state: dict[str, int] = {}
    found = []

    def visit(name: str, way: tuple[str, ...]) -> None:
        state[name] = 1
        for other in sorted(graph[name] & graph.keys() - {name}):
            if state.get(other) == 1:
                found.append(" -> ".join([*way[way.index(other) :], other]))
            elif other not in state:
                visit(other, (*way, other))
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, (name,))
    return found


@pytest.mark.parametrize("package", ["hare_jax", "data_pipeline", "configs"])
def test_no_circles(package: str) -> None:
    assert cycles(package) == []


# The layers of each package, the lowest first. A folder imports from layers below its own only, so
# there are no circles between folders. Modules directly in a package count as folders.
LAYERS = {
    "data_pipeline": [
        {"config", "config_problems"},
        {"storage"},
        {"execution", "text"},
        {"cleaning", "deduplication", "held_out", "mixture", "reading", "teacher"},
        {"decontamination", "synthesis", "topics"},
        {"nlp_tasks", "report"},
        {"validate"},
        {"pipeline"},
    ],
    "hare_jax": [
        {"config", "files", "progress"},
        {"config_check", "data", "model"},
        {"runtime", "tracking"},
        {"training"},
        {"aot", "inference"},
        {"evaluation", "interop"},  # the files of evaluation that its folders share
        {"evaluation.benchmarks", "evaluation.held_out", "evaluation.leakage"},
    ],
}


def folder_of(module: str) -> str:
    """Returns the folder of a module below its package.

    >>> folder_of("data_pipeline.storage.shards"), folder_of("hare_jax.config.Model")
    ('storage', 'config')
    >>> folder_of("hare_jax.evaluation.leakage.audit"), folder_of("hare_jax.evaluation.resumable")
    ('evaluation.leakage', 'evaluation')
    """
    package, *parts = module.split(".")
    is_folder = len(parts) > 1 and (ROOT / package / parts[0] / parts[1]).is_dir()
    return ".".join(parts[:2]) if parts[0] == "evaluation" and is_folder else parts[0]


def imports_between_folders(package: str) -> set[tuple[str, str, str]]:
    """Returns (folder, folder that it imports from, module that does so)."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name == package:
            continue
        for module in imported_modules(path):
            if module.startswith(f"{package}.") and folder_of(module) != folder_of(name):
                found.add((folder_of(name), folder_of(module), name))
    return found


def upward_imports(package: str, edges: set[tuple[str, str, str]]) -> list[str]:
    """Returns a message for each import that does not lead to a lower layer."""
    layer = {folder: k for k, folders in enumerate(LAYERS[package]) for folder in folders}
    return [
        f"{module}: {folder} must not import from {other}"
        for folder, other, module in sorted(edges)
        if layer[other] >= layer[folder]
    ]


@pytest.mark.parametrize("package", LAYERS)
def test_imports_lead_to_lower_layers(package: str) -> None:
    edges = imports_between_folders(package)
    assert upward_imports(package, edges) == []
    folders = {folder for edge in edges for folder in edge[:2]}
    declared = [folder for folders in LAYERS[package] for folder in folders]
    assert sorted(declared) == sorted(folders)  # each in one layer, and none that is gone


@pytest.mark.parametrize(
    ("package", "edge"),
    [
        ("data_pipeline", ("storage", "execution", "x")),
        ("data_pipeline", ("cleaning", "deduplication", "x")),
        ("hare_jax", ("model", "training", "x")),
        ("hare_jax", ("evaluation", "evaluation.leakage", "x")),
    ],
)
def test_the_layers_see_an_upward_import(package: str, edge: tuple[str, str, str]) -> None:
    assert len(upward_imports(package, imports_between_folders(package) | {edge})) == 1

"""Names of classes, exceptions and identifiers, and the folders of tests."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.builders import ROOT

PACKAGES = ("benchmarks", "configs", "data_pipeline", "hare_jax")


def classes() -> list[tuple[str, ast.ClassDef]]:
    """Returns (file, definition) of every class of the packages."""
    return [
        (str(path.relative_to(ROOT)), node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]


def test_public_class_names_are_unique() -> None:
    files = defaultdict(list)
    for file, node in classes():
        if not node.name.startswith("_"):
            files[node.name].append(file)
    assert {name: found for name, found in files.items() if len(found) > 1} == {}
    assert len(files) > 200  # the classes were found at all


def test_exceptions_end_in_error() -> None:
    bases = {node.name: [ast.unparse(base) for base in node.bases] for _, node in classes()}

    def is_exception(name: str) -> bool:
        return name.endswith(("Error", "Exception")) or any(map(is_exception, bases.get(name, ())))

    wrong = [name for name in bases if is_exception(name) and not name.endswith("Error")]
    assert wrong == []


def test_identifiers_are_spelled_as_in_the_us() -> None:
    british = ("isation", "normalis", "tokenis", "synthesise", "quantis", "licence", "colour")
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = getattr(node, "name", None) or getattr(node, "id", None)
                name = name or getattr(node, "attr", None) or getattr(node, "arg", None)
                if isinstance(name, str) and any(part in name.lower() for part in british):
                    found.append(f"{path.relative_to(ROOT)}: {name}")
    assert found == []


def folders_with_code(root: Path) -> set[str]:
    return {str(path.parent.relative_to(root)) for path in root.rglob("*.py")}


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_have_the_folders_of_the_package(package: str) -> None:
    assert folders_with_code(ROOT / "tests" / package) == folders_with_code(ROOT / package)

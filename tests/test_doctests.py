"""The examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.builders import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("benchmarks", "configs", "data_pipeline", "hare_jax")
    for path in (ROOT / package).rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0, "see the captured output"


def test_examples_are_found() -> None:
    """Some modules contain ">>>" only in a regular expression, hence not every module has one."""
    assert len(MODULES) > 80

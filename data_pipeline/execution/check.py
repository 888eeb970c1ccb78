"""The check of the settings of execution."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import util

from data_pipeline.config import EngineKind, Recipe
from data_pipeline.config_problems import Problems, check_minimum

INSTALL = "For BEAM: pip install 'hare-jax[beam]'"
BEAM_OPTIONS = (
    "Beam's own flags with a runner among them, such as ('--runner=DirectRunner',) or "
    "('--runner=DataflowRunner', ...)"
)


def check(recipe: Recipe, problems: Problems) -> None:
    """Checks the engine and its options; `problems` is that of the recipe."""
    check_minimum(problems, 0, recipe, "workers")
    if recipe.engine is not EngineKind.BEAM:
        return
    if not names_runner(recipe.beam_options):
        problems.add("beam_options", recipe.beam_options, BEAM_OPTIONS)
    if util.find_spec("apache_beam") is None:
        problems.add("engine", recipe.engine, "LOCAL, as Apache Beam is not installed", INSTALL)


def names_runner(beam_options: Iterable[str]) -> bool:
    """Returns whether Beam's flags name a runner."""
    return any(option.startswith("--runner=") for option in beam_options)

"""The check of the settings of execution."""

from __future__ import annotations

from importlib import util

from data_pipeline.config import EngineKind, Recipe
from data_pipeline.config_problems import Problems, check_minimum


def check(recipe: Recipe, problems: Problems) -> None:
    """Checks the engine and its options; `problems` is that of the recipe."""
    check_minimum(problems, 0, recipe, "workers")
    if recipe.engine is not EngineKind.BEAM:
        return
    if not any(option.startswith("--runner=") for option in recipe.beam_options):
        problems.add(
            "beam_options",
            recipe.beam_options,
            "Beam's own flags with a runner among them, such as ('--runner=DirectRunner',) or "
            "('--runner=DataflowRunner', ...)",
        )
    if util.find_spec("apache_beam") is None:
        problems.add("engine", recipe.engine, "LOCAL, as Apache Beam is not installed", INSTALL)


INSTALL = "For BEAM: pip install 'hare-jax[beam]'"

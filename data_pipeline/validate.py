"""What can be known to be wrong with a recipe before any work."""

from __future__ import annotations

from data_pipeline.config import Recipe, Tier
from data_pipeline.decontamination import benchmarks
from data_pipeline.mixture.weights import check_weights


def check(recipe: Recipe) -> None:
    """Raises ValueError with all that is wrong with the weights, or all benchmarks that lack."""
    _check_mixtures(recipe)
    _check_benchmarks(recipe)


def _check_mixtures(recipe: Recipe) -> None:
    """Weights that are wrong, or of sources that no step of the recipe makes: before any work."""
    named = [source.name for source in recipe.sources if source.name or source.path]
    known = {*named, *(tier.value for tier in Tier)}
    if recipe.nlp_tasks.enabled:
        known.add(recipe.nlp_tasks.source)
    if recipe.synthesis.enabled:
        known |= {f"{recipe.synthesis.source}_{category}" for category in recipe.synthesis.weights}
    if recipe.restructuring.enabled:
        known.add(recipe.restructuring.source)
    # Rows may name their own sources, and with allow_missing a name may stand for nothing.
    unforeseeable = "" in named or recipe.allow_missing
    check_weights(recipe.mixtures, None if unforeseeable else known)


def _check_benchmarks(recipe: Recipe) -> None:
    config = recipe.decontamination
    missing = []
    for benchmark in config.benchmarks if config.enabled else []:
        try:
            benchmarks.files(benchmark)
        except ValueError as error:
            missing.append(str(error))
    if len(missing) == 1:
        raise ValueError(missing[0])
    if missing:
        found = f"{len(missing)} of {len(config.benchmarks)} benchmarks are not there. Get them, or"
        raise ValueError("\n  ".join([f"{found} take them out of what is evaluated:", *missing]))

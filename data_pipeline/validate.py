"""Every check of a recipe before any work; each folder of the pipeline checks its own sections."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import data_pipeline.cleaning.check as cleaning
import data_pipeline.decontamination.check as decontamination
import data_pipeline.deduplication.check as deduplication
import data_pipeline.execution.check as execution
import data_pipeline.held_out.check as held_out
import data_pipeline.mixture.check as mixture
import data_pipeline.nlp_tasks.check as nlp_tasks
import data_pipeline.reading.check as reading
import data_pipeline.storage.check as storage
import data_pipeline.synthesis.check as synthesis
import data_pipeline.topics.check as topics
from data_pipeline.config import Recipe, Source, Tier
from data_pipeline.config_problems import Problems, check_types
from data_pipeline.reading.input_shards import InputShard
from data_pipeline.synthesis.seeds_stage import source_of


def validate(
    recipe: Recipe, cache: Path, path: str = "config.data"
) -> list[tuple[Source, InputShard]]:
    """Checks everything about a recipe that can be known before any work, and writes nothing.

    Args:
      recipe: the settings of curation.
      cache: folder of teachers' replies, unless a teacher's configuration names one.
      path: address of the recipe in the configuration, with which messages name fields.

    Returns:
      The input shards of every source, which have to be listed in order to check the sources.

    Raises:
      ValueError: lists all settings that cannot be used, by their addresses.
    """
    problems = Problems(path)
    check_types(problems, recipe)
    problems.raise_if_any()  # the other checks rely on the types
    tier_of = _tiers(recipe)
    cleaning.check(recipe.cleaning, recipe.repeated_lines, problems)
    deduplication.check(recipe.dedup, recipe.repeated_paragraphs, problems)
    held_out.check(recipe.held_out, problems)
    decontamination.check(recipe.decontamination, tier_of, problems)
    topics.check(recipe.topics, cache, problems)
    synthesis.check(recipe.synthesis, recipe.topics.enabled, cache, problems)
    nlp_tasks.check(recipe.nlp_tasks, recipe.restructuring, cache, problems)
    mixture.check(recipe.baking, recipe.mixtures, recipe.budgets, tier_of, problems)
    execution.check(recipe, problems)
    storage.check(recipe.output, problems)
    _check_names(recipe, problems)
    # Last, as it may download datasets, which it does only if nothing else is wrong.
    inputs = reading.check(recipe, problems)
    problems.raise_if_any()
    return inputs


def _made_sources(recipe: Recipe) -> list[tuple[str, str, Tier]]:
    """Returns (name, field that sets it, tier) of each source that a step of the recipe makes."""
    made = []
    if recipe.synthesis.enabled:
        made += [
            (source_of(recipe.synthesis, category), "synthesis.source", Tier.D2)
            for category in recipe.synthesis.weights
        ]
    if recipe.nlp_tasks.enabled:
        made.append((recipe.nlp_tasks.source, "nlp_tasks.source", Tier.D3))
    if recipe.restructuring.enabled:
        made.append((recipe.restructuring.source, "restructuring.source", Tier.D3))
    return made


def _tiers(recipe: Recipe) -> dict[str, str] | None:
    """Returns the tier of each source, or None if the sources cannot be known before reading.

    Rows may name their own sources, and with `allow_missing` a name may refer to nothing.
    """
    used = [source for source in recipe.sources if source.name or source.path]
    if recipe.allow_missing or any(not source.name for source in used):
        return None
    tiers = {source.name: source.tier.value for source in used}
    return tiers | {name: tier.value for name, _, tier in _made_sources(recipe)}


def _check_names(recipe: Recipe, problems: Problems) -> None:
    """Checks that no step makes a source whose name another one has."""
    made = _made_sources(recipe)
    taken = Counter({source.name for source in recipe.sources if source.name})
    taken.update(name for name, _, _ in made)
    for field in dict.fromkeys(field for name, field, _ in made if taken[name] > 1):
        names = [name for name, other, _ in made if other == field and taken[name] > 1]
        problems.add(field, names[0], "a name that no other source has")

"""The check of the settings of synthesis and its output filters."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.cleaning.language import LANGUAGES
from data_pipeline.config import OutputFilters, Synthesis
from data_pipeline.config_problems import (
    Problems,
    check_known,
    check_minimum,
    check_order,
    check_share,
    check_source_name,
)
from data_pipeline.synthesis.prompt_texts import CATEGORIES
from data_pipeline.teacher.check import check_reachable_teacher


def check(synthesis: Synthesis, has_topics: bool, cache: Path, problems: Problems) -> None:
    """Checks the section, and that there is a teacher.

    Args:
      synthesis: the section.
      has_topics: whether the recipe finds topics, over which passages are spread.
      cache: folder of the teacher's replies, unless its configuration names one.
      problems: of the recipe.
    """
    if not synthesis.enabled:
        return
    own = problems.at("synthesis")
    if not has_topics:
        problems.add(
            "topics.enabled",
            False,
            "True: synthesis spreads its passages over topics",
            f"To do without synthesis: {own.path}.enabled=False",
        )
    check_source_name(own, synthesis, "source")
    what = "category that has prompts"
    check_known(own, "weights", synthesis.weights, CATEGORIES, what)
    check_known(own, "categories", sorted(set(synthesis.categories.values())), CATEGORIES, what)
    weights = synthesis.weights.values()
    if any(weight < 0 for weight in weights) or not any(weights):
        expected = "numbers of 0 or more, not all of them 0"
        own.add("weights", synthesis.weights, expected)
    counts = ("documents", "per_document", "max_tokens", "shard_requests", "min_passage_words")
    check_minimum(own, 1, synthesis, *counts)
    check_order(own, synthesis, "min_passage_words", "max_passage_words")
    _check_filters(synthesis.output_filters, own.at("output_filters"))
    without = f"{own.path}.enabled=False"
    check_reachable_teacher(synthesis.teacher, cache, own.at("teacher"), without)


def _check_filters(filters: OutputFilters, problems: Problems) -> None:
    """Checks the thresholds of the output filters."""
    check_known(problems, "language", [filters.language], LANGUAGES, "language (ISO 639-1)")
    check_minimum(problems, 0, filters, "min_words", "min_foreign_score")
    check_order(problems, filters, "min_words", "max_words")
    check_share(
        problems,
        filters,
        "max_duplicate_lines",
        "max_repeated_ngrams",
        "max_copied",
        "max_passage_coverage",
    )

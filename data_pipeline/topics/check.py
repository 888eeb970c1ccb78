"""The check of the settings of topics."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.config import Features, Topics
from data_pipeline.config_problems import Problems, check_minimum
from data_pipeline.teacher.check import check_reachable_teacher


def check(topics: Topics, cache: Path, problems: Problems) -> None:
    """Checks the section, and that there is an embedder if topics need one.

    Args:
      topics: the section.
      cache: folder of the embedder's vectors, unless its configuration names one.
      problems: of the recipe.
    """
    if not topics.enabled:
        return
    own = problems.at("topics")
    check_minimum(own, 0, topics, "count", "covered_documents")
    names = ("max_topics", "sample_documents", "max_characters", "max_terms")
    check_minimum(own, 1, topics, *names, "dimensions", "restarts")
    if topics.features is Features.EMBEDDINGS:
        without = f"{own.path}.features=TERMS"
        check_reachable_teacher(topics.embedder, cache, own.at("embedder"), without)

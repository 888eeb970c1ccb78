"""The check of the settings of deduplication."""

from __future__ import annotations

from data_pipeline.config import Deduplication, RepeatedParagraphs
from data_pipeline.config_problems import Problems, check_minimum, check_share

MAX_SEED = 2**32 - 1  # of numpy's legacy generator, which datasketch uses


def check(
    dedup: Deduplication, repeated_paragraphs: RepeatedParagraphs, problems: Problems
) -> None:
    """Checks both sections.

    Args:
      dedup: removal of duplicate documents.
      repeated_paragraphs: removal of repeated paragraphs.
      problems: of the recipe.
    """
    if dedup.enabled:
        _check_dedup(dedup, problems.at("dedup"))
    if repeated_paragraphs.enabled:
        paragraphs = problems.at("repeated_paragraphs")
        check_minimum(paragraphs, 1, repeated_paragraphs, "min_words")
        check_minimum(paragraphs, 0, repeated_paragraphs, "min_words_left", "partitions")


def _check_dedup(dedup: Deduplication, problems: Problems) -> None:
    """Checks that signatures can be computed and compared."""
    check_minimum(problems, 1, dedup, "ngram_words", "permutations", "bands", "rows")
    if dedup.bands * dedup.rows > dedup.permutations:
        problems.add(
            "permutations",
            dedup.permutations,
            f"at least bands x rows = {dedup.bands} x {dedup.rows} = {dedup.bands * dedup.rows}",
        )
    check_share(problems, dedup, "threshold", zero=False)
    if not 0 <= dedup.seed <= MAX_SEED:
        problems.add("seed", dedup.seed, f"a number from 0 to {MAX_SEED}")
    check_minimum(problems, 0, dedup, "partitions")

"""The check of the settings of decontamination and of the files of all benchmarks."""

from __future__ import annotations

from collections.abc import Collection

from data_pipeline.config import Decontamination, Tier
from data_pipeline.config_problems import (
    Problems,
    check_known,
    check_minimum,
    check_share,
)
from data_pipeline.decontamination import benchmarks

TIERS = tuple(tier.value for tier in Tier)


def check(
    decontamination: Decontamination, known_sources: Collection[str] | None, problems: Problems
) -> None:
    """Checks the thresholds, and that every benchmark can be read.

    Args:
      decontamination: the section, as the user wrote it.
      known_sources: names of all sources that the recipe makes; None if they are not known yet.
      problems: of the recipe.
    """
    if not decontamination.enabled:
        return
    own = problems.at("decontamination")
    config = decontamination.resolved()
    _check_limits(config, known_sources, own)
    _check_rules(config, own)
    if config.cut_spans.enabled:
        check_share(own.at("cut_spans"), config.cut_spans, "max_share", zero=False)
        check_minimum(own.at("cut_spans"), 0, config.cut_spans, "min_words", "margin_sentences")
    if config.paraphrases.enabled:
        rule = own.at("paraphrases")
        check_share(rule, config.paraphrases, "similarity", zero=False)
        check_minimum(rule, 1, config.paraphrases, "min_words", "max_items_per_word")
    _check_benchmarks(config, own)


def _check_limits(
    config: Decontamination, known_sources: Collection[str] | None, problems: Problems
) -> None:
    """Checks the n of n-grams and the largest lengths, which are given by tier."""
    if missing := [tier for tier in TIERS if tier not in config.ngram_words]:
        advice = f"There is none for {', '.join(missing)}; single sources may have their own"
        problems.add("ngram_words", config.ngram_words, "n for each tier", advice)
    if known_sources is not None:
        known = (*TIERS, *sorted(known_sources))
        check_known(problems, "ngram_words", config.ngram_words, known, "tier or source")
    for name, words in config.ngram_words.items():
        if words < 1:
            problems.add(f"ngram_words[{name!r}]", words, "1 or more words")
    check_known(problems, "max_tokens", config.max_tokens, TIERS, "tier")
    for name, tokens in config.max_tokens.items():
        if tokens < 0:
            problems.add(f"max_tokens[{name!r}]", tokens, "0 (any length) or more tokens")


def _check_rules(config: Decontamination, problems: Problems) -> None:
    """Checks the thresholds of the three n-gram rules."""
    check_share(problems, config, "sample_share", "item_share")
    check_minimum(problems, 0, config, "absolute_hits", "item_bits")
    check_minimum(problems, 1, config, "item_ngram_words", "max_items_per_ngram")
    if not (config.sample_share or config.item_share or config.absolute_hits):
        problems.add(
            "sample_share",
            config.sample_share,
            "a rule that is on: sample_share, absolute_hits and item_share are all 0",
            f"To train without decontamination: {problems.path}.enabled=False",
        )


def _check_benchmarks(config: Decontamination, problems: Problems) -> None:
    """Checks that each benchmark has files of its layout; all missing ones make one message."""
    missing = []
    for number, benchmark in enumerate(config.benchmarks):
        try:
            benchmarks.check_files(benchmark)
        except benchmarks.MissingBenchmarkError as error:
            missing.append(str(error))
        except ValueError as error:
            problems.messages.append(f"{problems.path}.benchmarks[{number}]: {error}")
    if len(missing) == 1:
        problems.messages.append(f"{problems.path}.benchmarks: {missing[0]}")
    elif missing:
        head = (
            f"{problems.path}.benchmarks: {len(missing)} of {len(config.benchmarks)} benchmarks "
            f"are missing. Get them, or remove them from what is evaluated:"
        )
        problems.messages.append("\n  ".join([head, *missing]))
    try:
        for benchmark in benchmarks.find_benchmarks(config.folder):
            benchmarks.check_files(benchmark)
    except ValueError as error:
        problems.messages.append(f"{problems.path}.folder: {error}")

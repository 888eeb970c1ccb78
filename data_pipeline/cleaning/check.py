"""Checks of the settings of cleaning and of repeated lines."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.cleaning.language import LANGUAGES
from data_pipeline.config import (
    C4,
    Cleaning,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    RepeatedLines,
    RuleSet,
)
from data_pipeline.config_problems import (
    Problems,
    check_known,
    check_minimum,
    check_order,
    check_share,
)


def check(cleaning: Cleaning, repeated_lines: RepeatedLines, problems: Problems) -> None:
    """Checks both sections.

    Args:
      cleaning: the rules per document, and the published rule sets.
      repeated_lines: removal of boilerplate lines.
      problems: of the recipe.
    """
    _check_cleaning(cleaning, problems.at("cleaning"))
    if repeated_lines.enabled:
        lines = problems.at("repeated_lines")
        check_minimum(lines, 0, repeated_lines, "min_documents")
        check_share(lines, repeated_lines, "min_share")
        check_minimum(lines, 1, repeated_lines, "partitions")


def _check_cleaning(cleaning: Cleaning, problems: Problems) -> None:
    """Checks the rules of cleaning and its rule sets."""
    check_known(problems, "language", [cleaning.language], LANGUAGES, "language (ISO 639-1)")
    check_share(
        problems,
        cleaning,
        "min_complete_lines",
        "min_alphabetic_words",
        "max_duplicate_lines",
    )
    check_minimum(problems, 0, cleaning, "min_words", "min_foreign_score", "max_symbol_to_word")
    check_order(problems, cleaning, "min_words", "max_words")
    for number, rules in enumerate(cleaning.rule_sets):
        _check_rule_set(rules, problems.at(f"rule_sets[{number}]"))


def _check_rule_set(rules: RuleSet, problems: Problems) -> None:
    """Checks the thresholds of a published rule set."""
    match rules:
        case C4():
            check_minimum(problems, 0, rules, "min_words_per_line", "min_sentences")
            check_minimum(problems, 1, rules, "max_word_characters")
            _check_bad_words(rules.bad_words, problems)
        case GopherQuality():
            check_minimum(
                problems, 0, rules, "min_words", "min_mean_word_length", "max_symbols_per_word"
            )
            check_order(problems, rules, "min_words", "max_words")
            check_order(problems, rules, "min_mean_word_length", "max_mean_word_length")
            names = ("max_bullet_lines", "max_ellipsis_lines", "min_alphabetic_words")
            check_share(problems, rules, *names)
            check_minimum(problems, 0, rules, "min_stop_words")
        case GopherRepetition():
            check_share(
                problems,
                rules,
                "max_duplicate_lines",
                "max_duplicate_paragraphs",
                "max_duplicate_line_characters",
                "max_duplicate_paragraph_characters",
            )
            for name in ("max_top_ngram", "max_duplicate_ngrams"):
                for words, share in getattr(rules, name).items():
                    if words < 1 or not 0 <= share <= 1:
                        expected = "a number of words from 1 on, and a share from 0 to 1"
                        problems.add(name, {words: share}, expected)
        case FineWeb():
            names = ("min_punctuated_lines", "max_duplicate_line_characters", "max_short_lines")
            check_share(problems, rules, *names)
            check_minimum(problems, 0, rules, "short_line_characters")


def _check_bad_words(path: str, problems: Problems) -> None:
    """Checks that the file of bad words can be read and has a word."""
    if not path:
        return
    expected = 'a text file with one word or phrase per line, or "" for none'
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.add("bad_words", path, expected, f"It cannot be read: {error}")
        return
    if not text.strip():
        problems.add("bad_words", path, expected, "It is empty")

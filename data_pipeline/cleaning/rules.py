"""Cleaning of one document: normalization, removal of links and personal information, rules.

>>> clean = build(Cleaning(min_words=3))
>>> clean(Document("a", "Hares can run very fast, says jo@acme.io.", "web", "web")).text
'Hares can run very fast, says <EMAIL>.'
>>> clean(Document("b", "Too short.", "web", "web")).reason
'too_short'
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from data_pipeline.cleaning import completeness, published_rule_sets, quality
from data_pipeline.cleaning.language import foreign_language_rule
from data_pipeline.cleaning.links import remove_links
from data_pipeline.cleaning.normalize import normalize, tidy_whitespace
from data_pipeline.cleaning.personal_information import replace_personal_information
from data_pipeline.cleaning.quality import Evidence, Text
from data_pipeline.config import Cleaning, CleaningProfile
from data_pipeline.storage.document import Document, Dropped

# Drop reason, the profiles to which the rule applies, and the rule: it returns evidence to drop.
Rule = tuple[str, set[CleaningProfile], Callable[[Text], Evidence | None]]

_ALL = {CleaningProfile.PROSE, CleaningProfile.MARKUP, CleaningProfile.CODE, CleaningProfile.TASKS}
_PROSE, _CODE = {CleaningProfile.PROSE}, {CleaningProfile.CODE}
_TEXT = {CleaningProfile.PROSE, CleaningProfile.MARKUP}


def build(config: Cleaning) -> Callable[[Document], Document | Dropped]:
    """Returns a pure, idempotent function that cleans one document.

    The document's category determines the profile and so the rules. Replacements are counted in
    `meta["replaced"]`, such as `{"email": 1, "link": 2}`. A dropped document has the cleaned text,
    to which the rules were applied.
    """
    rules = _rules(config)
    rule_sets = [published_rule_sets.build(rule_set) for rule_set in config.rule_sets]

    def clean(document: Document) -> Document | Dropped:
        profile = config.profiles.get(document.category, CleaningProfile.PROSE)
        document = _edit(document, profile, config)
        text = Text(document.text)
        for reason, profiles, rule in rules:
            if profile in profiles and (evidence := rule(text)) is not None:
                return Dropped(document, reason, evidence)
        if rule_sets and profile in config.rule_set_profiles:
            return _apply_rule_sets(rule_sets, document)
        return document

    return clean


def _apply_rule_sets(
    rule_sets: list[published_rule_sets.Apply], document: Document
) -> Document | Dropped:
    """Applies published rule sets in order, each to the text that the one before kept."""
    text = document.text
    for apply in rule_sets:
        result = apply(text)
        if isinstance(result, published_rule_sets.BrokenRule):
            return Dropped(document, result.rule, result.evidence)
        text = result
    if text == document.text:
        return document
    num_removed = _num_lines(document.text) - _num_lines(text)
    counts = Counter(document.meta.get("replaced", {})) + Counter(published_line=num_removed)
    return replace(document, text=text, meta=document.meta | {"replaced": dict(counts)})


def _num_lines(text: str) -> int:
    """Returns the number of lines that are not blank."""
    return sum(1 for line in text.split("\n") if line.strip())


def _edit(document: Document, profile: CleaningProfile, config: Cleaning) -> Document:
    """Normalizes a document and removes its links and personal information, counted in `meta`."""
    text = normalize(document.text, profile)
    num_links, replaced = 0, dict[str, int]()
    if config.remove_links:
        text, num_links = remove_links(text, profile)
    if config.replace_personal_information:
        text, replaced = replace_personal_information(text, profile)
    meta = document.meta
    if replaced or num_links or "replaced" in meta:
        counts = Counter(meta.get("replaced", {})) + Counter({**replaced, "link": num_links})
        meta = meta | ({"replaced": dict(sorted(counts.items()))} if counts else {})
    text = tidy_whitespace(text, profile) if num_links else text
    return Document(document.id, text, document.source, document.category, meta)


def _rules(config: Cleaning) -> list[Rule]:
    """Returns the rules in the order in which they are applied, fast ones first."""
    foreign_language = foreign_language_rule(config.language, config.min_foreign_score)
    unfinished: list[Rule] = [
        ("truncated_list", _TEXT, completeness.truncated_list),
        ("open_fence", _TEXT, completeness.open_fence),
        ("open_environment", _TEXT, completeness.open_environment),
        ("open_tag", _TEXT, completeness.open_tag),
        ("open_bracket", _CODE, completeness.open_bracket),
    ]
    return [
        (
            "too_short",
            _ALL - {CleaningProfile.TASKS},
            lambda t: quality.too_few_words(t, config.min_words),
        ),
        ("empty", _ALL, lambda t: quality.too_few_words(t, 1)),
        ("too_long", _ALL, lambda t: quality.too_many_words(t, config.max_words)),
        ("language", _ALL - _CODE, lambda t: foreign_language(t.text)),
        ("cut_off", _PROSE, quality.cut_off),
        ("symbols", _PROSE, lambda t: quality.symbols(t, config.max_symbol_to_word)),
        (
            "duplicate_lines",
            _PROSE,
            lambda t: quality.duplicate_lines(t, config.max_duplicate_lines),
        ),
        (
            "not_words",
            _PROSE,
            lambda t: quality.few_alphabetic_words(t, config.min_alphabetic_words),
        ),
        ("incomplete", _PROSE, lambda t: quality.fragments(t, config.min_complete_lines)),
        ("long_code_lines", _CODE, quality.long_code_lines),
        ("data_not_code", _CODE, quality.few_code_letters),
        *(unfinished if config.drop_unfinished else []),
    ]

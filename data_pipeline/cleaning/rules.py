"""D1, one document at a time: repair it, take out links and personal information, keep or drop it.

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
from data_pipeline.cleaning.language import detector
from data_pipeline.cleaning.links import remove_links
from data_pipeline.cleaning.normalize import normalize, tidy_whitespace
from data_pipeline.cleaning.personal_information import replace_personal_information
from data_pipeline.cleaning.quality import Evidence, Text
from data_pipeline.config import Cleaning, CleaningProfile
from data_pipeline.storage.document import Document, Dropped

Rule = tuple[str, set[CleaningProfile], Callable[[Text], Evidence | None]]

_ALL = {CleaningProfile.PROSE, CleaningProfile.MARKUP, CleaningProfile.CODE, CleaningProfile.TASKS}
_PROSE, _CODE = {CleaningProfile.PROSE}, {CleaningProfile.CODE}
_TEXT = {CleaningProfile.PROSE, CleaningProfile.MARKUP}


def build(config: Cleaning) -> Callable[[Document], Document | Dropped]:
    """The cleaning of one document: a pure function, whose rules come from the document's category.

    What was replaced is counted in `meta["replaced"]`, such as `{"email": 1, "link": 2}`. A dropped
    document carries the cleaned text, which is what the rule saw. Cleaning twice changes nothing.
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
            return _apply(rule_sets, document)
        return document

    return clean


def _apply(rule_sets: list[published_rule_sets.Apply], document: Document) -> Document | Dropped:
    """Published rule sets, each on what the one before left."""
    text = document.text
    for apply in rule_sets:
        answer = apply(text)
        if isinstance(answer, published_rule_sets.Broken):
            return Dropped(document, answer.rule, answer.evidence)
        text = answer
    if text == document.text:
        return document
    lines = _lines(document.text) - _lines(text)
    counts = Counter(document.meta.get("replaced", {})) + Counter(published_line=lines)
    return replace(document, text=text, meta=document.meta | {"replaced": dict(counts)})


def _lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(1 for line in text.split("\n") if line.strip())


def _edit(document: Document, profile: CleaningProfile, config: Cleaning) -> Document:
    text = normalize(document.text, profile)
    links, found = 0, dict[str, int]()
    if config.remove_links:
        text, links = remove_links(text, profile)
    if config.replace_personal_information:
        text, found = replace_personal_information(text, profile)
    meta = document.meta
    if found or links or "replaced" in meta:
        counts = Counter(meta.get("replaced", {})) + Counter({**found, "link": links})
        meta = meta | ({"replaced": dict(sorted(counts.items()))} if counts else {})
    text = tidy_whitespace(text, profile) if links else text
    return Document(document.id, text, document.source, document.category, meta)


def _rules(config: Cleaning) -> list[Rule]:
    """Reason, the profiles it applies to, and the rule; cheap ones first."""
    detect = detector(config.language)

    def foreign(text: Text) -> Evidence | None:
        found = detect(text.text)
        if found is None or found[0] == config.language or found[1] < config.min_foreign_score:
            return None
        return {"language": found[0], "score": round(found[1], 3)}

    breaks_off: list[Rule] = [
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
        ("language", _ALL - _CODE, foreign),
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
        *(breaks_off if config.drop_unfinished else []),
    ]

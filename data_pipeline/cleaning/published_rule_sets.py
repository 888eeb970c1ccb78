r"""Rule sets as their authors published them: C4, MassiveText (Gopher), FineWeb.

Their constants are the fields of config.C4, GopherQuality, GopherRepetition and FineWeb. Where a
paper leaves open what it counts, it is said here. A word is a run of characters without white
space, a line is not empty, a paragraph is what stands between blank lines.

>>> build(FineWeb())("Home\nProducts\nAbout us\nJobs")
Broken(rule='fineweb_line_ends', evidence={'punctuated_lines': 0.0})
>>> build(C4())("Menu\nHares are faster than rabbits. They live alone. They rest in forms.")
'Hares are faster than rabbits. They live alone. They rest in forms.'
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.cleaning.repetition import duplicate_ngrams, top_ngrams
from data_pipeline.config import C4, FineWeb, GopherQuality, GopherRepetition, RuleSet
from data_pipeline.text.prose import sentences

# C4: "a period, exclamation mark, question mark, or end quotation mark"
_END_MARKS = (".", "!", "?", '"', "”")
_POLICY = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_LOREM, _SCRIPT = "lorem ipsum", "javascript"

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "-", "*", "‣", "●", "▪", "◦")
_ELLIPSES = ("...", "…")
_PARAGRAPH = re.compile(r"\n\s*\n")

# FineWeb's "punctuation" is what ends a sentence, in any script, closing quotes and marks aside.
_PUNCTUATION = tuple(".!?…。！？．।॥؟۔։።༎")
_AFTER_PUNCTUATION = "\"'”’»*_`)]"


@dataclass(frozen=True, slots=True)
class Broken:
    """A document goes; `rule` is the reason that the ledger counts, `evidence` what was seen."""

    rule: str
    evidence: dict[str, Any]


Apply = Callable[[str], str | Broken]


def build(rules: RuleSet) -> Apply:
    """From a text to the text that is kept of it (only C4 takes lines out), or to the broken rule.

    Raises ValueError for C4's list of bad words where it cannot be read or is empty.
    """
    match rules:
        case C4():
            return _c4(rules)
        case GopherQuality():
            return lambda text: _gopher_quality(text, rules) or text
        case GopherRepetition():
            return lambda text: _gopher_repetition(text, rules) or text
        case FineWeb():
            return lambda text: _fineweb(text, rules) or text
    names = "C4, GopherQuality, GopherRepetition or FineWeb"
    raise ValueError(f"cleaning.rule_sets: got {rules!r}, expected {names} of data_pipeline.config")


def _c4(rules: C4) -> Apply:
    """The paper's list in its order, but for its language and its deduplication, which are stages.

    Citation marks of Wikipedia go, as in the authors' code.
    """
    bad_words = _bad_words(rules.bad_words)

    def apply(text: str) -> str | Broken:
        kept: list[str] = []
        count = 0
        for line in map(str.strip, text.split("\n")):
            line = _CITATION.sub("", line) if "[" in line else line
            if not line.endswith(_END_MARKS) or line.endswith("..."):
                continue
            words = line.split()
            if len(words) < rules.min_words_per_line:
                continue
            if max(map(len, words)) > rules.max_word_characters:
                continue
            lower = line.lower()
            if _LOREM in lower:
                return Broken("c4_lorem_ipsum", {"line": line[:80]})
            if _SCRIPT in lower or any(phrase in lower for phrase in _POLICY):
                continue
            if "{" in line:
                return Broken("c4_curly_bracket", {"line": line[:80]})
            if bad_words is not None and (found := bad_words.search(lower)):
                return Broken("c4_bad_word", {"word": found[0]})
            count += len(sentences(line))
            kept.append(line)
        if count < rules.min_sentences:
            return Broken("c4_few_sentences", {"sentences": count})
        return "\n".join(kept)

    return apply


def _bad_words(path: str) -> re.Pattern[str] | None:
    if not path:
        return None
    try:
        words = [
            w for line in Path(path).read_text(encoding="utf-8").split("\n") if (w := line.strip())
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"C4.bad_words: {path} cannot be read: {error}") from None
    if not words:
        raise ValueError(f"C4.bad_words: {path} is empty, expected a word or phrase on each line")
    return re.compile(rf"\b(?:{'|'.join(re.escape(word.lower()) for word in words)})\b")


def _gopher_quality(text: str, rules: GopherQuality) -> Broken | None:
    """Appendix A.1.1. Words that are signs alone count in ratios, not in a document's length."""
    words = text.split()
    # upper() == lower() says cheaply that no letter has a case; most words stop at isalpha()
    odd = [w for w in words if not w.isalpha() and w.upper() == w.lower()]
    without_letter = [w for w in odd if not any(map(str.isalpha, w))]
    signs = [w for w in without_letter if not any(map(str.isdigit, w))]
    number = len(words) - len(signs)
    if not rules.min_words <= number <= rules.max_words:
        return Broken("gopher_words", {"words": number})
    mean = (sum(map(len, words)) - sum(map(len, signs))) / max(1, number)
    if not rules.min_mean_word_length <= mean <= rules.max_mean_word_length:
        return Broken("gopher_word_length", {"mean_word": round(mean, 2)})
    ellipses = sum(map(text.count, _ELLIPSES))
    share = max(text.count("#"), ellipses) / max(1, len(words))
    if share > rules.max_symbols_per_word:
        return Broken("gopher_symbols", {"symbols_per_word": round(share, 3)})
    lines = [s for line in text.split("\n") if (s := line.strip())]
    share = sum(line.startswith(_BULLETS) for line in lines) / max(1, len(lines))
    if share > rules.max_bullet_lines:
        return Broken("gopher_bullets", {"bullet_lines": round(share, 3)})
    share = sum(line.endswith(_ELLIPSES) for line in lines) / max(1, len(lines))
    if share > rules.max_ellipsis_lines:
        return Broken("gopher_ellipsis_lines", {"ellipsis_lines": round(share, 3)})
    share = 1 - len(without_letter) / max(1, len(words))
    if share < rules.min_alphabetic_words:
        return Broken("gopher_alphabetic_words", {"alphabetic_words": round(share, 3)})
    found = _STOP_WORDS.intersection(words)
    if len(found) < rules.min_stop_words:
        found = _STOP_WORDS.intersection(text.lower().split())
    if len(found) < rules.min_stop_words:
        return Broken("gopher_stop_words", {"stop_words": sorted(found)})
    return None


def _gopher_repetition(text: str, rules: GopherRepetition) -> Broken | None:
    """Appendix A.1.2, table A1. A share of lines is of lines, one of characters of characters."""
    for name, pieces, most, most_characters in (
        (
            "paragraphs",
            [s for p in _PARAGRAPH.split(text) if (s := p.strip())],
            rules.max_duplicate_paragraphs,
            rules.max_duplicate_paragraph_characters,
        ),
        (
            "lines",
            [s for line in text.split("\n") if (s := line.strip())],
            rules.max_duplicate_lines,
            rules.max_duplicate_line_characters,
        ),
    ):
        share, characters = _duplicates(pieces)
        if share > most:
            return Broken(f"gopher_duplicate_{name}", {"repeated": round(share, 3)})
        if characters > most_characters:
            return Broken(f"gopher_duplicate_{name}", {"repeated_characters": round(characters, 3)})
    words = text.split()
    for n, share, gram in top_ngrams(words, rules.max_top_ngram):
        return Broken("gopher_top_ngram", {"n": n, "share": round(share, 3), "ngram": gram[:80]})
    for n, share in duplicate_ngrams(words, rules.max_duplicate_ngrams):
        return Broken("gopher_duplicate_ngrams", {"n": n, "share": round(share, 3)})
    return None


def _fineweb(text: str, rules: FineWeb) -> Broken | None:
    """Section 3.6: three filters. A line in a duplicate counts where it was there before."""
    lines = [s for line in text.split("\n") if (s := line.strip())]
    number = max(1, len(lines))
    share = sum(line.rstrip(_AFTER_PUNCTUATION).endswith(_PUNCTUATION) for line in lines) / number
    if share <= rules.min_punctuated_lines:
        return Broken("fineweb_line_ends", {"punctuated_lines": round(share, 3)})
    share = _duplicates(lines)[1]
    if share >= rules.max_duplicate_line_characters:
        return Broken("fineweb_duplicate_lines", {"repeated_characters": round(share, 3)})
    share = sum(len(line) < rules.short_line_characters for line in lines) / number
    if share >= rules.max_short_lines:
        return Broken("fineweb_short_lines", {"short_lines": round(share, 3)})
    return None


def _duplicates(pieces: Sequence[str]) -> tuple[float, float]:
    """The share of pieces that were there before, and of the characters that are in these."""
    if len(set(pieces)) == len(pieces):
        return 0.0, 0.0
    counts = Counter(pieces)
    number = len(pieces) - len(counts)
    characters = sum((count - 1) * len(piece) for piece, count in counts.items())
    return number / len(pieces), characters / max(1, sum(map(len, pieces)))

r"""Rule sets as published by their authors: C4, MassiveText (Gopher) and FineWeb.

C4: Raffel et al., arXiv 1910.10683, section 2.2. Gopher: Rae et al., arXiv 2112.11446, appendix
A.1. FineWeb: Penedo et al., arXiv 2406.17557, section 3.6. The constants are the fields of
config.C4, GopherQuality, GopherRepetition and FineWeb. Where a paper does not define what it
counts: a word is a run of characters without white space, lines are counted if they are not empty,
and paragraphs are separated by blank lines.

>>> build(FineWeb())("Home\nProducts\nAbout us\nJobs")
BrokenRule(rule='fineweb_line_ends', evidence={'punctuated_lines': 0.0})
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

from data_pipeline.cleaning.quality import words_without_letter
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
_LOREM_IPSUM, _JAVASCRIPT = "lorem ipsum", "javascript"

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "-", "*", "‣", "●", "▪", "◦")
_ELLIPSES = ("...", "…")
_PARAGRAPH = re.compile(r"\n\s*\n")

# FineWeb's "punctuation": the marks that end a sentence, in any script. Closing quotes, brackets
# and emphasis after them are ignored.
_PUNCTUATION = tuple(".!?…。！？．।॥؟۔։።༎")
_AFTER_PUNCTUATION = "\"'”’»*_`)]"


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """The rule that drops a document.

    Attributes:
      rule: the drop reason counted in the ledger.
      evidence: the measured values.
    """

    rule: str
    evidence: dict[str, Any]


Apply = Callable[[str], str | BrokenRule]


def build(rules: RuleSet) -> Apply:
    """Returns a function that applies a rule set to a text.

    The function returns the text that is kept (only C4 removes lines), or the rule that drops it.

    Raises:
      ValueError: `rules` is no published rule set, or C4's list of bad words cannot be read or is
        empty.
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
    """Returns a function that applies the rules of the C4 paper in its order.

    Language and deduplication are left out, because they are rules and stages of their own.
    Citation marks of Wikipedia are removed, as in the authors' code.
    """
    bad_words = _bad_words(rules.bad_words)

    def apply(text: str) -> str | BrokenRule:
        kept: list[str] = []
        num_sentences = 0
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
            if _LOREM_IPSUM in lower:
                return BrokenRule("c4_lorem_ipsum", {"line": line[:80]})
            if _JAVASCRIPT in lower or any(phrase in lower for phrase in _POLICY):
                continue
            if "{" in line:
                return BrokenRule("c4_curly_bracket", {"line": line[:80]})
            if bad_words is not None and (match := bad_words.search(lower)):
                return BrokenRule("c4_bad_word", {"word": match[0]})
            num_sentences += len(sentences(line))
            kept.append(line)
        if num_sentences < rules.min_sentences:
            return BrokenRule("c4_few_sentences", {"sentences": num_sentences})
        return "\n".join(kept)

    return apply


def _bad_words(path: str) -> re.Pattern[str] | None:
    """Reads a list of words or phrases, one per line, as a pattern for lower-case text."""
    if not path:
        return None
    try:
        words = [
            w for line in Path(path).read_text(encoding="utf-8").split("\n") if (w := line.strip())
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"C4.bad_words: {path} cannot be read: {error}") from None
    if not words:
        raise ValueError(f"C4.bad_words: {path} is empty, expected one word or phrase per line")
    return re.compile(rf"\b(?:{'|'.join(re.escape(word.lower()) for word in words)})\b")


def _gopher_quality(text: str, rules: GopherQuality) -> BrokenRule | None:
    """Applies the quality rules of appendix A.1.1.

    Words of symbols only are counted in ratios, but not in a document's length.
    """
    words = text.split()
    without_letter = words_without_letter(words)
    symbols = [w for w in without_letter if not any(map(str.isdigit, w))]
    num_words = len(words) - len(symbols)
    if not rules.min_words <= num_words <= rules.max_words:
        return BrokenRule("gopher_words", {"words": num_words})
    mean = (sum(map(len, words)) - sum(map(len, symbols))) / max(1, num_words)
    if not rules.min_mean_word_length <= mean <= rules.max_mean_word_length:
        return BrokenRule("gopher_word_length", {"mean_word": round(mean, 2)})
    ellipses = sum(map(text.count, _ELLIPSES))
    share = max(text.count("#"), ellipses) / max(1, len(words))
    if share > rules.max_symbols_per_word:
        return BrokenRule("gopher_symbols", {"symbols_per_word": round(share, 3)})
    lines = [s for line in text.split("\n") if (s := line.strip())]
    share = sum(line.startswith(_BULLETS) for line in lines) / max(1, len(lines))
    if share > rules.max_bullet_lines:
        return BrokenRule("gopher_bullets", {"bullet_lines": round(share, 3)})
    share = sum(line.endswith(_ELLIPSES) for line in lines) / max(1, len(lines))
    if share > rules.max_ellipsis_lines:
        return BrokenRule("gopher_ellipsis_lines", {"ellipsis_lines": round(share, 3)})
    share = 1 - len(without_letter) / max(1, len(words))
    if share < rules.min_alphabetic_words:
        return BrokenRule("gopher_alphabetic_words", {"alphabetic_words": round(share, 3)})
    stop_words = _STOP_WORDS.intersection(words)
    if len(stop_words) < rules.min_stop_words:  # lower case is only needed for few documents
        stop_words = _STOP_WORDS.intersection(text.lower().split())
    if len(stop_words) < rules.min_stop_words:
        return BrokenRule("gopher_stop_words", {"stop_words": sorted(stop_words)})
    return None


def _gopher_repetition(text: str, rules: GopherRepetition) -> BrokenRule | None:
    """Applies the repetition rules of appendix A.1.2, table A1."""
    for name, pieces, max_share, max_character_share in (
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
        share, character_share = _duplicate_shares(pieces)
        if share > max_share:
            return BrokenRule(f"gopher_duplicate_{name}", {"repeated": round(share, 3)})
        if character_share > max_character_share:
            evidence = {"repeated_characters": round(character_share, 3)}
            return BrokenRule(f"gopher_duplicate_{name}", evidence)
    words = text.split()
    for n, share, gram in top_ngrams(words, rules.max_top_ngram):
        return BrokenRule(
            "gopher_top_ngram", {"n": n, "share": round(share, 3), "ngram": gram[:80]}
        )
    for n, share in duplicate_ngrams(words, rules.max_duplicate_ngrams):
        return BrokenRule("gopher_duplicate_ngrams", {"n": n, "share": round(share, 3)})
    return None


def _fineweb(text: str, rules: FineWeb) -> BrokenRule | None:
    """Applies the three filters of section 3.6 of the FineWeb paper."""
    lines = [s for line in text.split("\n") if (s := line.strip())]
    num_lines = max(1, len(lines))
    num_punctuated = sum(line.rstrip(_AFTER_PUNCTUATION).endswith(_PUNCTUATION) for line in lines)
    share = num_punctuated / num_lines
    if share <= rules.min_punctuated_lines:
        return BrokenRule("fineweb_line_ends", {"punctuated_lines": round(share, 3)})
    share = _duplicate_shares(lines)[1]
    if share >= rules.max_duplicate_line_characters:
        return BrokenRule("fineweb_duplicate_lines", {"repeated_characters": round(share, 3)})
    share = sum(len(line) < rules.short_line_characters for line in lines) / num_lines
    if share >= rules.max_short_lines:
        return BrokenRule("fineweb_short_lines", {"short_lines": round(share, 3)})
    return None


def _duplicate_shares(pieces: Sequence[str]) -> tuple[float, float]:
    """Computes the share of pieces that occurred before, and the share of characters in these.

    Of n equal pieces, n - 1 are duplicates.
    """
    if len(set(pieces)) == len(pieces):
        return 0.0, 0.0
    counts = Counter(pieces)
    num_duplicates = len(pieces) - len(counts)
    characters = sum((count - 1) * len(piece) for piece, count in counts.items())
    return num_duplicates / len(pieces), characters / max(1, sum(map(len, pieces)))

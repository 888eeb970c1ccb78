r"""Output filters: the rules that a teacher's reply must pass to become a document of tier D2.

First, framing text such as "Here is the story you asked for:" is removed. Then the rules apply: a
reply is kept, or it is dropped with a reason and evidence.

>>> output_filter = build(OutputFilters(min_words=3))
>>> reply = Document("s/0", "Sure! Here is a story:\n\nA hare ran up a hill.", "s", "books")
>>> output_filter(reply, "length", PromptContext("A hill.", "Write a story.")).text
'A hare ran up a hill.'
>>> reply = Document("s/1", "I'm sorry, but I cannot do that.", "s", "books")
>>> output_filter(reply, "stop", PromptContext("A hill.", "Write a story.")).reason
'refusal'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from data_pipeline.cleaning import quality
from data_pipeline.cleaning.language import foreign_language_rule
from data_pipeline.cleaning.quality import Evidence
from data_pipeline.config import OutputFilters
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import prose
from data_pipeline.text.ngrams import U64, excerpt, ngrams, words

TRUNCATED = "length"  # the finish reason of a reply that reached its token limit

_COPIED_WORDS = 8  # length of the n-grams that are compared with the passage and the instruction
_REPEATED_WORDS = 6  # length of the n-grams that a loop repeats
_LEAKED_NGRAMS = 2  # n-grams shared with the instruction that count as a leak
_OPENING = 400  # characters at the start of a reply that are searched for a refusal
_MAX_FRAMING = 300  # characters of a line that only frames the text


def _any(*patterns: str, flags: re.RegexFlag = re.I) -> re.Pattern[str]:
    """Compiles a pattern that matches if any of the patterns does."""
    return re.compile("|".join(patterns), flags)


_KIND = (
    r"(?:article|case|chapter|conversation|dialogue|discussion|essay|exercises?|explanation|guide|"
    r"interview|lecture|lesson|narrative|notes|problems?|questions?|response|review|scene|section|"
    r"seminar|set|story|survey|text|textbook|tutorial|unit|version)"
)
_SERVILE = r"(?:sure|certainly|of course|absolutely|okay|ok|great|no problem|gladly|as requested)"
_OFFER = r"(?:here|below|I(?:['’]ve|['’]ll| have| will)|let me)"
_NOT_ABLE = (
    r"(?:can(?:no|['’])t|can not|won['’]t|am (?:not able|unable) to|['’]m (?:not able|unable) to)"
)
_THING = r"(?:an?|any|legal|such|that|this)"
_PROMPT = r"(?:passage|extract|excerpt|snippet|prompt)"

# Matched at the start of the first line.
_PREAMBLE = _any(
    rf"{_SERVILE}[,.!:](?:[^\n]*\b{_OFFER}\b[^\n]*[:.!])?[*_]*\Z",
    rf"(?:here(?:['’]s| is| are)|below is|the following is)\b[^\n]*\b{_KIND}\b[^\n]*[:.][*_]*\Z",
    rf"i(?:['’]ve| have) (?:written|prepared)\b[^\n]*\b{_KIND}\b[^\n]*[:.][*_]*\Z",
)
# Matched at the start of the last line.
_CLOSING = _any(
    r"[*_(\[]*i hope (?:this|that|you)\b",
    r"[*_(\[]*(?:please )?let me know\b",
    r"[*_(\[]*feel free to (?:ask|reach|contact)\b",
    r"[*_(\[]*if you(?:['’]d| would) like(?: me)? to\b",
    r"[*_(\[]*would you like me to\b",
    r"[*_(\[]*(?:please )?note: (?:this|i)\b",
    r"[*_(\[]*(?:approximate |total )?word count\b",
    r"[*_(\[]*the end\W*\Z",
    r"[-*_=]{3,}\Z",
)
_REASONING = _any(r"\s*<(think|thinking|reasoning)>.*?</\1>\s*", flags=re.S)
_OPEN_REASONING = _any(r"</?(?:think|thinking|reasoning)>")
_REFUSAL = _any(
    rf"\bI(?:['’]m| am)(?: very| truly| really)? sorry,? but I ?{_NOT_ABLE}\b",
    rf"\bI ?{_NOT_ABLE} (?:help (?:you|with)|assist|comply|fulfill?)\b",
    rf"\bI ?{_NOT_ABLE} (?:provide|write|create|produce|generate) {_THING}\b",
    r"\b(?:I must|I have to) (?:decline|refuse)\b",
    r"\bagainst my (?:guidelines|programming|policy)\b",
)
_META = _any(
    r"\bas an? (?:AI\b|artificial intelligence|(?:large )?language model)",
    r"\bI(?:['’]m| am) (?:just |only )?an? (?:AI\b|(?:large )?language model)",
    r"\bmy (?:training data|knowledge cut-?off)\b",
    rf"\b(?:the|this|your) {_PROMPT} (?:above|provided|given|you (?:gave|provided))\b",
    rf"\b(?:the|your) (?:given|provided|above) (?:{_PROMPT}|text)\b",
)
_TEMPLATE = _any(
    r"<\|?/?(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id)\|?>",
    r"<\|(?:assistant|user|system)\|>|</?passage>|<(?:start|end)_of_turn>",
    r"\[/?INST\]|<</?SYS>>|</?s>|^### (?:Instruction|Response):",
    flags=re.M,
)
_ENDS = (".", "!", "?", "…", ":", ";")
_EMPTY_ITEM = re.compile(r"\n[ \t]*(?:[-*•]|\d+[.)])\s*\Z")
_CLOSERS = "\"'”’)]*_`"


@dataclass(frozen=True, slots=True)
class PromptContext:
    """The prompt of a reply: its passage, and its other text (see prompts.RenderedPrompt)."""

    passage: str
    instruction: str


OutputFilter = Callable[[Document, str, PromptContext], Document | Dropped]


def build(config: OutputFilters) -> OutputFilter:
    """Returns a pure function of a reply, its finish reason and its prompt.

    It returns the document to keep, whose `meta["repaired"]` lists what was removed from it, or
    the dropped document with the text to which the rules were applied.
    """
    foreign_language = foreign_language_rule(config.language, config.min_foreign_score)

    def failures(text: str, prompt: PromptContext) -> Iterator[tuple[str, Evidence | None]]:
        """Yields (reason, evidence or None) of each rule, fast rules first."""
        yield "refusal", _match(_REFUSAL, text[:_OPENING])
        yield "template_leak", _match(_TEMPLATE, text)
        yield "prompt_leak", prompt_leak(text, prompt.instruction)
        yield "meta_talk", _match(_META, text)
        yield (
            "copied",
            copied(text, prompt.passage, config.max_copied, config.max_passage_coverage),
        )
        parsed = quality.Text(text)
        yield "too_short", quality.too_few_words(parsed, config.min_words)
        yield "too_long", quality.too_many_words(parsed, config.max_words)
        yield "language", foreign_language(text)
        if config.max_duplicate_lines:
            yield "duplicate_lines", quality.duplicate_lines(parsed, config.max_duplicate_lines)
        if config.max_repeated_ngrams:
            yield "loop", repeated_ngrams(text, config.max_repeated_ngrams)

    def output_filter(reply: Document, finish: str, prompt: PromptContext) -> Document | Dropped:
        text, repaired = strip_framing(reply.text)
        document = replace(reply, text=text)
        if match := _OPEN_REASONING.search(text):
            return Dropped(document, "reasoning", {"span": match[0]})
        if finish == TRUNCATED and (complete := to_last_sentence(text)) != text:
            if not config.repair_truncated:
                return Dropped(document, "cut_off", {"end": text[-60:]})
            document, repaired = replace(reply, text=complete), [*repaired, "cut_off"]
        for reason, evidence in failures(document.text, prompt):
            if evidence is not None:
                return Dropped(document, reason, evidence)
        return replace(document, meta=reply.meta | ({"repaired": repaired} if repaired else {}))

    return output_filter


def strip_framing(text: str) -> tuple[str, list[str]]:
    r"""Removes reasoning, a preamble and closing remarks, and returns the names of those removed.

    >>> strip_framing("Certainly! Here is the essay:\n\nHares run.\n\nI hope this helps!")
    ('Hares run.', ['preamble', 'closing'])
    """
    removed = []
    if match := _REASONING.match(text):
        text = text[match.end() :]
        removed.append("reasoning")
    text = text.strip()
    first, newline, rest = text.partition("\n")
    has_rest = bool(newline and rest.strip())
    if has_rest and len(first) <= _MAX_FRAMING and _PREAMBLE.match(first.strip(" *_#")):
        text = rest.strip()
        removed.append("preamble")
    has_closing = False
    while True:  # a reply may end with several closing remarks
        rest, newline, last = text.rpartition("\n")
        has_rest = bool(newline and rest.strip())
        if not (has_rest and len(last) <= _MAX_FRAMING and _CLOSING.match(last.strip())):
            break
        text, has_closing = rest.rstrip(), True
    return text, [*removed, *(["closing"] if has_closing else [])]


def to_last_sentence(text: str) -> str:
    """Returns the text up to its last complete sentence that is not inside a code block.

    >>> to_last_sentence("Hares run. They also e.g. hide in the")
    'Hares run.'
    """
    text = text.rstrip()
    if text.count("```") % 2:  # the last code block is not closed
        text = text[: text.rindex("```")].rstrip()
    while text and not text.endswith("```"):
        before, _, last = text.rpartition("\n\n")
        sentences = prose.sentences(last)
        if sentences[-1].rstrip(_CLOSERS).endswith(_ENDS):
            return text
        if len(sentences) > 1:  # without the incomplete sentence and an empty list item before it
            return _EMPTY_ITEM.sub("", text[: text.rindex(sentences[-1])]).rstrip()
        text = before.rstrip()
    return text


def repeated_ngrams(text: str, max_share: float) -> Evidence | None:
    """Returns evidence of a loop: more than `max_share` of the word n-grams repeat earlier ones."""
    hashes_S = _ngrams(text, _REPEATED_WORDS)
    first_S = np.unique(hashes_S, return_index=True)[1]  # first position of each distinct n-gram
    share = (len(hashes_S) - len(first_S)) / max(1, len(hashes_S))
    if share <= max_share:
        return None
    repeats = np.setdiff1d(np.arange(len(hashes_S)), first_S)
    return {
        "repeated": round(share, 3),
        "span": excerpt(text, int(repeats[0]), _REPEATED_WORDS),
    }


def copied(
    text: str, passage: str, max_copied: float, max_passage_coverage: float
) -> Evidence | None:
    """Returns evidence if the text and the passage share too many word n-grams.

    Args:
      text: a reply.
      passage: the passage of its prompt.
      max_copied: maximum share of the text's n-grams that occur in the passage; 0: no limit.
      max_passage_coverage: maximum share of the passage's distinct n-grams that occur in the
        text; 0: no limit.
    """
    text_S, passage_S = _ngrams(text, _COPIED_WORDS), _ngrams(passage, _COPIED_WORDS)
    shared = np.flatnonzero(np.isin(text_S, passage_S))
    if not len(shared):
        return None
    share = len(shared) / len(text_S)
    coverage = float(np.isin(np.unique(passage_S), text_S).mean())
    if not (0 < max_copied < share or 0 < max_passage_coverage < coverage):
        return None
    return {
        "copied": round(share, 3),
        "passage_coverage": round(coverage, 3),
        "span": excerpt(text, int(shared[0]), _COPIED_WORDS),
    }


def prompt_leak(text: str, instruction: str) -> Evidence | None:
    """Returns evidence if the text repeats word n-grams of the instruction."""
    text_S, instruction_S = _ngrams(text, _COPIED_WORDS), _ngrams(instruction, _COPIED_WORDS)
    shared = np.flatnonzero(np.isin(text_S, instruction_S))
    if len(shared) < _LEAKED_NGRAMS:
        return None
    return {"ngrams": len(shared), "span": excerpt(text, int(shared[0]), _COPIED_WORDS)}


def _ngrams(text: str, n: int) -> U64:
    """Returns the hash of each word n-gram of a text, in text order."""
    return ngrams(words([text]), n).hashes_S


def _match(pattern: re.Pattern[str], text: str) -> Evidence | None:
    """Returns the first match of a pattern as evidence."""
    match = pattern.search(text)
    return {"span": match[0]} if match else None

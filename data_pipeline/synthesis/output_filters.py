"""What a teacher's answer must pass to become a document of D2.

A gate answers keep or (drop, reason) with what it saw. Harmless frames, such as "Here is the story
you asked for:", are taken off before; what is wrong at heart goes.

>>> pass_on = build(Gates(min_words=3))
>>> answer = Document("s/0", "Sure! Here is a story:\\n\\nA hare ran up a hill.", "s", "books")
>>> pass_on(answer, "length", Asked("A hill.", "Write a story.")).text
'A hare ran up a hill.'
>>> answer = Document("s/1", "I'm sorry, but I cannot do that.", "s", "books")
>>> pass_on(answer, "stop", Asked("A hill.", "Write a story.")).reason
'refusal'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from data_pipeline.cleaning import quality
from data_pipeline.cleaning.language import detector
from data_pipeline.cleaning.quality import Evidence
from data_pipeline.config import OutputFilters
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import prose
from data_pipeline.text.ngrams import U64, excerpt, ngrams, words

CUT = "length"  # the finish of an answer that reached its most tokens

_COPIED_WORDS = 8  # of an n-gram that says that text was copied
_REPEATED_WORDS = 6
_LEAKED_NGRAMS = 2  # n-grams of the instruction in an answer that make it a leak
_OPENING = 400  # characters in which a refusal stands
_MOST_FRAME = 300  # characters of a paragraph that only frames the answer


def _any(*patterns: str, flags: re.RegexFlag = re.I) -> re.Pattern[str]:
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

# Matched with the whole first line of an answer.
_PREAMBLE = _any(
    rf"{_SERVILE}[,.!:](?:[^\n]*\b{_OFFER}\b[^\n]*[:.!])?[*_]*\Z",
    rf"(?:here(?:['’]s| is| are)|below is|the following is)\b[^\n]*\b{_KIND}\b[^\n]*[:.][*_]*\Z",
    rf"i(?:['’]ve| have) (?:written|prepared)\b[^\n]*\b{_KIND}\b[^\n]*[:.][*_]*\Z",
)
# Matched with the whole last line.
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
    """What an answer answers: the passage, and the prompt's own words around it."""

    passage: str
    instruction: str


OutputFilter = Callable[[Document, str, PromptContext], Document | Dropped]


def build(config: OutputFilters) -> OutputFilter:
    """A pure function of an answer, the server's word for why it ended, and what was asked.

    What was taken off a kept answer is named in its `meta["mended"]`, a list. A dropped one carries
    the text that the gate saw.
    """
    detect = detector(config.language)

    def foreign(text: str) -> Evidence | None:
        found = detect(text)
        if found is None or found[0] == config.language or found[1] < config.min_foreign_score:
            return None
        return {"language": found[0], "score": round(found[1], 3)}

    def faults(text: str, asked: PromptContext) -> Iterator[tuple[str, Evidence | None]]:
        yield "refusal", _found(_REFUSAL, text[:_OPENING])
        yield "template_leak", _found(_TEMPLATE, text)
        yield "prompt_leak", prompt_leak(text, asked.instruction)
        yield "meta_talk", _found(_META, text)
        yield "copied", copied(text, asked.passage, config.max_copied, config.max_passage_coverage)
        seen = quality.Text(text)
        yield "too_short", quality.too_few_words(seen, config.min_words)
        yield "too_long", quality.too_many_words(seen, config.max_words)
        yield "language", foreign(text)
        if config.max_duplicate_lines:
            yield "duplicate_lines", quality.duplicate_lines(seen, config.max_duplicate_lines)
        if config.max_repeated_ngrams:
            yield "loop", repeated_ngrams(text, config.max_repeated_ngrams)

    def gate(answer: Document, finish: str, asked: PromptContext) -> Document | Dropped:
        text, mended = strip_frame(answer.text)
        seen = replace(answer, text=text)
        if match := _OPEN_REASONING.search(text):
            return Dropped(seen, "reasoning", {"span": match[0]})
        if finish == CUT and (whole := to_last_sentence(text)) != text:
            if not config.repair_truncated:
                return Dropped(seen, "cut_off", {"end": text[-60:]})
            seen, mended = replace(answer, text=whole), [*mended, "cut_off"]
        for reason, evidence in faults(seen.text, asked):
            if evidence is not None:
                return Dropped(seen, reason, evidence)
        return replace(seen, meta=answer.meta | ({"mended": mended} if mended else {}))

    return gate


def strip_frame(text: str) -> tuple[str, list[str]]:
    """The text without reasoning, preamble and closing remark, and the names of what was there.

    >>> strip_frame("Certainly! Here is the essay:\\n\\nHares run.\\n\\nI hope this helps!")
    ('Hares run.', ['preamble', 'closing'])
    """
    mended = []
    if match := _REASONING.match(text):
        text = text[match.end() :]
        mended.append("reasoning")
    text = text.strip()
    first, gap, rest = text.partition("\n")
    if gap and rest.strip() and len(first) <= _MOST_FRAME and _PREAMBLE.match(first.strip(" *_#")):
        text = rest.strip()
        mended.append("preamble")
    ended = False
    while True:
        rest, gap, last = text.rpartition("\n")
        if not (gap and rest.strip() and len(last) <= _MOST_FRAME and _CLOSING.match(last.strip())):
            break
        text, ended = rest.rstrip(), True
    return text, [*mended, *(["closing"] if ended else [])]


def to_last_sentence(text: str) -> str:
    """As much of a text as ends with a whole sentence, and not within a block of code.

    >>> to_last_sentence("Hares run. They also e.g. hide in the")
    'Hares run.'
    """
    text = text.rstrip()
    if text.count("```") % 2:
        text = text[: text.rindex("```")].rstrip()
    while text and not text.endswith("```"):
        before, _, last = text.rpartition("\n\n")
        found = prose.sentences(last)
        if found[-1].rstrip(_CLOSERS).endswith(_ENDS):
            return text
        if len(found) > 1:
            return _EMPTY_ITEM.sub("", text[: text.rindex(found[-1])]).rstrip()
        text = before.rstrip()
    return text


def repeated_ngrams(text: str, most: float) -> Evidence | None:
    """The share of a text's n-grams of words that it had before: what a model in a loop writes."""
    hashes_S = _ngrams(text, _REPEATED_WORDS)
    first_S = np.unique(hashes_S, return_index=True)[1]
    share = (len(hashes_S) - len(first_S)) / max(1, len(hashes_S))
    if share <= most:
        return None
    again = np.setdiff1d(np.arange(len(hashes_S)), first_S)
    return {
        "repeated": round(share, 3),
        "span": excerpt(text, int(again[0]), _REPEATED_WORDS),
    }


def copied(text: str, passage: str, most: float, most_recited: float) -> Evidence | None:
    """Too much of the text is the passage's, or too much of the passage stands in the text."""
    own_S, given_S = _ngrams(text, _COPIED_WORDS), _ngrams(passage, _COPIED_WORDS)
    hits = np.flatnonzero(np.isin(own_S, given_S))
    if not len(hits):
        return None
    share = len(hits) / len(own_S)
    recited = float(np.isin(np.unique(given_S), own_S).mean())
    if not (0 < most < share or 0 < most_recited < recited):
        return None
    return {
        "copied": round(share, 3),
        "recited": round(recited, 3),
        "span": excerpt(text, int(hits[0]), _COPIED_WORDS),
    }


def prompt_leak(text: str, instruction: str) -> Evidence | None:
    """Runs of the instruction's own words in the text."""
    own_S, given_S = _ngrams(text, _COPIED_WORDS), _ngrams(instruction, _COPIED_WORDS)
    hits = np.flatnonzero(np.isin(own_S, given_S))
    if len(hits) < _LEAKED_NGRAMS:
        return None
    return {"ngrams": len(hits), "span": excerpt(text, int(hits[0]), _COPIED_WORDS)}


def _ngrams(text: str, n: int) -> U64:
    return ngrams(words([text]), n).hashes_S


def _found(pattern: re.Pattern[str], text: str) -> Evidence | None:
    match = pattern.search(text)
    return {"span": match[0]} if match else None

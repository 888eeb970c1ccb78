"""Dropped documents as examples a person can read: which ones, which part of them, what to mark.

The choice depends on nothing but the side files: of each reason the sources that lost most stand
first, one example each while there are enough sources, and within a shard the documents with the
smallest hash of their id. Only the shards are opened in which the ledgers promise such a document.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from hashlib import blake2b
from itertools import takewhile
from typing import Any

from data_pipeline.execution.manifest import Directory, canonical
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.storage.shards import read_dropped, read_shard

SIZE = 400  # characters of an excerpt
QUOTES = ("span", "line", "end")  # evidence that quotes the document
BEFORE = 120  # of these, at most, before the first marked one
SEARCHED_SHARDS = 200  # opened to find the survivors of some duplicates

Segment = tuple[str, bool]  # a piece of text, and whether it is marked

# Controls (but tab and newline), marks that turn the direction of text, invisible format
# characters, and lone surrogates, which cannot be written as UTF-8.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""The text with its invisible characters shown.

    >>> printable("a\x07b\u202ec")
    'a⟨U+0007⟩b⟨U+202E⟩c'
    """
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def excerpt(text: str, spans: Iterable[tuple[int, int]] = (), size: int = SIZE) -> list[Segment]:
    """About `size` characters around the first of `spans` ([start, end) in characters).

    >>> excerpt("hares hop", [(6, 9)])
    [('hares ', False), ('hop', True)]
    """
    spans = sorted((max(0, a), min(len(text), b)) for a, b in spans if a < b)
    begin = 0
    if spans and spans[0][1] > size:
        begin = max(0, spans[0][0] - BEFORE)
    end = min(len(text), begin + size)
    segments: list[Segment] = [("… ", False)] if begin else []
    at = begin
    for a, b in spans:
        if b > at and a < end:
            segments.append((printable(text[at : max(a, at)]), False))
            segments.append((printable(text[max(a, at) : min(b, end)]), True))
            at = min(b, end)
    segments.append((printable(text[at:end]), False))
    if end < len(text):
        segments.append((" …", False))
    return _filled(segments)


def evidence_spans(text: str, evidence: dict[str, Any]) -> list[tuple[int, int]]:
    """Where the texts that the evidence quotes stand in `text`; white space may differ."""
    quotes = [value.split() for name, value in evidence.items() if name in QUOTES]
    return [
        (match.start(), match.end())
        for words in quotes
        if words
        for match in re.finditer(r"\s+".join(map(re.escape, words)), text)
    ]


def evidence_words(text: str, evidence: dict[str, Any], most: int = 160) -> list[tuple[str, str]]:
    """Names and values of evidence as short texts, without the quotes that are marked in `text`."""
    words = []
    for name, value in evidence.items():
        if not (name in QUOTES and evidence_spans(text, {name: value})):
            said = printable(value if isinstance(value, str) else canonical(value))
            words.append((name.replace("_", " "), said[:most] + ("…" if len(said) > most else "")))
    return words


def compare(one: str, other: str, size: int = SIZE) -> tuple[list[Segment], list[Segment]]:
    """Excerpts of two similar texts, around the first word in which they differ; that is marked.

    White space may differ.
    """
    words, other_words = re.findall(r"\s*\S+", one), re.findall(r"\s*\S+", other)
    pairs = zip(words, other_words, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0].strip() == pair[1].strip(), pairs))
    first = 0
    if same < max(len(words), len(other_words)) and len("".join(words[:same])) > size // 2:
        first = max(0, same - 12)
    left, right = _window(words, first, size), _window(other_words, first, size)
    matcher = SequenceMatcher(
        None, [w.strip() for w in left], [w.strip() for w in right], autojunk=False
    )
    operations = matcher.get_opcodes()
    both_go_on = first + len(left) < len(words) and first + len(right) < len(other_words)
    if both_go_on and operations[-1][0] in ("insert", "delete"):
        operations.pop()  # one side merely holds a few words more
    sides: tuple[list[Segment], list[Segment]] = ([], [])
    for operation, a, b, c, d in operations:
        for side, piece in zip(sides, ("".join(left[a:b]), "".join(right[c:d])), strict=True):
            word = piece.lstrip()
            if side:
                side.append((piece[: len(piece) - len(word)], False))
            side.append((printable(word), operation != "equal"))
    for side, shown, everything in ((sides[0], left, words), (sides[1], right, other_words)):
        side.insert(0, ("… " if first else "", False))
        side.append((" …" if first + len(shown) < len(everything) else "", False))
    return _filled(sides[0]), _filled(sides[1])


def _filled(segments: list[Segment]) -> list[Segment]:
    return [segment for segment in segments if segment[0]]


def _window(words: list[str], first: int, size: int) -> list[str]:
    chosen: list[str] = []
    length = 0
    for word in words[first:]:
        length += len(word)
        if length > size and chosen:
            break
        chosen.append(word[:size])
    return chosen


def choose(
    directory: Directory, each: int, counted: Callable[[Any], Counter[str]] = lambda c: c.dropped
) -> dict[str, list[Dropped]]:
    """Reason -> at most `each` examples; `counted` picks the ledger's counter: dropped or bad."""
    plan: dict[str, dict[str, int]] = {}  # reason -> source -> how many
    total: dict[str, Counter[str]] = {}
    for source, counts in directory.counts().items():
        for reason, number in counted(counts).items():
            total.setdefault(reason, Counter())[source] += number
    for reason, by_source in total.items():
        order = sorted(by_source, key=lambda s: (-by_source[s], s))
        wanted = plan[reason] = dict.fromkeys(order[:each], 0)
        while sum(wanted.values()) < min(each, by_source.total()):
            for source in wanted:
                if sum(wanted.values()) < each and wanted[source] < by_source[source]:
                    wanted[source] += 1
    found: dict[tuple[str, str], list[Dropped]] = {}
    for file, ledger in zip(directory.files("dropped"), _with_dropped(directory), strict=True):
        missing = {
            (reason, source): want - len(found.get((reason, source), []))
            for reason, wanted in plan.items()
            for source, want in wanted.items()
            if source in ledger.sources and counted(ledger.sources[source])[reason]
        }
        if any(number > 0 for number in missing.values()):
            for key, chosen in _smallest(read_dropped(file.path), missing).items():
                found.setdefault(key, []).extend(chosen)
    return {
        reason: [dropped for source in wanted for dropped in found.get((reason, source), [])]
        for reason, wanted in plan.items()
    }


def _with_dropped(directory: Directory) -> Iterator[Any]:
    for ledger in directory.ledgers():
        for file in ledger.files:
            if file.startswith("dropped/"):
                yield ledger


def _smallest(
    rows: Iterable[tuple[str, Dropped]], wanted: dict[tuple[str, str], int]
) -> dict[tuple[str, str], list[Dropped]]:
    """Of each (reason, source) the wanted number of documents with the smallest hashes."""
    heaps: dict[tuple[str, str], list[tuple[int, int, Dropped]]] = {}
    for row, (_, dropped) in enumerate(rows):
        key = (dropped.reason, dropped.document.source)
        if (number := wanted.get(key, 0)) > 0:
            heap = heaps.setdefault(key, [])
            heapq.heappush(heap, (-_hash(dropped.document.id), row, dropped))
            if len(heap) > number:
                heapq.heappop(heap)
    return {key: [dropped for _, _, dropped in sorted(heap)] for key, heap in heaps.items()}


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def survivors(directory: Directory, ids: set[str]) -> dict[str, Document]:
    """The kept documents with these ids, as far as the first SEARCHED_SHARDS shards hold them."""
    found: dict[str, Document] = {}
    for file in directory.files()[:SEARCHED_SHARDS]:
        if len(found) == len(ids):
            break
        for document in read_shard(file.path):
            if document.id in ids:
                found[document.id] = document
    return found

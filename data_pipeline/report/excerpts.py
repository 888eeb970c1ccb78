"""Selection of examples, and of the part of a text that the page shows and marks.

The selection depends on the files only. For each drop reason, the sources with the most dropped
documents come first, with one example each while there are enough sources; within a shard, the
documents with the smallest hash of their id are chosen. A shard is opened only if its ledger
counts a document that is still needed.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from hashlib import blake2b
from itertools import takewhile
from typing import Any

from data_pipeline.execution.manifest import Counts, Directory, Ledger, canonical
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.storage.shards import read_dropped, read_shard
from data_pipeline.text import seeded_random

SIZE = 400  # characters of an excerpt
QUOTES = ("span", "line", "end")  # evidence keys whose value is a quote from the document
CONTEXT = 120  # characters shown before the first marked one, at most
CONTEXT_WORDS = 12  # words shown before the first difference of two texts, at most
MAX_PARTIAL_WORD = 30  # characters of a truncated word that an excerpt leaves out, at most
MAX_VALUE = 160  # characters of an evidence value
MAX_SEARCHED_SHARDS = 200  # shards that are searched for the survivors of duplicates

Segment = tuple[str, bool]  # a piece of text, and whether it is marked

# Control characters (except tab and newline), bidirectional marks, invisible format characters,
# and lone surrogates, which cannot be encoded as UTF-8.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Replaces each invisible character by its code point.

    >>> printable("a\x07b\u202ec")
    'a⟨U+0007⟩b⟨U+202E⟩c'
    """
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def excerpt(text: str, spans: Iterable[tuple[int, int]] = (), size: int = SIZE) -> list[Segment]:
    """Returns up to `size` characters of a text that include the first span, with spans marked.

    A span is (start, end) in characters, end exclusive.

    >>> excerpt("hares hop", [(6, 9)])
    [('hares ', False), ('hop', True)]
    """
    spans = sorted((max(0, a), min(len(text), b)) for a, b in spans if a < b)
    begin = 0
    if spans and spans[0][1] > size:
        begin = _next_word(text, max(0, spans[0][0] - CONTEXT), spans[0][0])
    end = _last_word(text, min(len(text), begin + size))
    segments: list[Segment] = [("… ", False)] if begin else []
    position = begin
    for a, b in spans:
        if b > position and a < end:  # a span may overlap the one before it
            segments.append((printable(text[position : max(a, position)]), False))
            segments.append((printable(text[max(a, position) : min(b, end)]), True))
            position = min(b, end)
    segments.append((printable(text[position:end]), False))
    if end < len(text):
        segments.append((" …", False))
    return _non_empty(segments)


def _next_word(text: str, position: int, limit: int) -> int:
    """Returns the first position from `position` on at which a word begins.

    Returns `position` itself if no word begins before `limit`.
    """
    if position == 0:
        return 0
    match = re.compile(r"(?<=\s)\S").search(text, position, limit)
    return match.start() if match else position


def _last_word(text: str, position: int) -> int:
    """Returns the last position up to `position` at which a word ends.

    Returns `position` itself if no word ends in the MAX_PARTIAL_WORD characters before it.
    """
    if position == len(text) or text[position].isspace():
        return position
    start = max(0, position - MAX_PARTIAL_WORD)
    match = re.search(r"\s+\S*\Z", text[start:position])  # the last gap and the partial word
    return start + match.start() if match else position


def evidence_spans(text: str, evidence: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Returns the spans of `text` that the evidence quotes; whitespace may differ."""
    quotes = [value.split() for name, value in evidence.items() if name in QUOTES]
    return [
        (match.start(), match.end())
        for words in quotes
        if words
        for match in re.finditer(r"\s+".join(map(re.escape, words)), text)
    ]


def evidence_values(text: str, evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns (name, value as text) of evidence, except for quotes that `text` contains."""
    pairs = []
    for name, value in evidence.items():
        if not (name in QUOTES and evidence_spans(text, {name: value})):
            shown = printable(value if isinstance(value, str) else canonical(value))
            if len(shown) > MAX_VALUE:
                shown = shown[:MAX_VALUE] + "…"
            pairs.append((name.replace("_", " "), shown))
    return pairs


def compare(one: str, other: str, size: int = SIZE) -> tuple[list[Segment], list[Segment]]:
    """Returns excerpts of two similar texts around their first difference; differences are marked.

    Words are compared without the whitespace between them.
    """
    words, other_words = re.findall(r"\s*\S+", one), re.findall(r"\s*\S+", other)
    pairs = zip(words, other_words, strict=False)
    num_equal = sum(1 for _ in takewhile(lambda pair: pair[0].strip() == pair[1].strip(), pairs))
    first = 0
    is_equal = num_equal == max(len(words), len(other_words))
    if not is_equal and len("".join(words[:num_equal])) > size // 2:
        first = max(0, num_equal - CONTEXT_WORDS)
    left, right = _window(words, first, size), _window(other_words, first, size)
    matcher = SequenceMatcher(
        None, [w.strip() for w in left], [w.strip() for w in right], autojunk=False
    )
    operations = matcher.get_opcodes()
    both_truncated = first + len(left) < len(words) and first + len(right) < len(other_words)
    if both_truncated and operations[-1][0] in ("insert", "delete"):
        operations.pop()  # one window only has more words than the other; no difference
    sides: tuple[list[Segment], list[Segment]] = ([], [])
    for operation, a, b, c, d in operations:
        for side, piece in zip(sides, ("".join(left[a:b]), "".join(right[c:d])), strict=True):
            word = piece.lstrip()
            if side:  # whitespace before a piece is not marked
                side.append((piece[: len(piece) - len(word)], False))
            side.append((printable(word), operation != "equal"))
    for side, window, all_words in ((sides[0], left, words), (sides[1], right, other_words)):
        side.insert(0, ("… " if first else "", False))
        side.append((" …" if first + len(window) < len(all_words) else "", False))
    return _non_empty(sides[0]), _non_empty(sides[1])


def _non_empty(segments: Iterable[Segment]) -> list[Segment]:
    """Returns the segments that have text."""
    return [segment for segment in segments if segment[0]]


def _window(words: list[str], first: int, size: int) -> list[str]:
    """Returns at least one and at most `size` characters of words, from the word `first` on."""
    window: list[str] = []
    length = 0
    for word in words[first:]:
        length += len(word)
        if length > size and window:
            break
        window.append(word[:size])
    return window


def sample(documents: Iterable[Document], count: int) -> list[Document]:
    """Returns the `count` documents with the smallest hashes of their ids, smallest first."""
    return heapq.nsmallest(count, documents, lambda one: seeded_random.hash64(0, one.id))


def choose(
    directory: Directory,
    count: int,
    counter_of: Callable[[Counts], Counter[str]] = lambda counts: counts.dropped,
) -> dict[str, list[Dropped]]:
    """Returns at most `count` examples of each reason, spread over sources.

    Args:
      directory: a finished stage.
      count: the maximum number of examples of a reason.
      counter_of: the counter of a ledger to use, `dropped` or `bad`.
    """
    plan = _plan(directory, count, counter_of)
    chosen: dict[tuple[str, str], list[Dropped]] = {}  # (reason, source) -> examples
    for file, ledger in zip(directory.files("dropped"), _with_dropped(directory), strict=True):
        missing = {
            (reason, source): number - len(chosen.get((reason, source), []))
            for reason, by_source in plan.items()
            for source, number in by_source.items()
            if source in ledger.sources and counter_of(ledger.sources[source])[reason]
        }
        if any(number > 0 for number in missing.values()):
            for key, examples in _smallest(read_dropped(file.path), missing).items():
                chosen.setdefault(key, []).extend(examples)
    return {
        reason: [dropped for source in by_source for dropped in chosen.get((reason, source), [])]
        for reason, by_source in plan.items()
    }


def _plan(
    directory: Directory, count: int, counter_of: Callable[[Counts], Counter[str]]
) -> dict[str, dict[str, int]]:
    """Returns reason -> source -> number of examples, at most `count` per reason."""
    totals: dict[str, Counter[str]] = {}  # reason -> documents by source
    for source, counts in directory.counts().items():
        for reason, number in counter_of(counts).items():
            totals.setdefault(reason, Counter())[source] += number
    plan: dict[str, dict[str, int]] = {}
    for reason, by_source in totals.items():
        order = sorted(by_source, key=lambda s: (-by_source[s], s))
        numbers = plan[reason] = dict.fromkeys(order[:count], 0)
        # One example per source in turn, until there are `count` or no further document.
        while sum(numbers.values()) < min(count, by_source.total()):
            for source in numbers:
                if sum(numbers.values()) < count and numbers[source] < by_source[source]:
                    numbers[source] += 1
    return plan


def _with_dropped(directory: Directory) -> Iterator[Ledger]:
    """Yields the ledger of each file of dropped documents."""
    for ledger in directory.ledgers():
        for file in ledger.files:
            if file.startswith("dropped/"):
                yield ledger


def _smallest(
    rows: Iterable[tuple[str, Dropped]], limits: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], list[Dropped]]:
    """Returns the documents with the smallest hashes, at most `limits[reason, source]` of each."""
    heaps: dict[tuple[str, str], list[tuple[int, int, Dropped]]] = {}
    for row, (_, dropped) in enumerate(rows):
        key = (dropped.reason, dropped.document.source)
        if (limit := limits.get(key, 0)) > 0:
            heap = heaps.setdefault(key, [])
            # Hashes are negated, so that the root of the heap is the largest one.
            heapq.heappush(heap, (-_hash(dropped.document.id), row, dropped))
            if len(heap) > limit:
                heapq.heappop(heap)
    return {key: [dropped for _, _, dropped in sorted(heap)] for key, heap in heaps.items()}


def _hash(text: str) -> int:
    """Returns a 64-bit hash. The id of a damaged row may hold lone surrogates."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def survivors(directory: Directory, ids: set[str]) -> dict[str, Document]:
    """Returns the kept documents with these ids, searching the first MAX_SEARCHED_SHARDS shards."""
    documents: dict[str, Document] = {}
    for file in directory.files()[:MAX_SEARCHED_SHARDS]:
        if len(documents) == len(ids):
            break
        for document in read_shard(file.path):
            if document.id in ids:
                documents[document.id] = document
    return documents

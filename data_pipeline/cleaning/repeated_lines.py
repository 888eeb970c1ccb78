r"""Boilerplate lines, which many documents of a source share: menus, notices, page templates.

A line is counted once per document that contains it. Counts of shards are added, so the result
does not depend on the shards, their order or the partitions of the hash space. Lines that occur
once in a shard are counted too, because other shards may contain them.

Not every repeated line is boilerplate. "Population" is a heading in the page of every country, and
"By the end of this section, you will be able to:" introduces text that differs. A line is therefore
only removed as a part of a *run* of paragraphs that consist entirely of repeated lines. The run
must contain a sentence or three different lines, or begin or end the document. A heading or a line
with a colon at the end of a run is kept, because it introduces the text after it. Code, tables and
indented lines are kept.

>>> page = "Toggle the menu\n\nSkip to the text.\n\nHares {}\n\nAll rights reserved."
>>> pages = [page.format(k) for k in range(9)]
>>> counts = LineCounts.from_documents((page, "web") for page in pages)
>>> repeated = merge([counts], {"web": 5})["web"]
>>> remove_repeated_lines(pages[3], repeated, "web")
('Hares 3', [('Toggle the menu', 9), ('Skip to the text.', 9), ('All rights reserved.', 9)])

Memory: the counts of a shard have 16 bytes per distinct line and source (hash, number of documents,
source), and about 100 bytes while they are computed (a dictionary entry). Merging holds the entries
of all shards in one partition of the hash space, 16 bytes each and three times that while sorting.
10^12 tokens (5 TB, about 5 * 10^10 lines of 100 bytes) have at most 0.8 TB of counts. Each of 4096
partitions takes 0.2 GB, and 0.6 GB while it is merged.

Shape letters: L lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.cleaning.fences import may_have_fences
from data_pipeline.storage.atomic import read_arrays, write_arrays
from data_pipeline.text.ngrams import U64

MIN_CHARACTERS = 4  # of a line that is counted: "Home"
_MIN_MENU_LINES = 3  # different lines in a run without a sentence
_MIN_MENU_CHARACTERS = 30
_MIN_LETTER_SHARE = 0.5  # of a line's characters
_MIN_SENTENCE_WORDS = 4
_SENTENCE = re.compile(r"[.!?][\"”’'*_]*\Z|\A\(.*[.!?]\)\Z")  # not "(2022 est.)"
# Ends of a line that introduces the next line or continues in it.
_INTRODUCTION_ENDS = (":", ",", ";", "-", "–", "—")
_DIGIT = re.compile(r"\d")
_MARKUP = re.compile(r"[|`~<>{}\\:=$%@+]|\.\. |#!|\d+[.)]|[-*] \[[ xX]\]")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")

Paragraph = list[int]  # indices of its lines
Repeated = Mapping[int, int]  # line hash -> number of documents


@dataclass(slots=True)
class LineCounts:
    """The number of documents that contain each line, for each source.

    Attributes:
      sources: names of sources.
      hashes_L: hash of the source and the line, in ascending order.
      documents_L: number of documents that contain the line.
      source_L: index into `sources`.
    """

    sources: list[str]
    hashes_L: U64
    documents_L: NDArray[np.uint32]
    source_L: NDArray[np.uint32]

    @classmethod
    def from_documents(cls, documents: Iterable[tuple[str, str]]) -> LineCounts:
        """Counts the lines of (text, source) pairs."""
        counters: dict[str, Counter[int]] = {}
        for text, source in documents:
            # The set counts a line once per document; 0 is the hash of lines that are too short.
            counters.setdefault(source, Counter()).update(set(_hashes(text, source)) - {0})
        sizes = [len(counter) for counter in counters.values()]
        hashes_L = np.fromiter((key for c in counters.values() for key in c), np.uint64, sum(sizes))
        documents_L = np.fromiter((n for c in counters.values() for n in c.values()), np.uint32)
        source_L = np.repeat(np.arange(len(counters), dtype=np.uint32), sizes)
        order = np.argsort(hashes_L)
        return cls(list(counters), hashes_L[order], documents_L[order], source_L[order])

    def partition(self, number: int, num_partitions: int) -> LineCounts:
        """Returns the lines of partition `number` of `num_partitions` of the hash space."""
        edges = [number * 2**64 // num_partitions, (number + 1) * 2**64 // num_partitions]
        start, stop = (
            len(self.hashes_L)
            if edge == 2**64  # does not fit into 64 bits
            else int(np.searchsorted(self.hashes_L, np.uint64(edge)))
            for edge in edges
        )
        return LineCounts(
            self.sources,
            self.hashes_L[start:stop],
            self.documents_L[start:stop],
            self.source_L[start:stop],
        )

    def save(self, path: Path) -> str:
        """Writes the counts as an .npz file and returns its sha256."""
        return write_arrays(
            path,
            sources=np.array(self.sources, np.str_),
            hashes=self.hashes_L,
            documents=self.documents_L,
            source=self.source_L,
        )

    @classmethod
    def load(cls, path: Path) -> LineCounts:
        """Reads the file of `save`."""
        arrays = read_arrays(path)
        names = [str(name) for name in arrays["sources"]]
        return cls(names, arrays["hashes"], arrays["documents"], arrays["source"])


def merge(
    counts: Iterable[LineCounts], min_documents: Mapping[str, int]
) -> dict[str, dict[int, int]]:
    """Adds counts and returns the repeated lines: source -> line hash -> number of documents.

    Args:
      counts: counts of one partition of the hash space, each of different documents.
      min_documents: source -> the number of documents from which on a line is repeated.
    """
    names = sorted(min_documents)
    index_of = {name: k for k, name in enumerate(names)}
    # Each list begins with an empty array, so that concatenation works without any counts.
    hashes, documents, sources = (
        [np.empty(0, np.uint64)],
        [np.empty(0, np.uint32)],
        [np.empty(0, np.uint32)],
    )
    for part in counts:
        # Indices into `part.sources` become indices into `names`.
        to_index = np.array([index_of[name] for name in part.sources], np.uint32)
        hashes.append(part.hashes_L)
        documents.append(part.documents_L)
        sources.append(to_index[part.source_L] if len(to_index) else part.source_L)
    all_hashes = np.concatenate(hashes)
    order = np.argsort(all_hashes, kind="stable")
    # Equal hashes are now neighbors: `starts` are the first entries of each distinct line.
    hashes_L, starts_L = np.unique(all_hashes[order], return_index=True)
    repeated: dict[str, dict[int, int]] = {name: {} for name in names}
    if not len(starts_L):
        return repeated
    documents_L = np.add.reduceat(np.concatenate(documents)[order].astype(np.int64), starts_L)
    source_L = np.concatenate(sources)[order][starts_L]  # the hash includes the source
    is_repeated_L = documents_L >= np.array([min_documents[name] for name in names])[source_L]
    for key, count, source in zip(
        hashes_L[is_repeated_L].tolist(),
        documents_L[is_repeated_L].tolist(),
        source_L[is_repeated_L].tolist(),
        strict=True,
    ):
        repeated[names[source]][key] = count
    return repeated


def line_hash(source: str, line: str) -> int:
    """Returns a 64-bit hash of a source and a stripped line."""
    return xxhash.xxh3_64_intdigest(line.encode("utf-8", "surrogatepass"), _seed(source))


def remove_repeated_lines(
    text: str, repeated: Repeated, source: str
) -> tuple[str, list[tuple[str, int]]]:
    """Removes the boilerplate of a text.

    Args:
      text: the text of a document.
      repeated: the repeated lines of its source.
      source: the name of its source.

    Returns:
      The text, and the removed lines in text order as (stripped line, number of documents).
    """
    hashes = _hashes(text, source)
    if repeated.keys().isdisjoint(hashes):
        return text, []
    lines = text.split("\n")
    fenced = _fenced(lines) if may_have_fences(text) else set()
    candidates = {
        k
        for k, key in enumerate(hashes)
        if key in repeated and k not in fenced and _is_plain(lines[k])
    }
    if not candidates:
        return text, []
    stripped = [line.strip() for line in lines]
    removed: set[int] = set()
    for run in _runs(stripped, candidates):
        removed.update(_boilerplate(stripped, run))
    if not removed:
        return text, []
    kept = "\n".join(line for k, line in enumerate(lines) if k not in removed)
    return kept.strip("\n"), [(stripped[k], repeated[hashes[k]]) for k in sorted(removed)]


@cache
def _seed(source: str) -> int:
    """Returns the seed of a source's line hashes."""
    return xxhash.xxh3_64_intdigest(source.encode())


def _hashes(text: str, source: str) -> list[int]:
    """Returns the hash of each line, or 0 for a line that is too short to be boilerplate."""
    seed, digest = _seed(source), xxhash.xxh3_64_intdigest
    if text.isascii():  # bytes are characters then, and splitting bytes is faster
        return [
            digest(line, seed) if len(line) >= MIN_CHARACTERS else 0
            for line in map(bytes.strip, text.encode().split(b"\n"))
        ]
    return [
        digest(line.encode("utf-8", "surrogatepass"), seed) if len(line) >= MIN_CHARACTERS else 0
        for line in map(str.strip, text.split("\n"))
    ]


def _fenced(lines: Sequence[str]) -> set[int]:
    """Returns the indices of lines of fenced code, with the opening but not the closing fence."""
    fenced: set[int] = set()
    inside = False
    for k, line in enumerate(lines):
        inside ^= bool(_FENCE.match(line))
        if inside:
            fenced.add(k)
    return fenced


def _is_plain(line: str) -> bool:
    """Returns whether a line is text, and not code, a table row or a list item."""
    stripped = line.strip()
    return (
        not line.startswith(("    ", "\t"))
        and not _MARKUP.match(stripped)
        and sum(map(str.isalpha, stripped)) >= _MIN_LETTER_SHARE * len(stripped)
    )


def _runs(stripped: Sequence[str], candidates: Set[int]) -> list[list[Paragraph]]:
    """Returns the longest runs of consecutive paragraphs whose lines are all candidates.

    Args:
      stripped: the stripped lines of a document.
      candidates: indices of lines that may be removed.
    """
    runs: list[list[Paragraph]] = [[]]
    paragraph: Paragraph = []
    all_candidates = True  # of the current paragraph
    for k, line in enumerate([*stripped, ""]):  # the "" ends the last paragraph
        if line:
            all_candidates = all_candidates and k in candidates
            paragraph.append(k)
        elif paragraph:
            if all_candidates:
                runs[-1].append(paragraph)
            elif runs[-1]:
                runs.append([])
            paragraph, all_candidates = [], True
    return [run for run in runs if run]


def _boilerplate(stripped: Sequence[str], run: list[Paragraph]) -> list[int]:
    """Returns the indices of the lines of a run that are removed."""
    begins_document = not any(stripped[: run[0][0]])
    ends_document = not any(stripped[run[-1][-1] + 1 :])
    if not ends_document and not _is_sentence(stripped, run[-1]):
        run = run[:-1]  # a heading belongs to the text after it
    while run and stripped[run[-1][-1]].endswith(_INTRODUCTION_ENDS):
        run = run[:-1]
    distinct = {stripped[k] for paragraph in run for k in paragraph}
    # A line with a number may be data: "electrification: 100%".
    is_menu = len(distinct) >= _MIN_MENU_LINES and not any(map(_DIGIT.search, distinct))
    is_menu = is_menu and sum(map(len, distinct)) >= _MIN_MENU_CHARACTERS
    is_boilerplate = (
        begins_document or ends_document or is_menu or any(_is_sentence(stripped, p) for p in run)
    )
    return [k for paragraph in run for k in paragraph] if is_boilerplate else []


def _is_sentence(stripped: Sequence[str], paragraph: Paragraph) -> bool:
    """Returns whether a paragraph is a sentence: a capital, an end mark and at least four words."""
    text = " ".join([stripped[k] for k in paragraph])
    first = next((c for c in text if c.isalpha()), "a")
    return (
        not first.islower()
        and bool(_SENTENCE.search(text))
        and len(text.split()) >= _MIN_SENTENCE_WORDS
    )

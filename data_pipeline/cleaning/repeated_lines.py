"""Lines that many documents of one source have: menus, notices, the frame of a template's pages.

A line counts once for each document that has it. That is a sum, so the counts of shards are added,
and neither shards nor their order nor the partitions of the hash space change the result: a line
that is alone in its shard is kept in the count too, since other shards may have it.

Not every repeated line is boilerplate. "Population" heads a section in every country's page, and
"By the end of this section, you will be able to:" introduces what differs. So a line goes only in
a *run* of whole paragraphs that are all repeated, if there is a sentence in it, or three different
lines, or if it begins or ends the document. A heading or a colon at the end of a run stays, since
it introduces what follows. Code, tables and indented lines stay.

>>> page = "Toggle the menu\\n\\nSkip to the text.\\n\\nHares {}\\n\\nAll rights reserved."
>>> pages = [page.format(k) for k in range(9)]
>>> counts = LineCounts.of((page, "web") for page in pages)
>>> repeated = merge([counts], {"web": 5})["web"]
>>> without(pages[3], repeated, "web")
('Hares 3', [('Toggle the menu', 9), ('Skip to the text.', 9), ('All rights reserved.', 9)])

Memory: a shard's count has 16 bytes for each distinct line of a source in it (hash, number of
documents, source), about 100 while it is made (a dictionary entry). Merging holds the entries of
all shards in one partition of the hash space, 16 bytes each and three times that while it sorts.
10^12 tokens (5 TB, about 5 * 10^10 lines of 100 bytes) have 0.8 TB of counts at most; 4096
partitions of them take 0.2 GB each, 0.6 GB while one is merged.
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

MIN_CHARACTERS = 4  # of a line: "Home"
_MIN_RUN = 3  # different lines
_MIN_RUN_CHARACTERS = 30
_MIN_LETTERS = 0.5  # of a line's characters
_MIN_SENTENCE = 4  # words
_SENTENCE = re.compile(r"[.!?][\"”’'*_]*\Z|\A\(.*[.!?]\)\Z")  # not "(2022 est.)"
_INTRODUCES = (":", ",", ";", "-", "–", "—")  # or goes on in the next line
_DIGIT = re.compile(r"\d")
_MARKUP = re.compile(r"[|`~<>{}\\:=$%@+]|\.\. |#!|\d+[.)]|[-*] \[[ xX]\]")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")

Paragraph = list[int]  # the numbers of its lines

# line hash -> number of documents
Repeated = Mapping[int, int]


@dataclass(slots=True)
class LineCounts:
    """In how many documents each line is: `hashes_L` ascending, `documents_L`, `source_L`.

    `sources[source_L[i]]` is the source of line i; its hash is of the source and the line, so that
    each source has its own.
    """

    sources: list[str]
    hashes_L: U64
    documents_L: NDArray[np.uint32]
    source_L: NDArray[np.uint32]

    @classmethod
    def of(cls, documents: Iterable[tuple[str, str]]) -> LineCounts:
        """Counts (text, source) of documents."""
        found: dict[str, Counter[int]] = {}
        for text, source in documents:
            found.setdefault(source, Counter()).update(set(_hashes(text, source)) - {0})
        number = {source: k for k, source in enumerate(found)}
        sizes = [len(counter) for counter in found.values()]
        hashes_L = np.fromiter((key for c in found.values() for key in c), np.uint64, sum(sizes))
        documents_L = np.fromiter((n for c in found.values() for n in c.values()), np.uint32)
        source_L = np.repeat(np.array(list(number.values()), np.uint32), sizes)
        order = np.argsort(hashes_L)
        return cls(list(found), hashes_L[order], documents_L[order], source_L[order])

    def part(self, number: int, partitions: int) -> LineCounts:
        """The lines whose hashes lie in the `number`th of so many equal parts of the hash space."""
        edges = [number * 2**64 // partitions, (number + 1) * 2**64 // partitions]
        first, last = (
            len(self.hashes_L)
            if edge == 2**64
            else int(np.searchsorted(self.hashes_L, np.uint64(edge)))
            for edge in edges
        )
        return LineCounts(
            self.sources,
            self.hashes_L[first:last],
            self.documents_L[first:last],
            self.source_L[first:last],
        )

    def save(self, path: Path) -> None:
        write_arrays(
            path,
            sources=np.array(self.sources, np.str_),
            hashes=self.hashes_L,
            documents=self.documents_L,
            source=self.source_L,
        )

    @classmethod
    def load(cls, path: Path) -> LineCounts:
        arrays = read_arrays(path)
        names = [str(name) for name in arrays["sources"]]
        return cls(names, arrays["hashes"], arrays["documents"], arrays["source"])


def merge(parts: Iterable[LineCounts], least: Mapping[str, int]) -> dict[str, dict[int, int]]:
    """Source -> hash -> documents, of the lines that at least `least[source]` documents have.

    `parts` are counts of one partition, each of other documents.
    """
    names = sorted(least)
    number = {name: k for k, name in enumerate(names)}
    hashes, documents, sources = (
        [np.empty(0, np.uint64)],
        [np.empty(0, np.uint32)],
        [np.empty(0, np.uint32)],
    )
    for part in parts:
        ours = np.array([number[name] for name in part.sources], np.uint32)
        hashes.append(part.hashes_L)
        documents.append(part.documents_L)
        sources.append(ours[part.source_L] if len(ours) else part.source_L)
    all_L = np.concatenate(hashes)
    order = np.argsort(all_L, kind="stable")
    first_L, starts = np.unique(all_L[order], return_index=True)
    repeated: dict[str, dict[int, int]] = {name: {} for name in names}
    if not len(starts):
        return repeated
    total_L = np.add.reduceat(np.concatenate(documents)[order].astype(np.int64), starts)
    source_L = np.concatenate(sources)[order][starts]
    enough_L = total_L >= np.array([least[name] for name in names])[source_L]
    for key, count, source in zip(
        first_L[enough_L].tolist(),
        total_L[enough_L].tolist(),
        source_L[enough_L].tolist(),
        strict=True,
    ):
        repeated[names[source]][key] = count
    return repeated


def line_hash(source: str, line: str) -> int:
    """64 bits; `line` is stripped."""
    return xxhash.xxh3_64_intdigest(line.encode("utf-8", "surrogatepass"), _seed(source))


def without(text: str, repeated: Repeated, source: str) -> tuple[str, list[tuple[str, int]]]:
    """The text without its boilerplate, and what went, in order: (stripped line, documents)."""
    hashes = _hashes(text, source)
    if repeated.keys().isdisjoint(hashes):
        return text, []
    whole = text.split("\n")
    fenced = _fenced(whole) if may_have_fences(text) else set()
    plain = {
        k
        for k, key in enumerate(hashes)
        if key in repeated and k not in fenced and _is_plain(whole[k])
    }
    if not plain:
        return text, []
    bare = [line.strip() for line in whole]
    gone: set[int] = set()
    for run in _runs(bare, plain):
        gone.update(_boilerplate(bare, run))
    if not gone:
        return text, []
    kept = "\n".join(line for k, line in enumerate(whole) if k not in gone)
    return kept.strip("\n"), [(bare[k], repeated[hashes[k]]) for k in sorted(gone)]


@cache
def _seed(source: str) -> int:
    return xxhash.xxh3_64_intdigest(source.encode())


def _hashes(text: str, source: str) -> list[int]:
    """Of each line; 0 of those that are too short to be boilerplate."""
    seed, digest = _seed(source), xxhash.xxh3_64_intdigest
    if text.isascii():  # then bytes are characters, and quicker
        return [
            digest(line, seed) if len(line) >= MIN_CHARACTERS else 0
            for line in map(bytes.strip, text.encode().split(b"\n"))
        ]
    return [
        digest(line.encode("utf-8", "surrogatepass"), seed) if len(line) >= MIN_CHARACTERS else 0
        for line in map(str.strip, text.split("\n"))
    ]


def _fenced(whole: Sequence[str]) -> set[int]:
    """The numbers of the lines of fenced code, with the fence above it and not the one below."""
    found: set[int] = set()
    inside = False
    for k, line in enumerate(whole):
        inside ^= bool(_FENCE.match(line))
        if inside:
            found.add(k)
    return found


def _is_plain(line: str) -> bool:
    """No code, table or the like."""
    bare = line.strip()
    return (
        not line.startswith(("    ", "\t"))
        and not _MARKUP.match(bare)
        and sum(map(str.isalpha, bare)) >= _MIN_LETTERS * len(bare)
    )


def _runs(bare: Sequence[str], plain: Set[int]) -> list[list[Paragraph]]:
    """The longest runs of paragraphs all of whose lines are plain; `plain`: their numbers."""
    runs: list[list[Paragraph]] = [[]]
    paragraph: Paragraph = []
    is_run = True
    for k, line in enumerate([*bare, ""]):
        if line:
            is_run = is_run and k in plain
            paragraph.append(k)
        elif paragraph:
            if is_run:
                runs[-1].append(paragraph)
            elif runs[-1]:
                runs.append([])
            paragraph, is_run = [], True
    return [run for run in runs if run]


def _boilerplate(bare: Sequence[str], run: list[Paragraph]) -> list[int]:
    """The numbers of those lines of a run that go."""
    begins = not any(bare[: run[0][0]])
    ends = not any(bare[run[-1][-1] + 1 :])
    if not ends and not _is_sentence(bare, run[-1]):
        run = run[:-1]  # a heading belongs to what follows
    while run and bare[run[-1][-1]].endswith(_INTRODUCES):
        run = run[:-1]
    found = {bare[k] for paragraph in run for k in paragraph}
    # A line with a number in it may be data: "electrification: 100%"
    is_menu = len(found) >= _MIN_RUN and not any(map(_DIGIT.search, found))
    is_menu = is_menu and sum(map(len, found)) >= _MIN_RUN_CHARACTERS
    whole = begins or ends or is_menu or any(_is_sentence(bare, p) for p in run)
    return [k for paragraph in run for k in paragraph] if whole else []


def _is_sentence(bare: Sequence[str], paragraph: Paragraph) -> bool:
    text = " ".join([bare[k] for k in paragraph])
    first = next((c for c in text if c.isalpha()), "a")
    return (
        not first.islower() and bool(_SENTENCE.search(text)) and len(text.split()) >= _MIN_SENTENCE
    )

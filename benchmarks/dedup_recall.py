"""Measures how many planted near copies deduplication finds, by kind and amount of change.

    python -m benchmarks.dedup_recall FOLDER            a folder of .jsonl, .jsonl.gz, .jsonl.zst
    python -m benchmarks.dedup_recall                   the sources of this Python installation

Takes --documents (1000) distinct texts of 100 to 2000 words, plants one changed copy of each, and
deduplicates all of them, once per kind of change. Columns:

    same     share of pairs whose exact Jaccard similarity reaches the threshold
    theory   mean over the pairs of 1 - (1 - J^rows)^bands: the probability that LSH proposes them
    lsh      share of pairs that datasketch's LSH returns for the same signatures
    found    share of pairs that deduplication connects
    of same  share found of the pairs that reach the threshold
    missed   pairs at or above the threshold that datasketch's LSH returns and deduplication misses

The last line deduplicates the unchanged texts alone, which are not copies of each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from benchmarks.corpus import arguments, load
from data_pipeline.config import Deduplication
from data_pipeline.deduplication import candidate_groups, signatures, survivors
from data_pipeline.deduplication.jaccard import jaccard
from data_pipeline.deduplication.minhash import minhash
from data_pipeline.storage.document import Document
from data_pipeline.text.ngrams import U64, ngrams, words

LEAST, MOST = 100, 2000  # words of a text
ORIGINAL, COPY = "original", "copy"

Change = Callable[[random.Random, list[str], Sequence[str]], list[str]]


def edited(share: float) -> Change:
    """Returns a change that replaces a share of the words."""

    def change(rng: random.Random, text: list[str], vocabulary: Sequence[str]) -> list[str]:
        text = text.copy()
        for k in rng.sample(range(len(text)), round(share * len(text))):
            text[k] = rng.choice(vocabulary)
        return text

    return change


def truncated(share: float) -> Change:
    """Returns a change that cuts off the last share of the words."""
    return lambda rng, text, vocabulary: text[: len(text) - round(share * len(text))]


def inserted(share: float) -> Change:
    """Returns a change that inserts other words in one place."""

    def change(rng: random.Random, text: list[str], vocabulary: Sequence[str]) -> list[str]:
        at = rng.randrange(len(text) + 1)
        return [*text[:at], *rng.choices(vocabulary, k=round(share * len(text))), *text[at:]]

    return change


def rewrapped(rng: random.Random, text: list[str], vocabulary: Sequence[str]) -> list[str]:
    """Changes line breaks, letter case and quotation marks."""
    return [f"{word.upper()}\n" if rng.random() < 0.2 else f'"{word}"' for word in text]


CHANGES: dict[str, Change] = {
    **{f"{share} % of words edited": edited(share / 100) for share in (0, 1, 2, 3, 5, 10)},
    **{f"last {share} % cut off": truncated(share / 100) for share in (10, 20, 30)},
    **{f"{share} % inserted": inserted(share / 100) for share in (10, 20, 40)},
    "re-wrapped, other case": rewrapped,
}


def different(documents: Sequence[Document], number: int, config: Deduplication) -> list[Document]:
    """Returns `number` texts that share at most a tenth of their n-grams with earlier ones."""
    chosen: list[Document] = []
    seen: set[int] = set()
    for document in documents:
        text = document.text.split()[:MOST]
        if len(text) < LEAST:
            continue
        short = Document(str(len(chosen)), " ".join(text), ORIGINAL, "")
        (own,) = signatures.shingle_sets([short.text], config)
        grams = own.tolist()
        if sum(gram in seen for gram in grams) <= 0.1 * len(grams):
            seen.update(grams)
            chosen.append(short)
        if len(chosen) == number:
            break
    return chosen


def connected(documents: Sequence[Document], config: Deduplication) -> dict[int, str]:
    """Returns {row: id of the survivor} of dropped documents."""
    (keys,) = signatures.compute_signatures(documents, config).by_partition(1)
    linked = candidate_groups.connect([candidate_groups.find_links([(0, keys)])])
    members = survivors.collect_members(documents, linked, config)
    if not members.ids:
        return {}
    decided = survivors.decide([members], [ORIGINAL, COPY], config)[0]
    return {row: evidence["kept"] for row, (_, evidence) in decided.dropped.items()}


def sketches(texts: Sequence[str], config: Deduplication) -> list[MinHash]:
    """Returns datasketch MinHashes with the signatures of this project."""
    found = ngrams(words(texts), config.ngram_words)
    values = minhash(found.hashes_S, found.offsets_D, config)
    return [MinHash(hashvalues=own, scheme="affine32") for own in values]


def measure(
    originals: list[Document], change: Change, vocabulary: Sequence[str], config: Deduplication
) -> tuple[list[float], int]:
    """Returns the columns of one kind of change."""
    rng = random.Random(0)
    copies = [
        Document(f"{d.id}'", " ".join(change(rng, d.text.split(), vocabulary)), COPY, "")
        for d in originals
    ]
    number = len(originals)
    going = connected([*originals, *copies], config)
    found = np.array([going.get(number + k, "") == str(k) for k in range(number)])
    similarity = np.array(
        [
            float(jaccard(*_pair(one.text, other.text, config))[0])
            for one, other in zip(originals, copies, strict=True)
        ]
    )
    lsh = MinHashLSH(num_perm=config.permutations, params=(config.bands, config.rows))
    for k, sketch in enumerate(sketches([d.text for d in originals], config)):
        lsh.insert(k, sketch)
    returned = np.array(
        [
            k in lsh.query(sketch)
            for k, sketch in enumerate(sketches([d.text for d in copies], config))
        ]
    )
    same = similarity >= config.threshold
    theory = 1 - (1 - similarity**config.rows) ** config.bands
    of_same = float(found[same].mean()) if same.any() else float("nan")
    missed = int((same & returned & ~found).sum())
    shares = [float(column.mean()) for column in (same, theory, returned, found)]
    return [*shares, of_same], missed


def _pair(one: str, other: str, config: Deduplication) -> tuple[U64, list[U64]]:
    """Returns the shingles of two texts."""
    first, second = signatures.shingle_sets([one, other], config)
    return first, [second]


def main() -> None:
    """Parses the options and prints the table."""
    options = arguments(str(__doc__), documents=(1000, "texts that a copy is planted of"))
    config = Deduplication()
    everything = load(options.folder, options.field, options.megabytes)
    originals = different(everything, options.documents, config)
    vocabulary = [word for d in originals[::5] for word in d.text.split()]
    print(
        f"{len(originals)} texts; {config.bands} bands of {config.rows} rows, word "
        f"{config.ngram_words}-grams, threshold {config.threshold}\n"
    )
    print(f"  {'copies':<24} same  theory     lsh   found of same  missed")
    for name, change in CHANGES.items():
        shares, missed = measure(originals, change, vocabulary, config)
        print(f"  {name:<22}" + "".join(f"{share:8.3f}" for share in shares) + f"{missed:8}")
    print(f"\n  unrelated texts: {len(connected(originals, config))} of {len(originals)} merged")


if __name__ == "__main__":
    main()

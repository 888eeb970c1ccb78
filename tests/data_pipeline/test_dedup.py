"""Signatures equal datasketch's, nothing that its LSH finds is missed, order does not matter."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from data_pipeline.config import Deduplication
from data_pipeline.curation import dedup
from data_pipeline.curation.minhash import band_keys, minhash
from data_pipeline.document import Document, Dropped
from data_pipeline.ngrams import U64, ngrams, words

CONFIG = Deduplication()
WORDS = [f"w{k}" for k in range(3000)]


def document(id: str, text: str, source: str = "web") -> Document:
    return Document(id, text, source, source)


def random_words(rng: random.Random, number: int) -> list[str]:
    return [rng.choice(WORDS) for _ in range(number)]


def edited(rng: random.Random, text: str, edits: int) -> str:
    changed = text.split()
    for _ in range(edits):
        changed[rng.randrange(len(changed))] = rng.choice(WORDS)
    return " ".join(changed)


def families(seed: int, number: int = 40) -> list[Document]:
    """Documents with copies that differ in 0 to 12 of some 120 words, mostly in few."""
    rng = random.Random(seed)
    made = []
    for family in range(number):
        text = " ".join(random_words(rng, rng.randrange(60, 180)))
        for copy in range(rng.randrange(1, 6)):
            changed = edited(rng, text, rng.choice((0, 1, 2, 3, 4, 6, 12)))
            made.append(document(f"{family}/{copy}", changed, rng.choice(("a", "b", "c"))))
    rng.shuffle(made)
    return made


def decide(
    shards: Sequence[Sequence[Document]],
    order: Sequence[str] = ("a", "b", "c"),
    config: Deduplication = CONFIG,
) -> list[list[Document | Dropped]]:
    tables = [dedup.signatures(shard, config) for shard in shards]

    def shingles_of(shard: int, rows: list[int]) -> list[U64]:
        return dedup.shingles(shards[shard], rows, config)

    decisions = dedup.find_duplicates(tables, shingles_of, order, config)
    answers = []
    for shard, decided in zip(shards, decisions, strict=True):
        answer: Callable[[int, Document], Document | Dropped] = dedup.build(decided)
        answers.append([answer(row, d) for row, d in enumerate(shard)])
    return answers


def outcome(answers: list[list[Document | Dropped]]) -> dict[str, tuple[str, object]]:
    """id -> what became of it."""
    return {
        (a.document if isinstance(a, Dropped) else a).id: (
            (a.reason, tuple(a.evidence.items())) if isinstance(a, Dropped) else ("kept", "")
        )
        for shard in answers
        for a in shard
    }


# ---- Signatures


@pytest.mark.parametrize(("seed", "permutations"), [(1, 128), (7, 64)])
def test_signatures_are_bit_identical_to_datasketch(seed: int, permutations: int) -> None:
    config = Deduplication(seed=seed, permutations=permutations, bands=4, rows=4)
    rng = random.Random(0)
    texts = [" ".join(random_words(rng, n)) for n in (1, 3, 5, 6, 50, 2000, 80_000, 1)]
    found = ngrams(words(texts), config.ngram_words)
    ours = minhash(found.hashes_S, found.offsets_D, config)
    assert ours.dtype == np.uint32
    shingles = [
        (h >> np.uint64(32)).tolist() for h in np.split(found.hashes_S, found.offsets_D[1:-1])
    ]
    theirs = MinHash.bulk(
        shingles, num_perm=permutations, seed=seed, scheme="affine32", hashfunc=lambda h: h
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine, other.hashvalues)


def test_every_pair_that_datasketch_lsh_finds_shares_a_band_key() -> None:
    texts = [d.text for d in families(3)]
    found = ngrams(words(texts), CONFIG.ngram_words)
    signature = minhash(found.hashes_S, found.offsets_D, CONFIG)
    keys = band_keys(signature, CONFIG)
    lsh = MinHashLSH(num_perm=CONFIG.permutations, params=(CONFIG.bands, CONFIG.rows))
    sketches = [MinHash(hashvalues=s, scheme="affine32") for s in signature]
    for k, sketch in enumerate(sketches):
        lsh.insert(k, sketch)
    theirs = {(i, j) for i, s in enumerate(sketches) for j in lsh.query(s) if i != j}
    ours = {
        (int(i), int(j))
        for i, j in np.argwhere((keys[:, None] == keys[None]).any(axis=2))
        if i != j
    }
    assert len(theirs) > 20
    assert ours == theirs


def test_a_text_without_words_has_a_signature_of_its_own() -> None:
    answers = outcome(
        decide([[document("1", "..."), document("2", "?!"), document("3", " . . .\n")]])
    )
    assert [reason for reason, _ in answers.values()] == ["exact_duplicate", "kept", "kept"]


def test_signatures_of_a_shard_survive_saving_in_the_same_bytes(tmp_path: Path) -> None:
    table = dedup.signatures(families(1), CONFIG)
    for name in ("a.npz", "b.npz"):
        table.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    loaded = dedup.Signatures.load(tmp_path / "a.npz")
    assert (loaded.ids, loaded.sources) == (table.ids, table.sources)
    for field in ("exact_N2", "bands_NB", "length_N"):
        assert np.array_equal(getattr(loaded, field), getattr(table, field)), field


def test_a_signature_does_not_depend_on_the_batch() -> None:
    documents = families(2)
    together = dedup.signatures(documents, CONFIG)
    alone = [dedup.signatures([d], CONFIG) for d in documents]
    assert np.array_equal(together.bands_NB, np.concatenate([t.bands_NB for t in alone]))
    assert np.array_equal(together.exact_N2, np.concatenate([t.exact_N2 for t in alone]))


# ---- Decisions


def jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[str]:
        split = text.split()
        return {" ".join(split[k : k + 5]) for k in range(max(1, len(split) - 4))}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("seed", range(4))
def test_no_pair_above_the_threshold_that_datasketch_finds_survives(seed: int) -> None:
    documents = families(seed)
    found = ngrams(words([d.text for d in documents]), CONFIG.ngram_words)
    signature = minhash(found.hashes_S, found.offsets_D, CONFIG)
    lsh = MinHashLSH(num_perm=CONFIG.permutations, params=(CONFIG.bands, CONFIG.rows))
    sketches = [MinHash(hashvalues=s, scheme="affine32") for s in signature]
    for k, sketch in enumerate(sketches):
        lsh.insert(k, sketch)
    kept = {a.id for a in decide([documents])[0] if isinstance(a, Document)}
    found_pairs = 0
    for i, sketch in enumerate(sketches):
        for j in lsh.query(sketch):
            if i < j and jaccard(documents[i].text, documents[j].text) >= CONFIG.threshold:
                found_pairs += 1
                assert not {documents[i].id, documents[j].id} <= kept
    assert found_pairs > 10


def test_nothing_below_the_threshold_is_dropped_alone() -> None:
    """Candidates are verified: two documents that share bands but not enough n-grams both stay."""
    rng = random.Random(5)
    config = Deduplication(bands=64, rows=2)
    pairs = []
    for k in range(40):
        text = " ".join(random_words(rng, 100))
        other = edited(rng, text, 8)
        if jaccard(text, other) < config.threshold:
            pairs.append([document(f"{k}a", text, "a"), document(f"{k}b", other, "b")])
    tables = [dedup.signatures(pair, config) for pair in pairs]
    shared = sum((t.bands_NB[0] == t.bands_NB[1]).any() for t in tables)
    assert shared > 10, "the test needs candidates"
    assert all(isinstance(a, Document) for pair in decide(pairs, config=config) for a in pair)


def test_evidence_is_the_exact_similarity_to_the_survivor() -> None:
    rng = random.Random(11)
    text = " ".join(random_words(rng, 200))
    other = edited(rng, text, 3)
    _, dropped = decide([[document("1", text, "a"), document("2", other, "b")]])[0]
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "near_duplicate"
    assert dropped.evidence == {"kept": "1", "jaccard": round(jaccard(text, other), 4)}


@pytest.mark.parametrize("seed", range(3))
def test_decisions_do_not_depend_on_order_or_division_into_shards(seed: int) -> None:
    documents = families(seed)
    expected = outcome(decide([documents]))
    assert {reason for reason, _ in expected.values()} >= {"kept", "near_duplicate"}
    rng = random.Random(seed + 100)
    for number in (1, 3, 7):
        shuffled = documents.copy()
        rng.shuffle(shuffled)
        cuts = sorted(rng.randrange(len(shuffled)) for _ in range(number - 1))
        shards = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
        assert outcome(decide(shards)) == expected


def test_a_chain_of_near_duplicates_has_one_survivor() -> None:
    rng = random.Random(2)
    texts = [" ".join(random_words(rng, 150))]
    while len(texts) < 12:
        texts.append(edited(rng, texts[-1], 1))
    assert jaccard(texts[0], texts[-1]) < CONFIG.threshold, "the ends must not match directly"
    answers = outcome(decide([[document(str(k), text) for k, text in enumerate(texts)]]))
    assert sum(reason == "kept" for reason, _ in answers.values()) == 1


def test_the_earliest_source_survives_then_the_longest_then_the_smallest_id() -> None:
    text = " ".join(WORDS[:80])
    cases = [
        ([("9", text, "b"), ("1", text + " more words here", "c")], "9"),
        ([("1", text, "x"), ("2", text, "c")], "2"),  # x is not in the order: it comes last
        ([("1", text, "a"), ("2", text + " more", "a")], "2"),
        ([("2", text, "a"), ("1", text, "a")], "1"),
    ]
    for made, survivor in cases:
        answers = outcome(decide([[document(*m) for m in made]]))
        assert [id for id, (reason, _) in answers.items() if reason == "kept"] == [survivor]


def test_equal_texts_up_to_white_space_are_exact_duplicates() -> None:
    text = " ".join(WORDS[:30])
    answers = outcome(
        decide([[document("1", text), document("2", text.replace(" ", "\n  ") + "\n")]])
    )
    # The second is longer and therefore survives.
    assert answers["1"] == ("exact_duplicate", (("kept", "2"), ("jaccard", 1.0)))


def test_same_words_in_other_layout_are_near_duplicates_and_short_texts_count() -> None:
    answers = outcome(
        decide(
            [[document("1", "The hare ran"), document("2", "the hare, ran!"), document("3", "x")]]
        )
    )
    assert answers["1"][0] == "near_duplicate"
    assert answers["2"][0] == answers["3"][0] == "kept"


def test_an_id_that_is_taken_by_another_text_gets_a_new_name() -> None:
    one, two, three, four = (" ".join(WORDS[k : k + 50]) for k in (0, 100, 200, 300))
    shards = [
        [
            document("x", two, "b"),
            document("x~2", three, "c"),
            document("x", two, "c"),
            document("x", four, "c"),
        ],
        [document("x", one, "a")],
    ]
    first, second = decide(shards)
    assert second[0] == shards[1][0]  # the earliest source keeps the id
    assert isinstance(first[0], Document)
    assert (first[0].id, first[0].text, first[0].meta) == ("x~3", two, {"renamed_from": "x"})
    assert shards[0][0].id == "x", "the input is not changed"
    assert first[1] == shards[0][1]
    assert isinstance(first[2], Dropped)
    assert first[2].evidence["kept"] == "x~3"
    assert isinstance(first[3], Document)
    assert first[3].id == "x~4"


def bucket(sets: list[list[int]]) -> list[list[int]]:
    """Groups of documents with these n-gram sets, all of which share all bands."""
    number = len(sets)
    table = dedup.Signatures(
        exact_N2=np.arange(2 * number, dtype=np.uint64).reshape(-1, 2),
        bands_NB=np.zeros((number, CONFIG.bands), np.uint64),
        length_N=np.full(number, 10),
        ids=[f"{k:03}" for k in range(number)],
        sources=["web"] * number,
    )
    arrays = [np.array(sorted(s), np.uint64) for s in sets]
    (decided,) = dedup.find_duplicates(
        [table], lambda _, rows: [arrays[row] for row in rows], [], CONFIG
    )
    groups: dict[int, list[int]] = {k: [k] for k in range(number) if k not in decided.dropped}
    for row, (_, evidence) in sorted(decided.dropped.items()):
        groups[int(evidence["kept"])].append(row)
    return sorted(groups.values())


def test_every_pair_of_a_bucket_is_looked_at() -> None:
    a, b = list(range(100)), list(range(1000, 1100))
    assert bucket([a, b, b]) == [[0], [1, 2]]
    assert bucket([b, a, b, a, [7]]) == [[0, 2], [1, 3], [4]]


@pytest.mark.parametrize(("size", "joined"), [(70, True), (69, False)])
def test_the_threshold_is_a_least_similarity(size: int, joined: bool) -> None:
    assert bucket([list(range(100)), list(range(size))]) == ([[0, 1]] if joined else [[0], [1]])


def test_groups_are_connected_components() -> None:
    rng = random.Random(8)
    sets = [rng.sample(range(60), rng.randrange(40, 60)) for _ in range(120)]
    alike = [[len({*a} & {*b}) / len({*a} | {*b}) >= CONFIG.threshold for a in sets] for b in sets]
    group = list(range(len(sets)))
    for _ in sets:  # the smallest number spreads until nothing changes
        group = [min(g for g, near in zip(group, row, strict=True) if near) for row in alike]
    expected = [[k for k, g in enumerate(group) if g == root] for root in sorted({*group})]
    assert 3 < len(expected) < 110
    assert bucket(sets) == expected


def test_decisions_survive_json() -> None:
    documents = families(6)
    documents.append(document(documents[0].id, "another text of the same id"))
    table = dedup.signatures(documents, CONFIG)
    (decided,) = dedup.find_duplicates(
        [table], lambda _, rows: dedup.shingles(documents, rows, CONFIG), [], CONFIG
    )
    assert decided.dropped
    assert decided.renamed
    assert dedup.Decisions.from_json(decided.to_json()) == decided


def test_no_documents_no_decisions() -> None:
    assert decide([]) == []
    assert decide([[], [document("1", "a b c")], []]) == [[], [document("1", "a b c")], []]


def test_only_documents_that_share_a_band_are_read_again() -> None:
    rng = random.Random(4)
    text = " ".join(random_words(rng, 100))
    shards = [
        [document("1", " ".join(random_words(rng, 100))), document("2", text)],
        [document("3", " ".join(random_words(rng, 100)))],
        [document("4", text + " end"), document("5", text)],
    ]
    asked = {}

    def shingles_of(shard: int, rows: list[int]) -> list[U64]:
        asked[shard] = rows
        return dedup.shingles(shards[shard], rows, CONFIG)

    dedup.find_duplicates(
        [dedup.signatures(shard, CONFIG) for shard in shards], shingles_of, [], CONFIG
    )
    assert asked == {0: [1], 2: [0]}  # "5" is an exact copy of "2"


def test_a_shard_that_is_not_the_signed_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row 3"):
        dedup.shingles([document("1", "a b c")], [0, 3], CONFIG)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Deduplication(bands=20, rows=9), "need at least 180 permutations, got 128"),
        (Deduplication(rows=0), "rows"),
        (Deduplication(threshold=0.0), "threshold"),
        (Deduplication(threshold=70), "at most 1"),
    ],
)
def test_settings_that_cannot_be_computed_are_refused(config: Deduplication, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dedup.signatures([], config)

"""Signatures equal datasketch's, nothing that its LSH finds is missed, order does not matter."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from data_pipeline.config import Deduplication
from data_pipeline.deduplication import candidate_groups, signatures, survivors
from data_pipeline.deduplication.minhash import band_keys, minhash
from data_pipeline.deduplication.signatures import Decisions
from data_pipeline.deduplication.survivors import Members
from data_pipeline.execution.shuffle_file import pack_arrays, partition_of, unpack_arrays
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text.ngrams import ngrams, words

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


def connect(
    shards: Sequence[Sequence[Document]], config: Deduplication, partitions: int
) -> candidate_groups.Groups:
    signed = [
        signatures.compute_signatures(shard, config).by_partition(partitions) for shard in shards
    ]
    return candidate_groups.connect(
        candidate_groups.find_links(
            (k, unpack_arrays(pack_arrays(parts[p]))) for k, parts in enumerate(signed)
        )
        for p in range(partitions)
    )


def find(
    shards: Sequence[Sequence[Document]],
    order: Sequence[str] = ("a", "b", "c"),
    config: Deduplication = CONFIG,
    partitions: int = 1,
) -> list[Decisions]:
    """All steps in memory, as deduplication/stage.py takes them over files."""
    connected = connect(shards, config, partitions)
    tables = []
    for number, shard in enumerate(shards):
        own = connected.select(connected.shard_M() == number)
        tables.append(survivors.collect_members(shard, own, config))
    decisions = [Decisions() for _ in shards]
    for p in range(partitions):
        chosen = [
            table.select(
                np.flatnonzero(partition_of(table.groups.decision_root_M, partitions) == p)
            )
            for table in tables
        ]
        read_again = [
            Members.from_arrays(unpack_arrays(pack_arrays(t.to_arrays())) or {})
            for t in chosen
            if t.ids
        ]
        for shard, decided in survivors.decide(read_again, order, config).items():
            decisions[shard].add(decided)
    return decisions


def decide(
    shards: Sequence[Sequence[Document]],
    order: Sequence[str] = ("a", "b", "c"),
    config: Deduplication = CONFIG,
    partitions: int = 1,
) -> list[list[Document | Dropped]]:
    answers = []
    for shard, decided in zip(shards, find(shards, order, config, partitions), strict=True):
        answer = decided.apply
        answers.append([answer(row, d) for row, d in enumerate(shard)])
    return answers


def outcome(answers: list[list[Document | Dropped]]) -> dict[str, tuple[str, object]]:
    """Returns what became of each document, by id."""
    return {
        (a.document if isinstance(a, Dropped) else a).id: (
            (a.reason, tuple(a.evidence.items())) if isinstance(a, Dropped) else ("kept", "")
        )
        for shard in answers
        for a in shard
    }


def survivors_of(answers: list[list[Document | Dropped]]) -> dict[str, str]:
    """Returns the id of the document that survives for each dropped one, by id."""
    return {
        (a.document.id if isinstance(a, Dropped) else a.id): (
            a.evidence["kept"] if isinstance(a, Dropped) else a.id
        )
        for shard in answers
        for a in shard
    }


# ---- Signatures


@pytest.mark.parametrize(
    ("seed", "permutations"), [(1, 64), (1, 128), (1, 256), (7, 64), (0, 128), (2**32 - 1, 256)]
)
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


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_every_key_is_in_one_partition_and_equal_keys_in_the_same(partitions: int) -> None:
    documents = families(1)
    signed = signatures.compute_signatures(documents, CONFIG)
    parts = signed.by_partition(partitions)
    assert [pack_arrays(part) for part in parts] == [
        pack_arrays(part) for part in signed.by_partition(partitions)
    ]
    for kind, all_keys in (("bands", signed.bands_NB), ("names", signed.names_N[:, None])):
        found = [
            (int(row), int(key))
            for part in parts
            for row, key in zip(part[f"{kind}_rows"], part[f"{kind}_keys"], strict=True)
        ]
        assert sorted(found) == sorted(
            (row, int(key)) for row, keys in enumerate(all_keys) for key in keys
        )
        of_part = [{*part[f"{kind}_keys"].tolist()} for part in parts]
        assert sum(map(len, of_part)) == len(set().union(*of_part))
    shares = [len(part["bands_keys"]) * partitions / signed.bands_NB.size for part in parts]
    assert min(shares) > 0.7
    exact = {tuple(row) for part in parts for row in part["exact_keys"].tolist()}
    assert exact == {tuple(row) for row in signed.exact_N2.tolist()}


def test_a_signature_does_not_depend_on_the_batch() -> None:
    documents = families(2)
    together = signatures.compute_signatures(documents, CONFIG)
    alone = [signatures.compute_signatures([d], CONFIG) for d in documents]
    assert np.array_equal(together.bands_NB, np.concatenate([t.bands_NB for t in alone]))
    assert np.array_equal(together.exact_N2, np.concatenate([t.exact_N2 for t in alone]))
    assert np.array_equal(together.names_N, np.concatenate([t.names_N for t in alone]))


# ---- Decisions


def jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[str]:
        split = text.split()
        return {" ".join(split[k : k + 5]) for k in range(max(1, len(split) - 4))}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("seed", range(4))
def test_no_pair_above_the_threshold_that_datasketch_finds_is_missed(seed: int) -> None:
    documents = families(seed)
    texts = [d.text for d in documents]
    found = ngrams(words(texts), CONFIG.ngram_words)
    signature = minhash(found.hashes_S, found.offsets_D, CONFIG)
    lsh = MinHashLSH(num_perm=CONFIG.permutations, params=(CONFIG.bands, CONFIG.rows))
    sketches = [MinHash(hashvalues=s, scheme="affine32") for s in signature]
    for k, sketch in enumerate(sketches):
        lsh.insert(k, sketch)
    survivor = survivors_of(decide([documents[0::2], documents[1::2]], partitions=3))
    found_pairs = 0
    for i, sketch in enumerate(sketches):
        for j in lsh.query(sketch):
            if i < j and jaccard(texts[i], texts[j]) >= CONFIG.threshold:
                found_pairs += 1
                assert survivor[documents[i].id] == survivor[documents[j].id]
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
    tables = [signatures.compute_signatures(pair, config) for pair in pairs]
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
def test_decisions_do_not_depend_on_order_shards_or_partitions(seed: int) -> None:
    documents = families(seed)
    expected = outcome(decide([documents]))
    assert {reason for reason, _ in expected.values()} >= {"kept", "near_duplicate"}
    rng = random.Random(seed + 100)
    for number, partitions in ((1, 7), (3, 1), (7, 2), (5, 40)):
        shuffled = documents.copy()
        rng.shuffle(shuffled)
        cuts = sorted(rng.randrange(len(shuffled)) for _ in range(number - 1))
        shards = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]
        assert outcome(decide(shards, partitions=partitions)) == expected


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


def test_decisions_survive_json() -> None:
    documents = families(6)
    documents.append(document(documents[0].id, "another text of the same id"))
    (decided,) = find([documents])
    assert decided.dropped
    assert decided.renamed
    assert Decisions.from_json(decided.to_json()) == decided


def test_no_documents_no_decisions() -> None:
    assert decide([]) == []
    assert decide([[], [document("1", "a b c")], []]) == [[], [document("1", "a b c")], []]


def test_only_candidates_are_compared_and_copies_once() -> None:
    rng = random.Random(4)
    text = " ".join(random_words(rng, 100))
    shards = [
        [document("1", " ".join(random_words(rng, 100))), document("2", text)],
        [document("3", " ".join(random_words(rng, 100)))],
        [document("4", text + " end"), document("5", text), document("3~2", "as 3 by its id")],
    ]
    connected = connect(shards, CONFIG, 2)
    places = list(zip(connected.shard_M().tolist(), connected.row_M().tolist(), strict=True))
    assert places == [(0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert connected.needs_jaccard_M.tolist() == [True, False, True, False, False]
    assert len({*connected.candidate_root_M.tolist()}) == 3
    assert len({*connected.decision_root_M.tolist()}) == 2
    last = survivors.collect_members(shards[2], connected.select(connected.shard_M() == 2), CONFIG)
    assert [len(own) for own in last.sets] == [97, 0, 0]


def test_a_shard_is_read_no_further_than_its_last_member() -> None:
    none = candidate_groups.Groups.from_arrays(None)

    def unread() -> list[Document]:
        raise AssertionError("a document was read")
        yield

    assert survivors.collect_members(unread(), none, CONFIG).ids == []


def test_a_shard_that_is_not_the_signed_one_is_an_error() -> None:
    text = " ".join(WORDS[:50])
    shard = [document("1", text), document("2", "x"), document("3", text)]
    with pytest.raises(
        ValueError, match="no row 2: it has changed since its signatures were computed"
    ):
        survivors.collect_members(shard[:2], connect([shard], CONFIG, 1), CONFIG)


def test_equal_characters_in_other_words_are_not_copies() -> None:
    """Else which of them stood for both would depend on the shards, and so would the result."""
    one, other = (
        document(id, text)
        for id, text in (("1", "the rapist of words"), ("2", "therapist of words"))
    )
    assert outcome(decide([[one, other]]))["1"][0] == "kept"
    assert outcome(decide([[one, other]]))["2"][0] == "kept"


def brute_force(documents: Sequence[Document], order: Sequence[str]) -> dict[str, str]:
    """Returns survivors by id, over all pairs: connected if they share a band and are similar.

    With one row a band and as many bands as permutations, similar pairs that share no band are out
    of the question.
    """
    group = list(range(len(documents)))
    for i, one in enumerate(documents):
        for j, other in enumerate(documents[:i]):
            if jaccard(one.text, other.text) >= CONFIG.threshold and group[i] != group[j]:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    rank = sorted(
        range(len(documents)),
        key=lambda k: (
            order.index(documents[k].source),
            -len(documents[k].text),
            documents[k].id,
        ),
    )
    best: dict[int, str] = {}
    for k in rank:
        best.setdefault(group[k], documents[k].id)
    return {documents[k].id: best[group[k]] for k in range(len(documents))}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("partitions", [1, 3])
def test_decisions_are_those_of_all_pairs(seed: int, partitions: int) -> None:
    documents = families(seed + 50)
    config = Deduplication(bands=128, rows=1)
    shards = [documents[:50], documents[50:]]
    found = survivors_of(decide(shards, config=config, partitions=partitions))
    assert found == brute_force(documents, ("a", "b", "c"))


def test_new_names_do_not_depend_on_partitions() -> None:
    texts = [" ".join(WORDS[k : k + 50]) for k in range(1000, 2000, 50)]
    ids = ["x", "y", "x~2", "x", "y~2", "z", "x~2", "x", "z~9~9", "z"]
    shards = [[document(id, text)] for id, text in zip(ids, texts, strict=False)]
    names = [
        [d.id for shard in decide(shards, partitions=partitions) for d in shard]
        for partitions in (1, 3, 40)
    ]
    assert names[0] == names[1] == names[2]
    assert {*names[0]} == {*ids, "x~3", "x~4", "x~2~2", "z~2"}

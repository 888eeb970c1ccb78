"""Topics: planted ones are found, and what is found depends on the documents alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import pipeline
from data_pipeline.config import Reading, Recipe, Source, Topics
from data_pipeline.storage.shards import read_rows
from data_pipeline.text import seeded_random
from data_pipeline.topics import clusters
from data_pipeline.topics import model as topics
from data_pipeline.topics.model import NO_TOPIC, TopicModel
from data_pipeline.topics.stage import find_topics
from tests.builders import write_jsonl
from tests.data_pipeline.builders import runner_at

FIELDS = {
    "sea": "tide harbour sailor anchor current whale lighthouse reef",
    "law": "court statute appeal verdict clause tenant contract judge",
    "kitchen": "flour oven butter recipe simmer onion garlic spoon",
    "sky": "planet orbit telescope comet galaxy eclipse gravity moon",
}
COMMON = "people often found that after some years their work had changed because others came along"


def text(name: str, k: int, words: int = 60) -> str:
    """Words of one field among words that all have."""
    random = seeded_random.seeded(0, name, str(k))
    own, common = FIELDS[name].split(), COMMON.split()
    return " ".join(random.choice(own if random.random() < 0.4 else common) for _ in range(words))


def corpus(each: int = 30) -> tuple[list[str], list[str]]:
    names = [name for _ in range(each) for name in FIELDS]
    return [text(name, k) for k, name in enumerate(names)], names


CONFIG = Topics(count=4, dimensions=10)


def test_planted_topics_are_found_and_named() -> None:
    texts, names = corpus()
    model, found = topics.fit(texts, CONFIG)
    answers = topics.build_assign(model, CONFIG)(texts)
    pairs = Counter((name, topic) for name, (topic, _) in zip(names, answers, strict=True))
    assert len(pairs) == len(FIELDS)  # each field is one topic, each topic one field
    for topic in found:
        name = next(n for n, t in pairs if t == topic.number)
        assert set(topic.terms[:5]) <= set(FIELDS[name].split())
        assert names[topic.example] == name
        assert topic.documents == 30
    fresh = [text(name, 1000 + k) for k, name in enumerate(FIELDS)]
    assert {
        (n, t) for n, (t, _) in zip(FIELDS, topics.build_assign(model, CONFIG)(fresh), strict=True)
    } == (pairs.keys())


def test_a_text_gets_its_topic_alone_as_among_others(tmp_path: Path) -> None:
    texts, _ = corpus(10)
    texts += ["", "12 34 !!", "tide"]
    model, _ = topics.fit(texts, CONFIG)
    together = topics.build_assign(model, CONFIG)(texts)
    assert [topics.build_assign(model, CONFIG)([one])[0] for one in texts] == together
    assert together[-3:-1] == [(NO_TOPIC, 0.0)] * 2 and together[-1][0] != NO_TOPIC
    model.save(tmp_path / "model.npz")
    assert topics.build_assign(TopicModel.load(tmp_path / "model.npz"), CONFIG)(texts) == together


def test_the_same_sample_gives_the_same_model(tmp_path: Path) -> None:
    numbers = {"law": 8, "sea": 12, "sky": 4, "kitchen": 10}  # no field is in most texts
    texts = [text(name, k) for name, number in numbers.items() for k in range(number)]
    for name in ("one", "two"):
        model, found = topics.fit(texts, CONFIG)
        model.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [topic.documents for topic in found] == [12, 10, 8, 4]
    other, _ = topics.fit(texts, Topics(count=4, dimensions=10, seed=1))
    assert not np.array_equal(other.projection_VE, model.projection_VE)


def test_layout_and_case_do_not_matter() -> None:
    texts, _ = corpus(10)
    model, _ = topics.fit(texts, CONFIG)
    assign = topics.build_assign(model, CONFIG)
    assert assign([t.upper().replace(" ", " -- \n") for t in texts]) == assign(texts)


@pytest.mark.parametrize(
    "texts", [[], [""], ["?"], ["tide"], ["tide tide"] * 5, ["the and of", "tide"], [COMMON, ""]]
)
def test_next_to_nothing_is_no_error(texts: list[str]) -> None:
    model, found = topics.fit(texts, CONFIG)
    answers = topics.build_assign(model, CONFIG)(texts)
    assert len(answers) == len(texts)
    assert sum(topic.documents for topic in found) == sum(t != NO_TOPIC for t, _ in answers)
    assert all(0 <= t < len(found) for t, _ in answers if t != NO_TOPIC)


def test_the_number_of_topics_follows_the_rule() -> None:
    texts, _ = corpus(50)
    assert len(topics.fit(texts, Topics(dimensions=10))[1]) == 10  # sqrt(200 / 2)
    assert len(topics.fit(texts, Topics(dimensions=10, max_topics=3))[1]) == 3
    assert len(topics.fit(texts[:2] * 20, Topics(count=9, dimensions=10))[1]) == 2


def test_tf_idf_is_the_formula() -> None:
    texts = ["hare hare form", "form burrow", "hare"]
    names = topics.vocabulary(texts)
    terms = np.array(sorted(names), np.uint64)
    counts = topics.count_terms(texts, terms)
    dense = np.array([[t.split().count(names[int(h)]) for h in terms] for t in texts])
    assert np.array_equal(counts.toarray(), dense)
    idf = np.array([1.5, 2.0, 3.0])
    expected = np.where(dense > 0, 1 + np.log(np.maximum(dense, 1)), 0) * idf
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(topics.tf_idf(counts, idf).toarray(), expected, atol=1e-15)


def test_a_topic_is_named_by_what_tells_it_from_others() -> None:
    """Class-based TF-IDF: a word of all topics comes after an equally frequent word of one."""
    texts = ["apple zebra walk", "apple zebra", "apple yak", "apple yak", "apple"]
    names = topics.vocabulary(texts)
    terms = np.array(sorted(names), np.uint64)
    topic = np.array([0, 0, 1, 1, NO_TOPIC])
    found = topics._labels(
        topics.count_terms(texts, terms), topic, 2, [names[int(h)] for h in terms]
    )
    in_class, in_all = {"zebra": 2, "apple": 2, "walk": 1}, {"zebra": 2, "apple": 4, "walk": 1}
    mean = (5 + 4) / 2
    weight = {w: n * math.log1p(mean / in_all[w]) for w, n in in_class.items()}
    assert found[0] == tuple(sorted(weight, key=lambda w: -weight[w]))
    assert found == [("zebra", "walk", "apple"), ("yak", "apple")]


def test_only_telling_words_are_terms() -> None:
    found = set(
        topics.vocabulary(["The hares' 1984 form, x2 naïve NAÏVE and because_of it: is"]).values()
    )
    assert found == {"hares", "form", "naïve"}


def test_of_a_long_text_three_windows_are_read() -> None:
    long = "a" * 5000 + "b" * 5000 + "c" * 5000
    cut = topics.read_windows(long, 300)
    assert cut == "a" * 100 + "\n" + "b" * 100 + "\n" + "c" * 100
    assert topics.read_windows("short", 300) == "short"
    assert topics.read_windows("a" * 300 + "z", 300).endswith("az")


# ---- numbers


def test_leading_axes_are_those_of_the_exact_svd() -> None:
    """On a matrix of rank 6 the six axes span its rows; and of many they hold as much."""
    from scipy import sparse

    random = np.random.default_rng(0)
    low = random.normal(size=(80, 6)) @ random.normal(size=(6, 50))
    axes = clusters.leading_axes(sparse.csr_array(low), 6, seed=0)
    assert np.allclose(axes.T @ axes, np.eye(6), atol=1e-12)
    assert np.allclose(low @ axes @ axes.T, low, atol=1e-9)
    assert (axes[np.abs(axes).argmax(axis=0), np.arange(6)] > 0).all()

    full = random.normal(size=(80, 50))
    exact = np.linalg.svd(full, compute_uv=False)
    axes = clusters.leading_axes(sparse.csr_array(full), 8, seed=0)
    assert np.linalg.norm(full @ axes) ** 2 > 0.98 * (exact[:8] ** 2).sum()


def test_clusters_are_a_fixed_point_and_none_is_empty() -> None:
    random = np.random.default_rng(1)
    vectors = clusters.unit_vectors(random.normal(size=(300, 8)))
    centroids = clusters.spherical_k_means(vectors, 12, restarts=3, seed=0)
    cluster, score = clusters.nearest(vectors, centroids)
    assert np.bincount(cluster, minlength=12).all()
    assert np.allclose(score, (vectors @ centroids.T).max(axis=1), atol=1e-9)
    means = np.stack([vectors[cluster == k].mean(axis=0) for k in range(12)])
    assert np.allclose(clusters.unit_vectors(means), centroids, atol=1e-9)


def test_more_restarts_never_fit_worse() -> None:
    vectors = clusters.unit_vectors(np.random.default_rng(1).normal(size=(200, 8)))
    fits = [
        clusters.nearest(vectors, clusters.spherical_k_means(vectors, 12, restarts=r, seed=0))[1]
        for r in range(1, 8)
    ]
    means = [fit.mean() for fit in fits]
    assert means == sorted(means) and means[-1] > means[0]


def test_ties_go_to_the_first() -> None:
    centroids = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    nudged = centroids + np.array([[0, 0], [1e-13, 0], [0, 0]])  # as another processor might round
    assert clusters.nearest(np.array([[1.0, 0.0]]), nudged)[0].tolist() == [0]


# ---- diversity


def test_diversity() -> None:
    for k in (1, 3, 40):
        even = topics.diversity([7] * k, min_documents=7)
        assert even.effective == pytest.approx(k) and even.entropy == pytest.approx(math.log(k))
        assert even.coverage == 1.0 and even.documents == 7 * k
    skewed = topics.diversity([97, 1, 1, 1], min_documents=2)
    assert 1 < skewed.effective < 2 and skewed.coverage == 0.25
    assert topics.diversity([1, 97, 1, 1]).entropy == pytest.approx(skewed.entropy)
    assert topics.diversity([97, 1, 1, 1, 0, 0]).effective == pytest.approx(skewed.effective)
    nothing = topics.diversity([0, 0])
    assert (nothing.documents, nothing.effective, nothing.coverage) == (0, 0.0, 0.0)


# ---- the step


@pytest.mark.slow
def test_shards_and_workers_do_not_change_a_topic(tmp_path: Path) -> None:
    texts, _ = corpus()
    rows = [{"id": str(k), "text": t} for k, t in enumerate(texts)]
    path = tmp_path / "raw" / "web.jsonl"
    write_jsonl(path, rows)
    tables = {}
    for shard_bytes, workers in ((1 << 20, 0), (4000, 2)):
        made = Recipe(
            sources=[Source(path=str(path))],
            reading=Reading(shard_bytes=shard_bytes),
            topics=CONFIG,
        )
        with runner_at(tmp_path / str(workers), workers) as runner:
            documents = pipeline.read(made, runner)
            table = find_topics(made, runner, documents, tmp_path / "cache")
        tables[len(table.files())] = {r["id"]: r for f in table.files() for r in read_rows(f.path)}
        sizes = Counter[str]()
        for ledger in table.ledgers():
            sizes.update(ledger.extra["sizes"]["web"])
        assert sizes == Counter(str(r["topic"]) for r in tables[len(table.files())].values())
    one, several = tables.values()
    assert len(tables) == 2 and one == several and len(one) == len(texts)
    assert {r["characters"] for r in one.values()} == {len(t) for t in texts}


@pytest.mark.slow
def test_the_sample_is_by_source_and_by_hash(tmp_path: Path) -> None:
    for source, number in (("web", 400), ("law", 20)):
        rows = [{"id": str(k), "text": text("sea", k, 20)} for k in range(number)]
        write_jsonl(tmp_path / "raw" / f"{source}.jsonl", rows)
    made = Recipe(
        sources=[Source(path=str(tmp_path / "raw"))],
        topics=Topics(count=2, dimensions=5, sample_documents=100),
    )
    with runner_at(tmp_path / "run") as runner:
        find_topics(made, runner, pipeline.read(made, runner), tmp_path / "cache")
    (sample,) = (d for d in runner.directories if d.manifest["stage"] == "topic_sample")
    assert sample.counts()["law"].kept == 20
    assert 60 < sample.counts()["web"].kept < 140

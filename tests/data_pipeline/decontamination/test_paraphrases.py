"""Paraphrased items are found by their rare words; similar items are not."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import Decontamination, ParaphraseRule
from data_pipeline.decontamination import paraphrases, rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import build_index
from data_pipeline.decontamination.paraphrases import ParaphraseIndex, ParaphraseSearch
from data_pipeline.storage.document import Document, Dropped

NAMES = ["Zoey", "Marcus", "Imelda", "Tobias", "Ramona", "Quentin", "Odette", "Lucian"]
THINGS = [
    "watermelon", "lantern", "saddle", "violin", "cactus", "helmet", "teapot", "kayak",
    "marble", "ribbon", "candle", "basket", "trumpet", "carpet", "mirror", "ladder",
]  # fmt: skip
PLACES = ["harbour", "orchard", "library", "bakery", "stadium", "museum", "garage", "chapel"]


def problem(k: int) -> tuple[str, str]:
    """A problem and the same problem paraphrased."""
    name, other, place = NAMES[k % 8], NAMES[(k // 8 + k + 3) % 8], PLACES[(k * 5 + k // 8) % 8]
    one, two = THINGS[k % 16], THINGS[(k * 7 + 5) % 16]
    a, b, c = 100 + 13 * k, 1000 + 29 * k, 7 + k
    return (
        f"{name} and {other} run a stall at the {place}. In the morning they sell {a} of the "
        f"{one}s for {c} dollars each, and after lunch {other} brings {b} more {two}s from home. "
        f"How much money do {name} and {other} have when the {place} closes in the evening?",
        f"At the {place}, a stall belongs to {other} and {name}. Each {one} costs {c} dollars; "
        f"{a} {one}s are sold before noon. Later another {b} {two}s get brought by {other}. When "
        f"the {place} shuts, what sum did {name} together with {other} earn?",
    )


ITEMS = [BenchmarkItem(f"b/test/{k}", "b", {"question": problem(k)[0]}) for k in range(60)]
# A benchmark tells its problems in many ways, so the words of a paraphrase are not rare either.
REST = [BenchmarkItem(f"b/train/{k}", "b", {"question": problem(k)[1]}) for k in range(100, 160)]
KNOBS = ParaphraseRule(enabled=True)
INDEX = paraphrases.build_index([*ITEMS, *REST], KNOBS)
FILLER = " ".join(
    f"ordinary{k % 37} sentence{k % 11} about{k % 5} weather{k % 23}" for k in range(60)
)


def found(
    texts: list[str], knobs: ParaphraseRule = KNOBS, index: ParaphraseIndex = INDEX
) -> dict[int, str]:
    return {r.document: index.parts[r.part][1] for r in ParaphraseSearch(index, knobs)(texts)}


def test_paraphrases_are_found_and_distinguished() -> None:
    texts = [problem(k)[1] for k in range(60)]
    assert found(texts) == {k: f"b/test/{k}" for k in range(60)}


def test_ngrams_do_not_see_them() -> None:
    config = Decontamination()
    documents = [Document(str(k), problem(k)[1], "web", "web") for k in range(60)]
    index = build_index(ITEMS, 13, config)
    assert rules.build_decide(config, index)(documents) == documents
    answers = rules.build_decide(Decontamination(paraphrases=KNOBS), index, INDEX)(documents)
    assert all(isinstance(answer, Dropped) for answer in answers)
    (first, *_) = answers
    assert isinstance(first, Dropped)
    assert (first.evidence["rule"], first.evidence["item"]) == ("paraphrase", "b/test/0")
    assert first.evidence["share"] >= KNOBS.similarity


def test_a_paraphrase_inside_a_long_text_is_found_at_its_place() -> None:
    text = f"{FILLER} {problem(7)[1]} {FILLER} {FILLER}"
    (match,) = ParaphraseSearch(INDEX, KNOBS)(["", text, FILLER])
    assert match.document == 1
    assert INDEX.parts[match.part][1] == "b/test/7"
    start = len(FILLER.split())
    assert start - 20 <= match.first <= start + 20
    assert match.length <= 1.25 * len(problem(7)[0].split()) + 5


def test_the_cosine_is_that_of_the_definition() -> None:
    """One part, one text that is a passage as a whole: computed by hand from weights."""
    text = problem(3)[1]
    knobs = ParaphraseRule(enabled=True, similarity=0.01)
    match = next(r for r in ParaphraseSearch(INDEX, knobs)([text]))
    from data_pipeline.text.ngrams import stems

    weights = dict(zip(INDEX.vocabulary_V.tolist(), INDEX.weight_V.tolist(), strict=True))
    of = slice(match.first, match.first + match.length)
    passage = set(stems([text]).hashes_W[of].tolist())
    item = set(stems([problem(3)[0]]).hashes_W.tolist())
    rarest = max(weights.values())
    norm = sum(weights.get(w, rarest) ** 2 for w in passage) * sum(weights[w] ** 2 for w in item)
    expected = sum(weights[w] ** 2 for w in passage & item) / np.sqrt(norm)
    assert match.similarity == pytest.approx(expected, rel=1e-5)
    assert match.num_common == len(passage & item)


def test_other_problems_of_the_kind_are_not_found() -> None:
    index = paraphrases.build_index([*ITEMS[:40], *REST], KNOBS)
    others = [problem(k)[n] for k in range(40, 60) for n in (0, 1)]
    assert found(others, index=index) == {}
    assert found([FILLER, "", "..."], index=index) == {}


def test_short_items_are_left_out() -> None:
    short = BenchmarkItem("b/test/x", "b", {"question": "Which planet has rings and many moons?"})
    document = BenchmarkItem("d/0", "d", {"document": problem(0)[0]}, absolute_hits=False)
    assert paraphrases.build_index([short, document], KNOBS).parts == []
    assert (
        found(["Which planet has rings and many moons?"], index=paraphrases.build_index([], KNOBS))
        == {}
    )


def test_the_answer_for_a_text_does_not_depend_on_the_others() -> None:
    texts = [problem(k)[1] + FILLER[: 40 * k] for k in range(20)]
    alone = [found([text]).get(0) for text in texts]
    together = found(texts)
    assert [together.get(k) for k in range(20)] == alone
    backwards = found(texts[::-1])
    assert [backwards.get(19 - k) for k in range(20)] == alone


def test_an_index_survives_saving_in_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        paraphrases.build_index([*ITEMS, *REST], KNOBS).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    texts = [problem(k)[1] for k in range(60)]
    assert found(texts, index=ParaphraseIndex.load(tmp_path / "a.npz")) == found(texts)

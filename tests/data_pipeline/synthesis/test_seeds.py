"""Seeds: even over topics, by weight over categories, independent of shards."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from data_pipeline.config import Synthesis
from data_pipeline.storage.document import Document
from data_pipeline.synthesis import prompt_texts, seeds
from data_pipeline.synthesis import prompts as choice
from data_pipeline.synthesis.seeds import Candidate, SelectedDocument

# topic -> documents in it
SIZES = {0: 500, 1: 60, 2: 40, 3: 5, -1: 3}
CANDIDATES = [
    Candidate(f"{topic}/{k}", f"part-{k % 7}", topic, "web", passages=2)
    for topic, number in SIZES.items()
    for k in range(number)
]


def draw(
    candidates: list[Candidate], quota: dict[str, int], seed: int = 0
) -> list[SelectedDocument]:
    there: Counter[seeds.CategoryTopic] = Counter()
    for one in candidates:
        there[one.category, one.topic] += one.passages
    return seeds.draw(candidates, seeds.topic_limits(there, quota), quota, seed)


def drawn_by_topic(quota: int, seed: int = 0) -> Counter[int]:
    found: Counter[int] = Counter()
    for one in draw(CANDIDATES, {"web": quota}, seed):
        found[one.topic] += one.count
    return found


@pytest.mark.parametrize("quota", [0, 1, 4, 15, 16, 100, 217, 400])
def test_topics_provide_seeds_evenly_until_exhausted(quota: int) -> None:
    """No topic gives more than one above another that still has some to give."""
    found = drawn_by_topic(quota)
    assert found.total() == quota
    most = max(found.values(), default=0)
    for topic, number in SIZES.items():
        assert found[topic] >= min(most - 1, 2 * number)


def test_memory_is_bounded_by_the_number_of_seeds() -> None:
    """A corpus has far more documents than there will be seeds."""
    there = Counter({("web", topic): 2 * number for topic, number in SIZES.items()})
    for quota in (1, 16, 100, 217):
        limit = seeds.topic_limits(there, {"web": quota})
        assert quota <= sum(limit.values()) < quota + len(SIZES)
        without = {key: max(0, n - 1) for key, n in limit.items()}  # the level is not too high
        assert sum(without.values()) < quota
    assert seeds.topic_limits(there, {"web": 10**6}) == there


def test_all_passages_are_drawn_if_there_are_too_few() -> None:
    everything = drawn_by_topic(10**6)
    assert everything == {topic: 2 * number for topic, number in SIZES.items()}


def test_the_order_of_documents_does_not_matter() -> None:
    shuffled = CANDIDATES.copy()
    random.Random(1).shuffle(shuffled)
    assert draw(shuffled, {"web": 100}, 0) == draw(CANDIDATES, {"web": 100}, 0)
    assert draw(CANDIDATES, {"web": 100}, 1) != draw(CANDIDATES, {"web": 100}, 0)


def test_larger_quota_keeps_the_seeds_of_a_smaller_one() -> None:
    """So that a larger run asks only for what the smaller one did not."""
    few = {one.document: one.count for one in draw(CANDIDATES, {"web": 50}, 0)}
    many = {one.document: one.count for one in draw(CANDIDATES, {"web": 150}, 0)}
    assert all(many.get(document, 0) >= count for document, count in few.items())


def test_every_document_provides_one_seed_before_any_provides_two() -> None:
    counts = {one.document: one.count for one in draw(CANDIDATES, {"web": 550}, 0)}
    by_topic: dict[str, set[int]] = {}
    for document, count in counts.items():
        by_topic.setdefault(document.split("/")[0], set()).add(count)
    assert by_topic["0"] == {1} and by_topic["1"] == {2}


def test_quotas_are_integers_in_proportion_to_weights() -> None:
    assert seeds.quotas({"a": 1, "b": 1, "c": 1}, "abc", 10) == {"a": 4, "b": 3, "c": 3}
    assert seeds.quotas({"a": 1, "b": 0}, "ab", 10) == {"a": 10}
    assert seeds.quotas({"a": 1}, [], 10) == {}
    weights = Synthesis().weights
    quota = seeds.quotas(weights, weights, 28_200)
    assert quota == {name: round(1000 * weight) for name, weight in weights.items()}
    for documents in (1, 7, 1001):
        assert sum(seeds.quotas(weights, weights, documents).values()) == documents


def test_category_draws_only_its_own_documents() -> None:
    law = [Candidate(f"law/{k}", "part-0", 0, "law", 1) for k in range(9)]
    found = draw([*CANDIDATES, *law], {"law": 5}, 0)
    assert len(found) == 5 and {one.category for one in found} == {"law"}


def test_seed_is_a_substring_of_its_document() -> None:
    config = Synthesis(min_passage_words=10, max_passage_words=40)
    paragraphs = [" ".join(f"Word{p} runs{k} here." for k in range(8)) for p in range(30)]
    document = Document("web/1", "\n\n".join(paragraphs), "web", "web")
    made = list(
        seeds.cut(document, SelectedDocument("web/1", "s", 3, "web", 4), "synthetic_web", config)
    )
    assert len(made) == 4 and len({seed.id for seed in made}) == 4
    spans = sorted((seed.meta["start"], seed.meta["end"]) for seed in made)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    for seed in made:
        assert document.text[seed.meta["start"] : seed.meta["end"]] == seed.text
        assert seed.text.startswith("Word") and seed.text.endswith(".")
        assert 10 <= len(seed.text.split()) <= 40
        assert (seed.source, seed.category, seed.meta["topic"]) == ("synthetic_web", "web", 3)
    assert made == list(
        seeds.cut(document, SelectedDocument("web/1", "s", 3, "web", 4), "synthetic_web", config)
    )


def test_short_documents_provide_no_seeds() -> None:
    config = Synthesis(min_passage_words=40, max_passage_words=250, per_document=3)
    assert [seeds.passages_in(n, config) for n in (0, 239, 240, 1500, 3000, 10**7)] == [
        0, 0, 1, 1, 2, 3,
    ]  # fmt: skip


# ---- prompts


def test_every_category_has_styles_and_audiences() -> None:
    prompts = choice.all_prompts()
    assert prompts.keys() == prompt_texts.CATEGORIES.keys() == Synthesis().weights.keys()
    for name, some in prompts.items():
        styles = {p.id.split("/")[1] for p in some}
        audiences = {p.id.split("/")[2] for p in some}
        assert len(styles) >= 5 and len(audiences) >= 3
        assert len({p.id for p in some}) == len(some) == len(styles) * len(audiences)
        assert len({p.instruction for p in some}) == len(some)
        assert all(p.id.startswith(f"{name}/") for p in some)


def test_prompt_for_law_follows_the_paper() -> None:
    law = next(p for p in choice.all_prompts()["law"] if p.id.startswith("law/textbook/"))
    for word in ("textbook", "rigorous", "engaging", "applied", "title", "introduction", "1000"):
        assert word in law.instruction


def test_prompt_contains_its_passage_unchanged() -> None:
    passage = "Braces {passage} {0}, %s, and\n</passage> all stay."
    for some in choice.all_prompts().values():
        rendered = choice.render(some[0], passage)
        assert rendered.text[rendered.start : rendered.end] == passage
        assert passage not in rendered.instruction
        assert some[0].instruction in rendered.instruction


def test_passages_of_a_document_get_different_prompts() -> None:
    for some in choice.all_prompts().values():
        chosen = [choice.choose(some, 0, "web/1", k).id for k in range(len(some))]
        assert len(set(chosen)) == len(some)
        assert chosen == [choice.choose(some, 0, "web/1", k).id for k in range(len(some))]


def test_prompts_are_chosen_about_equally_often() -> None:
    some = choice.all_prompts()["web"]
    counts = Counter(choice.choose(some, 0, f"web/{k}", 0).id for k in range(2400))
    assert len(counts) == len(some) and 60 < min(counts.values()) <= max(counts.values()) < 150


def test_categories_of_sources() -> None:
    mapping = Synthesis().categories
    assert choice.category_of("encyclopedia", mapping) == "wiki"
    assert choice.category_of("LAW", mapping) == "law"
    assert choice.category_of("something else", mapping) == "web"

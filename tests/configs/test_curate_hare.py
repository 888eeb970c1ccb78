"""The paper's recipe: its numbers, and what is said where a source, weight or benchmark lacks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from configs import curate_hare
from data_pipeline.config import Reader, Recipe, Synthesis, Tier
from data_pipeline.mixture.weights import resolve_weights
from data_pipeline.validate import validate

pytestmark = pytest.mark.slow

# Table 3 of arXiv 2406.11410, by its names.
TABLE_3 = {
    "RedPajama C4": ("c4", 11),
    "RedPajama ArXiv": ("arxiv", 1.42),
    "PubMed": ("pubmed", 0.65),
    "S2ORC": ("s2orc", 1.68),
    "PhilPapers": ("philpapers", 0.06),
    "RedPajama Book": ("book", 1.73),
    "PG-19": ("pg19", 1.46),
    "RedPajama StackExchange": ("stackexchange", 1.10),
    "HackerNews": ("hackernews", 0.10),
    "FreeLaw": ("freelaw", 0.46),
    "Pile of Law": ("pile_of_law", 0.34),
    "AMPS": ("amps", 0.96),
    "DM Mathematics": ("dm_mathematics", 0.5),
    "Orca-Math": ("orca_math", 2.56),
    "OpenWebMath": ("openwebmath", 3.88),
    "Fanfics": ("fanfics", 1.32),
    "RedPajama Wiki": ("wiki", 7.78),
    "The Stack": ("the_stack", 5.5),
    "StackOverflow": ("stackoverflow", 4),
}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    recipe = curate_hare.get_config(str(tmp_path)).data
    assert recipe is not None
    return recipe


def total(weights: dict[str, float]) -> float:
    return round(math.fsum(weights.values()), 9)


def test_table_3(recipe: Recipe) -> None:
    assert recipe.mixtures["stage1"] == dict(TABLE_3.values())
    assert {s.name for s in recipe.sources if s.tier is Tier.D1} == set(recipe.mixtures["stage1"])


def test_the_sums_of_the_paper(recipe: Recipe) -> None:
    d1 = curate_hare.weights_of_d1()
    d2 = curate_hare.weights_of_d2(recipe.synthesis)
    d3 = curate_hare.weights_of_d3(recipe.restructuring)
    assert [total(d1), total(d2), total(d3)] == [46.50, 13.63, 39.87]
    assert recipe.mixtures["stage2"] == d1 | d2 | d3
    assert total(recipe.mixtures["stage2"]) == 100.00
    assert d2["cosmopedia"] == 5.93


def test_own_d2_has_the_shares_of_table_4(recipe: Recipe) -> None:
    weights = curate_hare.weights_of_d2(recipe.synthesis)
    assert weights["synthetic_wiki"] / weights["synthetic_law"] == pytest.approx(8.16 / 2.16)
    assert set(weights) - {"cosmopedia"} == {f"synthetic_{c}" for c in Synthesis().weights}


def test_every_source_says_how_to_get_it_and_has_a_category_that_is_known(recipe: Recipe) -> None:
    known = set(recipe.synthesis.weights) | set(recipe.synthesis.categories)
    for source in recipe.sources:
        assert source.obtain.startswith("To get it: ") and len(source.obtain) > 25, source.name
        assert source.tier is Tier.D3 or source.category in known, source.name
    assert len(recipe.sources) == 19 + 1 + len(curate_hare.SFT)


def test_the_tiers_of_the_mixture_resolve_when_all_is_there(recipe: Recipe) -> None:
    tiers = {source.name: source.tier.value for source in recipe.sources}
    tiers |= {f"synthetic_{category}": "D2" for category in recipe.synthesis.weights}
    tiers["restructured"] = "D3"
    rows = [{"name": name, "tier": tier, "tokens": 10} for name, tier in tiers.items()]
    rows = [row | {"tokens": 30} if row["name"] == "dolly" else row for row in rows]
    stage2 = resolve_weights(recipe.mixtures, rows)["stage2"]
    assert stage2["restructured"] == pytest.approx(0.235)
    assert sum(stage2[name] for name in curate_hare.SFT) == pytest.approx(0.1637)
    assert stage2["dolly"] == pytest.approx(3 * stage2["auto_cot"])
    assert set(stage2) == set(tiers)


def test_decontamination_is_against_what_the_paper_evaluates(recipe: Recipe) -> None:
    names = {benchmark.name for benchmark in recipe.decontamination.benchmarks}
    paper = {"mmlu", "arc_challenge", "truthfulqa", "winogrande", "hellaswag", "gsm8k"}
    assert names == paper | {"arc_easy"}
    n = recipe.decontamination.ngram_words
    assert 10 <= n["D2"] <= 15 and 4 <= n["D3"] <= 8


def test_a_folder_of_its_own_comes_before_the_hub(tmp_path: Path) -> None:
    (tmp_path / "orca_math").mkdir()
    data = curate_hare.get_config(str(tmp_path)).data
    assert data is not None
    sources = {source.name: source for source in data.sources}
    assert sources["orca_math"].reader is Reader.FILES
    assert sources["orca_math"].path == str(tmp_path / "orca_math")
    assert sources["openwebmath"].reader is Reader.HUGGING_FACE
    data = curate_hare.get_config("gs://bucket/data").data
    assert data is not None
    assert {source.reader for source in data.sources} == {Reader.FILES}


def test_a_folder_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="DIR needs the folder"):
        curate_hare.get_config()


def refused(recipe: Recipe, root: Path) -> str:
    """Returns the message with which a recipe is refused; "" if it is not."""
    try:
        validate(recipe, root / "teacher")
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture
def ready(tmp_path: Path) -> Recipe:
    """The recipe with all its sources and with addresses of teachers, but without benchmarks."""
    for name in (*curate_hare.D1, *curate_hare.D2, *curate_hare.SFT):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("Hares are fast.")
    recipe = curate_hare.get_config(str(tmp_path)).data
    assert recipe is not None
    recipe.synthesis.teacher.base_url = recipe.restructuring.teacher.base_url = "http://a:8000/v1"
    return recipe


def test_missing_benchmarks_are_listed_together(ready: Recipe, tmp_path: Path) -> None:
    message = refused(ready, tmp_path)
    assert "7 of 7 benchmarks are missing" in message
    assert all(f"benchmark {b!r}" in message for b in curate_hare.BENCHMARKS)
    ready.allow_missing = True  # of sources only
    assert "7 of 7 benchmarks are missing" in refused(ready, tmp_path)
    ready.decontamination.enabled = False
    assert refused(ready, tmp_path) == ""


def test_everything_that_is_missing_is_listed_together(recipe: Recipe, tmp_path: Path) -> None:
    """Sources, with how to get them, benchmarks and teachers."""
    message = refused(recipe, tmp_path)
    assert message.startswith("4 settings cannot be used:")
    assert "7 of 7 benchmarks are missing" in message
    assert "config.data.synthesis.teacher.base_url: got ''" in message
    assert "config.data.restructuring.teacher.base_url: got ''" in message
    assert "22 of 24 sources are missing" in message
    for name in {*curate_hare.D1, *curate_hare.D2, *curate_hare.SFT} - curate_hare.HUB.keys():
        assert f"source {name!r}: {tmp_path}/{name} does not exist. To get it: " in message


def test_what_no_step_makes_is_refused_before_any_work(ready: Recipe, tmp_path: Path) -> None:
    ready.decontamination.enabled = False
    ready.synthesis.enabled = False
    message = refused(ready, tmp_path)
    assert "config.data.mixtures['stage2']: got 'synthetic_law', expected a source" in message
    assert "got 'restructured'" not in message
    assert "--config.data.allow_missing=True drops such names" in message
    ready.allow_missing = True
    assert refused(ready, tmp_path) == ""


def test_a_weight_by_a_wrong_name_is_refused_before_any_work(ready: Recipe, tmp_path: Path) -> None:
    ready.decontamination.enabled = False
    ready.mixtures["stage1"]["wikki"] = 1.0
    message = refused(ready, tmp_path)
    assert "config.data.mixtures['stage1']: got 'wikki'" in message
    assert "Did you mean 'wiki'?" in message
    ready.sources[0].name = ""  # now its rows may name anything
    assert refused(ready, tmp_path) == ""

"""Every setting that cannot be used is refused before any work, with the address of its field."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import pipeline
from data_pipeline.cleaning.language import LANGUAGES, detector
from data_pipeline.config import (
    C4,
    Baking,
    Benchmark,
    Cleaning,
    CutSpans,
    Decontamination,
    EngineKind,
    Features,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    ParaphraseRule,
    Reader,
    Recipe,
    RepeatedParagraphs,
    Restructuring,
    Source,
    Synthesis,
    TeacherConfig,
    Tier,
    Topics,
)
from data_pipeline.storage.atomic import write_text
from data_pipeline.validate import validate
from tests.builders import ROOT

MMLU_ROW = {"question": "Who runs?", "choices": ["a hare", "a mole"], "answer": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with a source, a benchmark and some files that are of no use."""
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "web.jsonl").write_text('{"text": "Hares are fast."}\n')
    (folder / "gsm8k.jsonl").write_text('{"question": "What is 2 + 3?", "answer": "5 #### 5"}\n')
    (folder / "empty.txt").write_text("\n")
    (folder / "words.txt").write_text("fox\n")
    (folder / "other.jsonl").write_text('{"title": "no item"}\n')
    return folder


def good_recipe(folder: Path) -> Recipe:
    """Returns a recipe with every step switched on, which passes."""
    teacher = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
    return Recipe(
        sources=[Source("web", path=str(folder / "web.jsonl"))],
        cleaning=Cleaning(
            rule_sets=(
                C4(bad_words=str(folder / "words.txt")),
                GopherQuality(),
                GopherRepetition(),
                FineWeb(),
            )
        ),
        repeated_paragraphs=RepeatedParagraphs(enabled=True),
        decontamination=Decontamination(
            benchmarks=[Benchmark("gsm8k", str(folder / "gsm8k.jsonl"))],
            paraphrases=ParaphraseRule(enabled=True),
            cut_spans=CutSpans(enabled=True),
        ),
        topics=Topics(features=Features.EMBEDDINGS, embedder=TeacherConfig(**teacher)),
        synthesis=Synthesis(enabled=True, teacher=TeacherConfig(**teacher)),
        restructuring=Restructuring(enabled=True, teacher=TeacherConfig(**teacher)),
        baking=Baking(sequence_length=64),
        mixtures={"all": {"D1": 1.0, "synthetic_web": 1.0, "nlp_tasks": 0.5, "restructured": 0.5}},
        budgets={"all": 1e6},
    )


def steps_of(path: str) -> list[str | int]:
    """Returns the fields, indices and keys of an address.

    >>> steps_of("rule_sets[3].max_top_ngram[2]")
    ['rule_sets', 3, 'max_top_ngram', 2]
    """
    steps: list[str | int] = []
    for name, index, key in re.findall(r"(?:^|\.)(\w+)|\[(\d+)\]|\['(.*?)'\]", path):
        steps.append(name or key or int(index))
    return steps


def set_field(recipe: Recipe, path: str, value: object) -> None:
    """Sets a field of the recipe, or an entry of a dict, list or tuple in it."""
    *before, last = steps_of(path)
    owner: Any = recipe
    for step in before:
        owner = getattr(owner, step) if not isinstance(owner, dict | list | tuple) else owner[step]
    if isinstance(owner, dict | list):
        owner[last] = value
    else:
        setattr(owner, str(last), value)


def refusal(recipe: Recipe, workdir: Path) -> str:
    """Returns the message of pipeline.run, which must have written nothing."""
    with pytest.raises(ValueError) as error:
        pipeline.run(recipe, workdir)
    assert not workdir.exists()
    return str(error.value)


def test_a_good_recipe_passes(folder: Path, tmp_path: Path) -> None:
    ((source, shard),) = validate(good_recipe(folder), tmp_path / "teacher")
    assert source.name == shard.name.split("-")[0] == "web"
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


# (field, value, what the message goes on with)
BAD = [
    # types
    ("workers", "2", "got '2', expected int"),
    ("engine", "beam", "got 'beam', expected one of EngineKind.LOCAL, EngineKind.BEAM"),
    ("topics.features", "embeddings", "got 'embeddings', expected one of Features.TERMS"),
    ("dedup.enabled", 1, "got 1, expected bool"),
    ("dedup.bands", 14.0, "got 14.0, expected int"),
    ("dedup.bands", True, "got True, expected int"),
    ("cleaning.profiles['web']", "prose", "got 'prose', expected one of CleaningProfile.PROSE"),
    ("cleaning.rule_sets", ("C4",), r"[0]: got 'C4', expected C4, GopherQuality"),
    ("mixtures['all']['D1']", "1", "got '1', expected float"),
    # reading
    ("sources", [], "got [], expected at least one source"),
    ("sources[0].path", "nowhere.jsonl", "*source 'web': nowhere.jsonl does not exist."),
    ("sources[0].path", "", "*source 'web' has no path."),
    ("sources[0].name", "a/b", "got 'a/b', expected no '/'"),
    ("sources[0].text_fields", (), "got (), expected the fields that make the text"),
    ("sources[0].max_documents", -1, "got -1, expected 0 or more"),
    ("reading.shard_bytes", 0, "got 0, expected 1 or more"),
    ("reading.max_line_bytes", 0, "got 0, expected 1 or more"),
    ("reading.max_bad_fraction", 1.5, "got 1.5, expected a number from 0 to 1"),
    # cleaning
    ("repeated_lines.min_share", 5.0, "got 5.0, expected a number from 0 to 1"),
    ("repeated_lines.partitions", 0, "got 0, expected 1 or more"),
    ("cleaning.language", "english", "got 'english', expected a language (ISO 639-1)"),
    ("cleaning.min_words", 10**6, "got 1000000, expected at most config.data.cleaning.max_words"),
    ("cleaning.max_duplicate_lines", 30, "got 30, expected a number from 0 to 1"),
    ("cleaning.rule_sets[0].bad_words", "nowhere.txt", "got 'nowhere.txt', expected a text file"),
    ("cleaning.rule_sets[1].max_words", 3, "*expected at most config.data.cleaning.rule_sets[1]"),
    ("cleaning.rule_sets[2].max_top_ngram", {0: 0.2}, "got {0: 0.2}, expected a number of words"),
    ("cleaning.rule_sets[3].max_short_lines", 67, "got 67, expected a number from 0 to 1"),
    # deduplication
    ("dedup.bands", 20, "*dedup.permutations: got 128, expected at least bands x rows = 20 x 9"),
    ("dedup.rows", 0, "got 0, expected 1 or more"),
    ("dedup.threshold", 0.0, "got 0.0, expected a number above 0 and at most 1"),
    ("dedup.threshold", 70, "got 70, expected a number above 0 and at most 1"),
    ("dedup.partitions", -3, "got -3, expected 0 or more"),
    ("dedup.seed", 2**32, "got 4294967296, expected a number from 0 to 4294967295"),
    ("repeated_paragraphs.min_words", 0, "got 0, expected 1 or more"),
    ("repeated_paragraphs.min_words_left", -1, "got -1, expected 0 or more"),
    # held-out documents
    ("held_out.fraction", 2.0, "got 2.0, expected a number from 0 to 1"),
    ("held_out.choices", 1, "got 1, expected 2 or more"),
    # decontamination
    ("decontamination.sample_share", 2.0, "got 2.0, expected a number from 0 to 1"),
    ("decontamination.item_share", -0.1, "got -0.1, expected a number from 0 to 1"),
    ("decontamination.absolute_hits", -1, "got -1, expected 0 or more"),
    ("decontamination.item_ngram_words", 0, "got 0, expected 1 or more"),
    ("decontamination.max_items_per_ngram", 0, "got 0, expected 1 or more"),
    ("decontamination.folder", "nowhere", "*no benchmark in nowhere"),
    ("decontamination.ngram_words", {"D1": 13}, "*There is none for D2, D3"),
    ("decontamination.ngram_words['wbe']", 5, "*got 'wbe', expected a tier or source"),
    ("decontamination.ngram_words['D1']", 0, "got 0, expected 1 or more words"),
    ("decontamination.max_tokens", {"D9": 5}, "got 'D9', expected a tier (D1, D2, D3)"),
    ("decontamination.max_tokens['D2']", -1, "got -1, expected 0 (any length) or more"),
    ("decontamination.cut_spans.max_share", 0.0, "got 0.0, expected a number above 0"),
    ("decontamination.cut_spans.max_share", 20, "got 20, expected a number above 0"),
    ("decontamination.cut_spans.margin_sentences", -1, "got -1, expected 0 or more"),
    ("decontamination.cut_spans.min_words", -1, "got -1, expected 0 or more"),
    ("decontamination.paraphrases.similarity", 2, "got 2, expected a number above 0"),
    ("decontamination.paraphrases.similarity", 0.0, "got 0.0, expected a number above 0"),
    ("decontamination.paraphrases.min_words", 0, "got 0, expected 1 or more"),
    ("decontamination.paraphrases.max_items_per_word", 0, "got 0, expected 1 or more"),
    ("decontamination.benchmarks", [Benchmark("mmlu", "nowhere")], "*'mmlu': nowhere is neither"),
    ("decontamination.benchmarks", [Benchmark("mmlo", "nowhere")], "*did you mean mmlu"),
    ("decontamination.benchmarks[0].paraphrases", ("nowhere",), "*nowhere is not a file"),
    # topics
    ("topics.restarts", 0, "got 0, expected 1 or more"),
    ("topics.count", -1, "got -1, expected 0 or more"),
    ("topics.embedder.model", "", "got '', expected the model's name"),
    ("topics.embedder.base_url", "", "got '', expected a server"),
    # synthesis
    ("topics.enabled", False, "got False, expected True: synthesis spreads"),
    ("synthesis.source", "", "got '', expected a name"),
    ("synthesis.weights", {"wab": 1.0}, "got 'wab', expected a category that has prompts"),
    ("synthesis.weights", {"web": 0.0}, "got {'web': 0.0}, expected numbers of 0 or more, not all"),
    ("synthesis.categories", {"blog": "wab"}, "got 'wab', expected a category that has prompts"),
    ("synthesis.documents", 0, "got 0, expected 1 or more"),
    ("synthesis.min_passage_words", 999, "got 999, expected at most config.data.synthesis.max_pa"),
    ("synthesis.teacher.model", "", "got '', expected the model's name"),
    ("synthesis.teacher.base_url", "http://a?k=v", "got 'http://a?k=v', expected the address"),
    ("synthesis.teacher.api_key_variable", "NO_SUCH_KEY", "got 'NO_SUCH_KEY', which is not set"),
    ("synthesis.teacher.top_p", 0.0, "got 0.0, expected a number above 0"),
    ("synthesis.teacher.extra_body", {"stop": {1, 2}}, "got {'stop': {1, 2}}, expected values"),
    ("synthesis.teacher.max_cost", 1.0, "got 1.0, expected prices"),
    ("synthesis.teacher.stall_timeout_s", 0.0, "got 0.0, expected a number above 0"),
    ("synthesis.output_filters.max_copied", 30, "got 30, expected a number from 0 to 1"),
    ("synthesis.output_filters.language", "eng", "got 'eng', expected a language"),
    # NLP tasks
    ("nlp_tasks.kinds", ("cloze", "quiz"), "got 'quiz', expected a kind of task (question_answ"),
    ("nlp_tasks.per_document", 0, "got 0, expected 1 or more"),
    ("nlp_tasks.source", "web", "got 'web', expected a name that no other source has"),
    ("nlp_tasks.source", "restructured", "got 'restructured', expected a name that no other"),
    ("synthesis.source", "a", "*mixtures['all']: got 'synthetic_web', expected a source or tier"),
    ("restructuring.kinds", ("title", "riddle"), "got 'riddle', expected a kind of task (quest"),
    ("restructuring.kinds", (), "got (), expected at least one of question_answering"),
    ("nlp_tasks.source", "", "got '', expected a name without '/'"),
    ("restructuring.source", "a/b", "got 'a/b', expected a name without '/'"),
    ("restructuring.teacher.base_url", "", "got '', expected a server"),
    ("restructuring.per_passage", 0, "got 0, expected 1 or more"),
    ("restructuring.max_tokens", -5, "got -5, expected 1 or more"),
    ("restructuring.max_words", 8, "*min_words: got 60, expected at most config.data.restructur"),
    ("restructuring.teacher.model", "", "got '', expected the model's name"),
    # mixtures
    ("baking.sequence_length", 0, "got 0, expected 1 or more"),
    ("baking.part_bytes", 0, "got 0, expected 1 or more"),
    ("baking.tokenizer", "nowhere.model", "got 'nowhere.model', expected a SentencePiece model"),
    ("mixtures['all']['D1']", -1, "got -1, expected a weight >= 0"),
    ("mixtures['all']", {}, "got {}, expected at least one weight above 0"),
    ("mixtures['all']['wbe']", 1.0, "*['all']: got 'wbe', expected a source or tier"),
    ("mixtures['all']['web']", 1.0, "*['all']: got 'D1', expected a tier or each of its sources"),
    ("budgets", {"stage9": 1e9}, "got 'stage9', expected a mixture of the recipe (all)"),
    ("budgets['all']", 0, "got 0, expected more than 0 tokens"),
    # execution and storage
    ("workers", -1, "got -1, expected 0 or more"),
    ("engine", EngineKind.BEAM, "*beam_options: got (), expected Beam's own flags"),
    ("output", "ftp://a/b", "*got the scheme ftp://"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), BAD, ids=[f"{path}={value}"[:60] for path, value, _ in BAD]
)
def test_bad_settings_are_refused_before_any_work(
    path: str, value: object, message: str, folder: Path, tmp_path: Path
) -> None:
    recipe = good_recipe(folder)
    set_field(recipe, path, value)
    got = refusal(recipe, tmp_path / "run")
    if message.startswith("*"):
        assert got.startswith("config.data.") and message[1:] in got
    else:
        separator = "" if message.startswith("[") else ": "
        assert f"config.data.{path}{separator}{message}" in got


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda recipe, folder: recipe.sources.append(
                Source("web", path=str(folder / "web.jsonl"), tier=Tier.D2)
            ),
            "config.data.sources: got 'web', expected one tier for each name; it has D1 and D2",
        ),
        (
            lambda recipe, folder: recipe.sources.append(
                Source("web", path=str(folder / "web.jsonl"))
            ),
            "config.data.sources: two sources have one name",
        ),
        (
            lambda recipe, folder: recipe.sources.append(Source("other", path=str(Path(__file__)))),
            "test_validate.py is not",
        ),
        (
            lambda recipe, folder: recipe.sources.extend(
                [Source("a", path=str(folder / "a")), Source("b", path=str(folder / "b"))]
            ),
            "config.data.sources: 2 of 3 sources are missing. Get them, or continue with",
        ),
        (
            lambda recipe, folder: recipe.sources.append(
                Source("data", path="x", reader=Reader.TFDS, split="")
            ),
            "config.data.sources[1].split: got '', expected a split of the dataset",
        ),
        (
            lambda recipe, folder: set_field(
                recipe, "cleaning.rule_sets[0].bad_words", str(folder / "empty.txt")
            ),
            "expected a text file with one word or phrase per line",
        ),
        (
            lambda recipe, folder: set_field(recipe, "baking.tokenizer", str(folder / "words.txt")),
            "config.data.baking.tokenizer: got ",
        ),
        (
            lambda recipe, folder: set_field(
                recipe, "decontamination.benchmarks[0].path", str(folder / "other.jsonl")
            ),
            "other.jsonl, row 0: not an item of 'gsm8k'",
        ),
        (
            lambda recipe, folder: set_field(recipe, "output", str(folder / "words.txt")),
            "expected a folder; this is a file",
        ),
        (
            lambda recipe, folder: [
                set_field(recipe, f"decontamination.{name}", 0)
                for name in ("sample_share", "absolute_hits", "item_share")
            ],
            "sample_share, absolute_hits and item_share are all 0",
        ),
    ],
)
def test_bad_combinations_are_refused_before_any_work(
    change: Callable[[Recipe, Path], object], message: str, folder: Path, tmp_path: Path
) -> None:
    recipe = good_recipe(folder)
    change(recipe, folder)
    assert message in refusal(recipe, tmp_path / "run")


def test_an_invalid_key_is_refused_by_the_name_of_its_field(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "two words")
    recipe = good_recipe(folder)
    recipe.synthesis.teacher.api_key_variable = "SOME_KEY"
    assert refusal(recipe, tmp_path / "run") == (
        "config.data.synthesis.teacher.api_key_variable: got 'SOME_KEY', an environment variable "
        "whose value is not a valid key, expected printable ASCII without spaces. Set the variable "
        "to the key alone."
    )


def test_benchmarks_in_an_object_store_are_checked(
    folder: Path, tmp_path: Path, bucket: Path
) -> None:
    """Those of `folder` and their paraphrases, and paraphrases that are named."""
    benchmarks = bucket / "benchmarks"
    paraphrase = benchmarks / "gsm8k" / "paraphrases" / "a.jsonl"
    row = (folder / "gsm8k.jsonl").read_text()
    write_text(benchmarks / "gsm8k" / "test.jsonl", row)
    write_text(paraphrase, row)
    write_text(benchmarks / "mmlu.jsonl", json.dumps(MMLU_ROW))
    recipe = good_recipe(folder)
    recipe.decontamination.folder = str(benchmarks)
    recipe.decontamination.benchmarks[0].paraphrases = (str(paraphrase),)
    assert len(validate(recipe, tmp_path / "teacher")) == 1
    write_text(paraphrase, "{}\n")
    message = refusal(recipe, tmp_path / "run")
    assert f"benchmarks[0]: {paraphrase}, row 0: not an item of 'gsm8k'" in message
    assert f"folder: {paraphrase}, row 0: not an item of 'gsm8k'" in message


def test_missing_benchmarks_make_one_message(folder: Path, tmp_path: Path) -> None:
    recipe = good_recipe(folder)
    recipe.decontamination.benchmarks = [Benchmark("mmlu", "a"), Benchmark("gsm8k", "b")]
    first, *lines = refusal(recipe, tmp_path / "run").splitlines()
    assert first.startswith("config.data.decontamination.benchmarks: 2 of 2 benchmarks are missing")
    assert [line.split(":")[0] for line in lines] == ["  benchmark 'mmlu'", "  benchmark 'gsm8k'"]


def test_a_missing_engine_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = good_recipe(folder)
    recipe.engine, recipe.beam_options = EngineKind.BEAM, ("--runner=DirectRunner",)
    validate(recipe, tmp_path / "teacher")
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert "config.data.engine: got" in refusal(recipe, tmp_path / "run")


def test_several_errors_are_listed_at_once(folder: Path, tmp_path: Path) -> None:
    recipe = good_recipe(folder)
    recipe.decontamination.sample_share = 2.0
    recipe.held_out.fraction = -1.0
    recipe.sources[0].path = "nowhere"
    head, *lines = refusal(recipe, tmp_path / "run").splitlines()
    assert head == "3 settings cannot be used:"
    assert [line.split(":")[0] for line in lines] == [
        "  config.data.held_out.fraction",
        "  config.data.decontamination.sample_share",
        "  config.data.sources",
    ]


def test_settings_of_steps_that_are_off_are_not_checked(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe(sources=[Source("web", path=str(folder / "web.jsonl"))])
    for name in ("decontamination", "dedup", "repeated_lines", "topics", "nlp_tasks"):
        getattr(recipe, name).enabled = False
    recipe.decontamination.folder = "nowhere"
    recipe.decontamination.sample_share = 2.0
    recipe.dedup.threshold = 2.0
    recipe.topics.restarts = 0
    assert len(validate(recipe, tmp_path / "teacher")) == 1


# ---- Every number has a range

# Any integer is a seed of the hash that these are used with.
ANY_INTEGER = {
    "held_out.seed",
    "nlp_tasks.seed",
    "topics.seed",
    "synthesis.seed",
    "restructuring.seed",
}


def numbers_of(section: Any, path: str = "") -> Iterator[str]:
    """Yields the addresses of all numbers of a configuration."""
    if dataclasses.is_dataclass(section):
        entries = [(f".{f.name}", getattr(section, f.name)) for f in dataclasses.fields(section)]
    elif isinstance(section, dict):
        entries = [(f"[{key!r}]", value) for key, value in section.items()]
    elif isinstance(section, list | tuple):
        entries = [(f"[{k}]", value) for k, value in enumerate(section)]
    else:
        if isinstance(section, int | float) and not isinstance(section, bool):
            yield path.lstrip(".")
        return
    for name, value in entries:
        yield from numbers_of(value, path + name)


def test_every_number_has_a_range(folder: Path, tmp_path: Path) -> None:
    """Sets each number of a recipe to -1 and to NaN; the error must name the field or its dict."""
    paths = list(numbers_of(good_recipe(folder)))
    assert len(paths) > 150
    accepted = set()
    for path in paths:
        for value in (-1, math.nan):
            recipe = good_recipe(folder)
            set_field(recipe, path, value)
            try:
                validate(recipe, tmp_path / "teacher")
            except ValueError as error:
                assert f"config.data.{path.partition('[')[0]}" in str(error), path
                if "rule_sets" not in path:
                    assert path.split(".")[-1].partition("[")[0] in str(error)
            else:
                accepted.add((path, value))
    assert accepted == {(path, -1) for path in ANY_INTEGER}


def test_languages_are_those_of_the_model() -> None:
    from data_pipeline.cleaning import language

    detector()("The hare runs over the field and into the wood, as fast as it can.")
    (model,) = language._model()._models.values()
    labels, _ = model.predict("hare", k=1000, threshold=-1.0)
    assert {label.removeprefix("__label__") for label in labels} == set(LANGUAGES)


# ---- The public entry point

PAGE = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    {change}
    return config
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "config.data.decontamination.sample_share = 2.0",
            "config.data.decontamination.sample_share: got 2.0, expected a number from 0 to 1",
        ),
        (
            "config.data.decontamination.folder = 'nowhere'",
            "config.data.decontamination.folder: no benchmark in nowhere",
        ),
        (
            "config.data.decontamination.ngram_words = {'D1': 13}",
            "config.data.decontamination.ngram_words: got {'D1': 13}, expected n for each tier",
        ),
        (
            "config.data.decontamination.max_tokens = {'D9': 5}",
            "config.data.decontamination.max_tokens: got 'D9', expected a tier (D1, D2, D3)",
        ),
        (
            "config.data.baking.tokenizer = 'nowhere.model'",
            "config.data.baking.tokenizer: got 'nowhere.model', expected a SentencePiece model",
        ),
        (
            "config.training.optimizer.warmup_steps = 10**6",
            "config.training.optimizer.warmup_steps: got 1000000, expected fewer than the ",
        ),
        (
            "config.training.mesh.data = 4096",
            "expected sizes that multiply to the number of devices, which is ",
        ),
        (
            "config.data.cleaning.rule_sets = ('C4',)",
            "config.data.cleaning.rule_sets[0]: got 'C4', expected C4, GopherQuality",
        ),
    ],
)
def test_the_command_refuses_before_any_work(change: str, message: str, tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(PAGE.format(change=change))
    workdir = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "main.py", f"--config={page}", f"--workdir={workdir}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert {path.name for path in workdir.iterdir()} <= {".lock", "error.txt"}

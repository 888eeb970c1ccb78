"""`ls data_pipeline` reads as the recipe: each step is a folder, and each stage belongs to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import (
    Baking,
    Decontamination,
    HeldOut,
    NlpTasks,
    Recipe,
    RepeatedParagraphs,
    Restructuring,
    Source,
    Synthesis,
    Topics,
)
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner, StageSpec
from tests.builders import ROOT, write_jsonl
from tests.data_pipeline.builders import curate_serially
from tests.data_pipeline.synthesis import synthetic_answers as answers

PACKAGE = ROOT / "data_pipeline"

# The steps of the recipe in their order, and the stages of each in their order. A stage that runs
# again for other documents has a longer name: decontaminate_synthetic.
STEPS = {
    "reading": ["read"],
    "cleaning": ["lines", "repeated_lines", "clean"],
    "deduplication": [
        "signatures",
        "links",
        "groups",
        "members",
        "duplicates",
        "deduplicate",
        "paragraphs",
        "repeated",
        "repeated_paragraphs",
    ],
    "held_out": ["candidates", "held_out", "items"],
    "decontamination": ["index", "decontaminate", "probe"],
    "topics": ["topic_sample", "topic_model", "topics"],
    "synthesis": ["choose_seeds", "seeds", "prompts", "synthesise", "gates"],
    "nlp_tasks": ["nlp_tasks", "restructuring_requests", "restructure", "restructured_tasks"],
    "mixture": ["bake"],
}
AGAIN = ("_synthetic", "_tasks", "_restructured", "_held_out")
HELPERS = {"storage", "execution", "text", "teacher", "report"}


def base(stage: str) -> str:
    """Returns the name of a stage without what it says about its documents.

    >>> base("deduplicate_synthetic"), base("nlp_tasks")
    ('deduplicate', 'nlp_tasks')
    """
    known = {name for stages in STEPS.values() for name in stages}
    if stage in known:
        return stage
    return next(stage.removesuffix(end) for end in AGAIN if stage.endswith(end))


def test_folders_are_the_steps() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(STEPS) | HELPERS
    assert {path.parent.name for path in PACKAGE.glob("*/stage.py")} == set(STEPS)
    stages = [stage for stages in STEPS.values() for stage in stages]
    assert len(stages) == len(set(stages))


def test_a_run_passes_the_folders_in_their_order(
    tmp_path: Path, serve_teacher: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": str(k), "text": answers.essay(f"web/{k}")} for k in range(12)]
    file = write_jsonl(tmp_path / "web.jsonl", rows)
    teacher = serve_teacher().config()
    recipe = Recipe(
        sources=[Source("web", "web", path=str(file))],
        repeated_paragraphs=RepeatedParagraphs(enabled=True),
        held_out=HeldOut(fraction=0.2, max_documents=1, items=1),
        decontamination=Decontamination(),
        topics=Topics(count=2),
        synthesis=Synthesis(enabled=True, documents=4, weights={"web": 1.0}, teacher=teacher),
        nlp_tasks=NlpTasks(kinds=("cloze",), per_document=1),
        restructuring=Restructuring(
            enabled=True, categories={"web": "web"}, per_document=1, teacher=teacher
        ),
        baking=Baking(sequence_length=64),
        mixtures={"all": {"web": 1.0}},
    )
    ran: list[tuple[str, str]] = []  # (stage, folder of its function)
    run = Runner.run

    def record(runner: Runner, spec: StageSpec[Any]) -> Directory:
        ran.append((spec.name, spec.function.__module__.split(".")[1]))
        return run(runner, spec)

    monkeypatch.setattr(Runner, "run", record)
    curate_serially(recipe, tmp_path / "run")

    on_disk = {path.name.rpartition("-")[0] for path in (tmp_path / "run").iterdir()}
    on_disk -= {"", "mixture", "held_out_mixture"}  # the cache of replies, and what is no stage
    assert on_disk == {stage for stage, _ in ran}
    folders_of = {stage: {folder for other, folder in ran if other == stage} for stage in on_disk}
    for stage, folders in folders_of.items():
        assert folders == {folder for folder, own in STEPS.items() if base(stage) in own}
    assert list(dict.fromkeys(folder for _, folder in ran)) == list(STEPS)
    for step, stages in STEPS.items():
        first = dict.fromkeys(base(stage) for stage, folder in ran if folder == step)
        assert list(first) == stages

"""All items that raw documents held are found again in what decontamination took out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.config import Benchmark, CutSpans, Decontamination, Recipe
from data_pipeline.decontamination import evidence
from data_pipeline.decontamination import stage as step
from data_pipeline.execution.local_engine import LocalEngine
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import ShardOutput
from data_pipeline.execution.task import Task
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_dropped, read_shard

QUESTIONS = [
    "Olga bought seventeen copper kettles from the travelling merchant of Trondheim. How many "
    "kettles remain after she lends four of them to the lighthouse keeper?",
    "A windmill near Alkmaar grinds ninety sacks of rye before noon and half as many afterwards. "
    "How many sacks does it grind during the whole day?",
    "Seven ferrymen share the toll of the frozen canal equally among themselves. What does each "
    "ferryman receive when skaters have paid eighty four guilders?",
    "Twelve beekeepers from Ljubljana fill glass jars with chestnut honey until dusk. How many "
    "jars stand in the cellar once each of them has filled thirty?",
]
SHORT = ["Who milks lynxes?", "who milks lynxes"]  # the same words
FIRST, TEST = [*QUESTIONS[:2], SHORT[0]], [*QUESTIONS[1:], SHORT[1]]
ANSWER = "The answer is published at the end of the almanac."
WAYS = ["Bergen bridges", "Tromso meadows", "Narvik rivers", "Alta roads", "Molde moors"]
FILLER = " ".join(
    f"Hare number {k} had crossed the {way} before anybody there lit a lantern."
    for k, way in enumerate(WAYS)
)


def write(task: Task) -> Ledger:
    with ShardOutput(task, "read") as output:
        for number, text in enumerate(task.settings):
            document = Document(f"web/{number}", text, "web", "web")
            output.count_input(document)
            output.write(document)
    return output.ledger


def decontaminated(folder: Path, texts: list[str], cut_spans: CutSpans | None = None) -> Directory:
    """Checked against FIRST and TEST, two files of one benchmark."""
    benchmark = folder / "gsm8k"
    benchmark.mkdir()
    for name, questions in (("first", FIRST), ("test", TEST)):
        rows = [{"question": question, "answer": ANSWER} for question in questions]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (benchmark / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    recipe = Recipe()
    recipe.decontamination = Decontamination(
        benchmarks=[Benchmark("gsm8k", str(benchmark))],
        held_out=False,
        cut_spans=cut_spans or CutSpans(),
    )
    runner = Runner(folder, LocalEngine(1))
    tiers = {"web": "D1"}

    def written(name: str, documents: list[str]) -> Directory:
        task = Task("web-00000", documents, None, tiers=tiers)
        return runner.stage(name, write, [task], config=documents, inputs=[])

    before, held_out = written("read", texts), written("held_out", [])
    protected = step.protect(recipe, runner, held_out, held_out, held_out)
    return step.decontaminate("decontaminate", recipe, runner, before, held_out, protected)


def test_a_page_of_several_items_touches_all_of_them_in_every_file(tmp_path: Path) -> None:
    page = f"{FILLER} {QUESTIONS[0]} {FILLER} {QUESTIONS[1]} {QUESTIONS[3]}"
    stage = decontaminated(tmp_path, [FILLER, page])
    ((_, dropped),) = read_dropped(stage.path / "dropped" / "web-00000.jsonl.zst")
    assert dropped.evidence["item"] == "gsm8k/first/0"  # the decision names one
    assert set(evidence.of_stage(stage.path)) == {
        ("gsm8k", "gsm8k/first/0"),
        ("gsm8k", "gsm8k/first/1"),
        ("gsm8k", "gsm8k/test/0"),  # the same row
        ("gsm8k", "gsm8k/test/2"),
    }


def test_what_was_cut_out_of_documents_counts_too(tmp_path: Path) -> None:
    page = f"{FILLER} {QUESTIONS[1]} {FILLER}"
    stage = decontaminated(tmp_path, [page], CutSpans(enabled=True, min_words=20, max_share=0.9))
    (kept,) = read_shard(stage.path / "shards" / "web-00000.jsonl.zst")
    assert QUESTIONS[1] not in kept.text
    assert set(evidence.of_stage(stage.path)) == {
        ("gsm8k", "gsm8k/first/1"),
        ("gsm8k", "gsm8k/test/0"),
    }


def test_a_document_that_is_nothing_but_a_short_item_touches_all_of_its_words(
    tmp_path: Path,
) -> None:
    stage = decontaminated(tmp_path, ["Who milks lynxes?"])
    assert set(evidence.of_stage(stage.path)) == {
        ("gsm8k", "gsm8k/first/2"),
        ("gsm8k", "gsm8k/test/3"),
    }


def test_clean_documents_touch_nothing(tmp_path: Path) -> None:
    assert list(evidence.of_stage(decontaminated(tmp_path, [FILLER]).path)) == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got no finished stage, expected a manifest\.json"):
        list(evidence.of_stage(tmp_path / "decontaminate-0"))
    stage = decontaminated(tmp_path, [f"{FILLER} {QUESTIONS[0]}"])
    (index,) = tmp_path.glob("index-*")
    index.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="the index that it used is not beside it any more"):
        list(evidence.of_stage(stage.path))

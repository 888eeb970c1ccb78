"""A decontamination stage lists all items that its documents contained."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.config import Benchmark, CutSpans, Decontamination, Recipe
from data_pipeline.decontamination import stage as step
from data_pipeline.execution.manifest import Directory, file_sha256
from tests.builders import read_jsonl, write_jsonl
from tests.data_pipeline.builders import (
    documents_of,
    dropped_documents,
    kept_documents,
    result_files,
    runner_at,
    stage_of_documents,
)

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


def decontaminated(
    folder: Path,
    *shards: list[str],
    cut_spans: CutSpans | None = None,
    enabled: bool = True,
    workers: int = 0,
) -> Directory:
    """The texts of each shard, checked against FIRST and TEST, two files of one benchmark."""
    benchmark = folder / "gsm8k"
    for name, questions in (("first", FIRST), ("test", TEST)):
        rows = [{"question": question, "answer": ANSWER} for question in questions]
        write_jsonl(benchmark / f"{name}.jsonl", rows)
    recipe = Recipe()
    recipe.decontamination = Decontamination(
        enabled=enabled,
        benchmarks=[Benchmark("gsm8k", str(benchmark))],
        held_out=False,
        cut_spans=cut_spans or CutSpans(),
    )
    with runner_at(folder, workers) as runner:
        before = stage_of_documents(
            runner,
            {f"web-{k:05}": documents_of(texts) for k, texts in enumerate(shards)},
            tiers={"web": "D1"},
        )
        held_out = stage_of_documents(runner, {"web-00000": []}, "held_out")
        protected = step.protect(recipe, runner, held_out, held_out, held_out)
        return step.decontaminate("decontaminate", recipe, runner, before, held_out, protected)


def items(stage: Directory) -> set[tuple[str, str]]:
    """All items in the files of a stage."""
    rows = [row for file in stage.files("contaminated") for row in read_jsonl(file.path)]
    return {(row["benchmark"], row["item"]) for row in rows}


SHARDS = (
    [FILLER, f"{FILLER} {QUESTIONS[0]} {FILLER} {QUESTIONS[1]}"],
    [FILLER],
    [f"{FILLER} {QUESTIONS[1]}", f"{QUESTIONS[3]} {FILLER}"],
)
LINES = [
    """\
{"benchmark": "gsm8k", "item": "gsm8k/first/0"}
{"benchmark": "gsm8k", "item": "gsm8k/first/1"}
{"benchmark": "gsm8k", "item": "gsm8k/test/0"}
""",
    "",
    """\
{"benchmark": "gsm8k", "item": "gsm8k/first/1"}
{"benchmark": "gsm8k", "item": "gsm8k/test/0"}
{"benchmark": "gsm8k", "item": "gsm8k/test/2"}
""",
]


def test_each_shard_has_a_file_of_sorted_items_that_its_ledger_lists(tmp_path: Path) -> None:
    stage = decontaminated(tmp_path, *SHARDS)
    for ledger, lines in zip(stage.ledgers(), LINES, strict=True):
        name = f"contaminated/{ledger.shard}.jsonl"
        path = stage.path / name
        assert path.read_text("utf-8") == lines
        assert ledger.files[name] == file_sha256(path)
    assert items(stage) == {
        ("gsm8k", f"gsm8k/{row}") for row in ("first/0", "first/1", "test/0", "test/2")
    }


def test_workers_and_interruptions_do_not_change_a_byte(tmp_path: Path) -> None:
    stage = decontaminated(tmp_path, *SHARDS)
    expected = result_files(stage.path)
    # What a killed run leaves: one shard is finished, one has no ledger, one was being written.
    (stage.path / "manifest.json").unlink()
    for name in ("web-00001", "web-00002"):
        (stage.path / "ledger" / f"{name}.json").unlink()
    (stage.path / "contaminated" / "web-00002.jsonl").rename(
        stage.path / "contaminated" / ".web-00002.jsonl.1.partial"
    )
    assert result_files(decontaminated(tmp_path, *SHARDS, workers=2).path) == expected


def test_a_page_of_several_items_contains_all_of_them_in_every_file(tmp_path: Path) -> None:
    page = f"{FILLER} {QUESTIONS[0]} {FILLER} {QUESTIONS[1]} {QUESTIONS[3]}"
    stage = decontaminated(tmp_path, [FILLER, page])
    (dropped,) = dropped_documents(stage)
    assert dropped.evidence["item"] == "gsm8k/first/0"  # the decision names one
    assert items(stage) == {
        ("gsm8k", "gsm8k/first/0"),
        ("gsm8k", "gsm8k/first/1"),
        ("gsm8k", "gsm8k/test/0"),  # the same row
        ("gsm8k", "gsm8k/test/2"),
    }


def test_passages_that_were_cut_count_too(tmp_path: Path) -> None:
    page = f"{FILLER} {QUESTIONS[1]} {FILLER}"
    cut_spans = CutSpans(enabled=True, min_words=20, max_share=0.9)
    stage = decontaminated(tmp_path, [page], cut_spans=cut_spans)
    (kept,) = kept_documents(stage)
    assert QUESTIONS[1] not in kept.text
    assert items(stage) == {
        ("gsm8k", "gsm8k/first/1"),
        ("gsm8k", "gsm8k/test/0"),
    }


def test_a_document_that_is_nothing_but_a_short_item_contains_all_items_of_its_words(
    tmp_path: Path,
) -> None:
    stage = decontaminated(tmp_path, ["Who milks lynxes?"])
    assert items(stage) == {
        ("gsm8k", "gsm8k/first/2"),
        ("gsm8k", "gsm8k/test/3"),
    }


def test_clean_documents_contain_no_item(tmp_path: Path) -> None:
    assert items(decontaminated(tmp_path, [FILLER])) == set()


def test_without_decontamination_there_is_no_file(tmp_path: Path) -> None:
    stage = decontaminated(tmp_path, [f"{FILLER} {QUESTIONS[0]}"], enabled=False)
    assert not (stage.path / "contaminated").exists()
    assert items(stage) == set()

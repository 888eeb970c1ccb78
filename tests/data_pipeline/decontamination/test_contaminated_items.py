"""A decontamination stage lists all items that its documents contained."""

from __future__ import annotations

import json
from pathlib import Path

from data_pipeline.config import Benchmark, CutSpans, Decontamination, Recipe
from data_pipeline.decontamination import stage as step
from data_pipeline.execution.local_engine import LocalEngine
from data_pipeline.execution.manifest import Directory, Ledger, file_sha256
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


def decontaminated(
    folder: Path,
    *shards: list[str],
    cut_spans: CutSpans | None = None,
    enabled: bool = True,
    workers: int = 1,
) -> Directory:
    """The texts of each shard, checked against FIRST and TEST, two files of one benchmark."""
    benchmark = folder / "gsm8k"
    benchmark.mkdir(exist_ok=True)
    for name, questions in (("first", FIRST), ("test", TEST)):
        rows = [{"question": question, "answer": ANSWER} for question in questions]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (benchmark / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    recipe = Recipe()
    recipe.decontamination = Decontamination(
        enabled=enabled,
        benchmarks=[Benchmark("gsm8k", str(benchmark))],
        held_out=False,
        cut_spans=cut_spans or CutSpans(),
    )
    with LocalEngine(workers) as engine:
        runner = Runner(folder, engine)
        tiers = {"web": "D1"}

        def written(name: str, shards: tuple[list[str], ...]) -> Directory:
            tasks = [
                Task(f"web-{k:05}", texts, None, tiers=tiers) for k, texts in enumerate(shards)
            ]
            return runner.stage(name, write, tasks, config=shards, inputs=[])

        before, held_out = written("read", shards), written("held_out", ([],))
        protected = step.protect(recipe, runner, held_out, held_out, held_out)
        return step.decontaminate("decontaminate", recipe, runner, before, held_out, protected)


def items(stage: Directory) -> set[tuple[str, str]]:
    """All items in the files of a stage."""
    lines = [
        line
        for file in stage.files("contaminated")
        for line in file.path.read_text("utf-8").splitlines()
    ]
    return {(row["benchmark"], row["item"]) for row in map(json.loads, lines)}


def contents(stage: Directory) -> dict[str, bytes]:
    """Every file of a stage but its times."""
    paths = [path for path in stage.path.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(stage.path)): path.read_bytes()
        for path in paths
        if path.name != "timing.json"
    }


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
    expected = contents(stage)
    # What a killed run leaves: one shard is finished, one has no ledger, one was being written.
    (stage.path / "manifest.json").unlink()
    for name in ("web-00001", "web-00002"):
        (stage.path / "ledger" / f"{name}.json").unlink()
    (stage.path / "contaminated" / "web-00002.jsonl").rename(
        stage.path / "contaminated" / ".web-00002.jsonl.1.partial"
    )
    assert contents(decontaminated(tmp_path, *SHARDS, workers=2)) == expected


def test_a_page_of_several_items_contains_all_of_them_in_every_file(tmp_path: Path) -> None:
    page = f"{FILLER} {QUESTIONS[0]} {FILLER} {QUESTIONS[1]} {QUESTIONS[3]}"
    stage = decontaminated(tmp_path, [FILLER, page])
    ((_, dropped),) = read_dropped(stage.path / "dropped" / "web-00000.jsonl.zst")
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
    (kept,) = read_shard(stage.path / "shards" / "web-00000.jsonl.zst")
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

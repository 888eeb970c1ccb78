"""The section on tasks: agrees with the ledgers, examples with their answers marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.report import tasks
from data_pipeline.report.flow import ReportStage
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import Document
from tests.data_pipeline.builders import report_page, stage_with_files


def task(kind: str, k: int, source: str, answer: str = "Hares <b>do</b>.") -> Document:
    meta = {"task": kind, "from": f"web/{k}", "from_source": "web", "answer": answer}
    return Document(f"{source}/{kind}/web/{k}", f"Who runs? {answer}", source, "tasks", meta)


def directory(root: Path, stage: str, kept: list[Document], **extras: dict[str, Any]) -> Directory:
    """A finished stage; `extras`: shard -> extra. The documents are in the first shard."""
    shards = []
    for number, (name, extra) in enumerate((extras or {"part": {}}).items()):
        ledger, own = Ledger(name, extra=extra), kept if number == 0 else []
        for document in own:
            counts = ledger.of(document.source, "D3")
            counts.documents_in += 1
            counts.kept += 1
        shards.append((ledger, own, []))
    return stage_with_files(root / stage, stage, shards)


def stages(root: Path) -> list[Directory]:
    usage = {"model": "m", "requests": 5, "failed": 1, "prompt_tokens": 70, "completion_tokens": 9}
    rules = [task("cloze", k, "nlp_tasks") for k in range(5)]
    clean = [task("title", k, "restructured", "A <i>Form</i>") for k in range(2)]
    asked = {"usage": usage | {"cost": 0.5, "estimated": 0}}
    write_text(
        root / "restructure" / "spent" / "a.json", '{"cached": 2, "retries": 3, "paid": 0.1}'
    )
    return [
        directory(root, "nlp_tasks", rules, a={"kinds": {"cloze": {"kept": 5}}}),
        directory(root, "decontaminate_tasks", rules[:4]),
        directory(root, "restructure", [], a=asked, b=asked),
        directory(
            root,
            "restructured_tasks",
            [*clean, task("title", 7, "restructured")],
            a={"kinds": {"title": {"kept": 2, "copied": 3}, "cloze": {"gaps": 1}}},
            b={"kinds": {"title": {"kept": 1, "copied": 1, "off_topic": 2}}},
        ),
        directory(root, "decontaminate_restructured", clean),
    ]


def test_rows_are_sums_over_shards_by_writer_and_kind(tmp_path: Path) -> None:
    found = tasks.section(ReportStage.all_of(stages(tmp_path)))
    assert found is not None
    assert [
        (row["writer"], row["name"], row["written"], row["kept"], row["reasons"])
        for row in found["kinds"]
    ] == [
        ("Rules", "cloze", 5, 5, []),
        ("Teacher", "cloze", 1, 0, [("gaps", 1)]),
        ("Teacher", "title", 9, 3, [("copied", 4), ("off_topic", 2)]),
    ]
    assert (found["kept"], found["clean"]) == (8, 6)
    assert found["usage"] == {
        "stage": "restructure",
        "model": "m",
        "requests": 10,
        "failed": 2,
        "estimated": 0,
        "prompt_tokens": 140,
        "completion_tokens": 18,
        "cost": 1.0,
        "cached": 2,
        "retries": 3,
        "paid": 0.1,
    }


def test_examples_are_from_decontaminated_tasks(tmp_path: Path) -> None:
    found = tasks.section(ReportStage.all_of(stages(tmp_path)))
    assert found is not None
    cloze, none, title = (row["examples"] for row in found["kinds"])
    assert len(cloze) == tasks.NUM_EXAMPLES and none == []
    assert {example["id"] for example in title} == {
        "restructured/title/web/0",
        "restructured/title/web/1",
    }
    for example in title:
        assert example["segments"] == [("Who runs? ", False), ("A <i>Form</i>", True)]


def test_a_long_prompt_keeps_its_end_and_its_answer(tmp_path: Path) -> None:
    long = task("title", 1, "restructured")
    long.text = "Hares run. " * 500 + "What is the title? " + long.meta["answer"]
    made = directory(tmp_path, "restructured_tasks", [long], a={"kinds": {"title": {"kept": 1}}})
    found = tasks.section(ReportStage.all_of([made]))
    assert found is not None
    segments = found["kinds"][0]["examples"][0]["segments"]
    assert segments[-1] == (long.meta["answer"], True)
    assert segments[-2][0].endswith("What is the title? ")
    assert sum(len(piece) for piece, _ in segments) < len(long.text)


def test_the_page_shows_the_section_escaped_or_leaves_it_out(tmp_path: Path) -> None:
    whole = report_page(tmp_path, stages(tmp_path))
    assert '<section id="tasks">' in whole and 'href="#tasks"' in whole
    assert "A &lt;i&gt;Form&lt;/i&gt;" in whole and "<i>Form" not in whole
    assert "off topic" in whole and "2 from the cache" in whole
    without = report_page(tmp_path, [directory(tmp_path, "clean", [])])
    assert 'id="tasks"' not in without and 'href="#tasks"' not in without

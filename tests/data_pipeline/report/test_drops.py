"""Selection and attribution of dropped documents, and the rows of the flow chart."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.report import contamination, drops, flow
from data_pipeline.report.flow import ReportStage
from tests.data_pipeline.builders import report_stage


def test_source_of_an_id_is_the_longest_matching_name() -> None:
    sources = ["web", "web/news", "code"]
    assert drops._source_of("web/news/1", sources) == "web/news"
    assert drops._source_of("web/new/1", sources) == "web"
    assert drops._source_of("websites/1", sources) == ""


def test_round_robin_ends_at_the_count_or_with_empty_queues() -> None:
    assert drops.round_robin(["abc", "", "yz"], 9) == ["a", "y", "b", "z", "c"]
    assert drops.round_robin(["abc", "yz"], 3) == ["a", "y", "b"]
    assert drops.round_robin([], 3) == []


def test_items_indexed_for_several_n_count_once() -> None:
    ledgers = [Ledger(n, extra={"items": {"gsm8k": 30, "mmlu": 9}}) for n in ("8", "13")]
    assert contamination._num_indexed_items([report_stage("index", *ledgers)]) == {
        "gsm8k": 30,
        "mmlu": 9,
    }


def test_flow_carries_untouched_sources_and_adds_new_ones() -> None:
    def ledger(**sources: tuple[int, int]) -> Ledger:
        made = Ledger("part")
        for name, (came, kept) in sources.items():
            counts = made.of(name)
            counts.documents_in, counts.kept = came, kept
            if came > kept:
                counts.dropped["x"] = came - kept
        return made

    stages = ReportStage.all_of(
        [
            Directory(
                Path("nowhere"), {"stage": name, "address": "x", "shards": [account.to_json()]}
            )
            for name, account in (
                ("read", ledger(web=(10, 10), code=(5, 5))),
                ("clean", ledger(web=(10, 8), code=(5, 5))),
                ("held_out", ledger(web=(1, 1))),  # a sample of the documents, not their way
                ("decontaminate", ledger(web=(8, 7), code=(5, 4))),
                ("nlp_tasks", ledger(tasks=(20, 20))),
                ("decontaminate_tasks", ledger(tasks=(20, 17))),
            )
        ]
    )
    rows = flow.flow_rows(stages, "documents")
    assert [(row.name, row.kept, row.lost) for row in rows] == [
        ("Read", {"web": 10, "code": 5}, 0),
        ("Clean", {"web": 8, "code": 5}, 2),
        ("Decontaminate", {"web": 7, "code": 4}, 2),
        ("Write tasks", {"web": 7, "code": 4, "tasks": 20}, 0),
        ("Decontaminate tasks", {"web": 7, "code": 4, "tasks": 17}, 3),
    ]

"""Recall on planted leaks falls when the rules are weakened, and never varies."""

from typing import Any

import pytest

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import planted_leaks
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import build_index
from data_pipeline.storage.document import Document
from tests.data_pipeline.builders import nonsense


def items(benchmark: str, number: int, seed: int = 0) -> list[BenchmarkItem]:
    return [
        BenchmarkItem(
            f"{benchmark}/test/{k}",
            benchmark,
            {"question": nonsense(30, seed + 2 * k), "answer": nonsense(40, seed + 2 * k + 1)},
        )
        for k in range(number)
    ]


CLEAN = [Document(f"web/{k}", nonsense(400, 10**6 + k), "web", "web") for k in range(20)]


def measure(
    config: Decontamination, what: list[BenchmarkItem], clean: list[Document] = CLEAN, n: int = 13
) -> dict[str, Any]:
    return planted_leaks.measure_recall(what, clean, config, build_index(what, n, config))


def recall(measured: dict[str, Any], kind: str, benchmark: str = "b") -> float:
    (found,) = (
        row["recall"]
        for row in measured["results"]
        if (row["kind"], row["benchmark"]) == (kind, benchmark)
    )
    return float(found)


def test_every_kind_is_measured_for_every_benchmark() -> None:
    measured = measure(Decontamination(), items("b", 12) + items("c", 5, seed=1000))
    keys = [(row["benchmark"], row["kind"]) for row in measured["results"]]
    assert keys == [(name, kind) for name in ("b", "c") for kind in planted_leaks.KINDS]
    assert [row["planted"] for row in measured["results"]] == [12] * 11 + [5] * 11
    for row in measured["results"]:
        assert row["recall"] == round(row["found"] / row["planted"], 4)
    assert measured["false_positives"] == {
        "documents": 20,
        "found": 0,
        "share": 0.0,
        "examples": [],
    }


def test_the_default_rules_find_what_they_promise() -> None:
    measured = measure(Decontamination(), items("b", 100))
    for kind in ("verbatim", "rewrapped", "repunctuated", "inside_100_words", "inside_1500_words"):
        assert recall(measured, kind) >= 0.99, kind
    assert recall(measured, "question_only") >= 0.98
    assert recall(measured, "edited_5_percent") >= 0.97
    assert recall(measured, "edited_10_percent") >= 0.85


def test_the_papers_rule_alone_is_measured_as_blind_to_dilution_and_edits() -> None:
    papers = Decontamination(item_share=0.0, absolute_hits=0)
    measured = measure(papers, items("b", 60))
    assert recall(measured, "verbatim") == 1.0
    assert recall(measured, "inside_300_words") == 0.0
    assert recall(measured, "edited_10_percent") < 0.5


def test_what_is_not_indexed_is_measured_as_not_found() -> None:
    config = Decontamination()
    measured = planted_leaks.measure_recall(
        items("b", 20), CLEAN, config, build_index([], 13, config)
    )
    assert {row["found"] for row in measured["results"]} == {0}


def test_alarms_on_the_runs_own_text_are_counted_with_their_evidence() -> None:
    what = items("b", 10)
    leak = Document("web/leak", f"{nonsense(50, 99)} {what[3].parts['answer']}", "web", "web")
    measured = measure(Decontamination(), what, [*CLEAN, leak])
    alarms = measured["false_positives"]
    assert (alarms["documents"], alarms["found"], alarms["share"]) == (21, 1, round(1 / 21, 6))
    assert alarms["examples"][0]["item"] == "b/test/3"


def test_the_same_input_gives_the_same_table_whatever_the_order_of_items() -> None:
    papers = Decontamination(item_share=0.0, absolute_hits=0)  # finds some of each, so chance shows
    what = items("b", 150)
    first = measure(papers, what)
    assert 0 < recall(first, "edited_10_percent") < 1
    assert first["results"][0]["planted"] == planted_leaks.MAX_ITEMS
    assert measure(papers, what) == first
    assert measure(papers, what[::-1]) == first


def test_cost_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted_leaks, "CLEAN_CHARACTERS", 10_000)
    monkeypatch.setattr(planted_leaks, "MAX_ITEM_CHARACTERS", 1_000)
    book = BenchmarkItem("b/test/book", "b", {"document": nonsense(5000, 3)})
    measured = measure(Decontamination(), [book, *items("b", 3)])
    assert measured["results"][0]["planted"] == 3
    assert 0 < measured["false_positives"]["documents"] < 20


def test_without_clean_text_there_is_nothing_to_plant_in() -> None:
    with pytest.raises(ValueError, match="no clean text"):
        measure(Decontamination(), items("b", 1), clean=[])


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ({"question": "Q?", "choice_0": "a", "choice_1": "b", "question_answer": "Q? b"}, "Q? b"),
        ({"context": "C", "ending_0": "a", "context_ending": "C a"}, "C a"),
        ({"with_option1": "he ran", "with_option2": "she ran"}, "he ran"),
        ({"question": "Q?", "answer": "A.", "annotated_answer": "<<A>>A."}, "Q?\nA."),
        ({"question": "Q?", "choice_0": "a"}, "Q?"),
        ({"choice_0": "a", "choice_1": "b"}, "a\nb"),
    ],
)
def test_a_whole_item_is_what_a_text_would_hold(parts: dict[str, str], whole: str) -> None:
    assert planted_leaks.whole_text(BenchmarkItem("b/0", "b", parts)) == whole


def test_paraphrases_are_planted_as_they_are() -> None:
    what = items("b", 8)
    paraphrased = [
        BenchmarkItem(f"b/paraphrased/{k}", "b", {"question": nonsense(30, 7000 + k)})
        for k in range(8)
    ]
    config = Decontamination()
    index = build_index(what, 13, config)
    measured = planted_leaks.measure_recall(
        what, CLEAN, config, index, paraphrases=[*what[:3], *paraphrased]
    )
    assert recall(measured, "paraphrased") == round(3 / 11, 4)
    kinds = [row["kind"] for row in measured["results"]]
    assert kinds == [*planted_leaks.KINDS, *planted_leaks.PARAPHRASE_KINDS]


def test_questions_too_short_to_be_told_from_other_text_are_counted_apart() -> None:
    asked = [
        BenchmarkItem(
            f"b/test/{k}",
            "b",
            {"question": f"Why do {nonsense(1, k)} sleep?", "answer": nonsense(30, k)},
        )
        for k in range(9)
    ]
    asked.append(BenchmarkItem("b/test/9", "b", {"question": nonsense(30, 77)}))
    measured = measure(Decontamination(), asked)
    rows = {row["kind"]: row for row in measured["results"]}
    assert (rows["question_only"]["found"], rows["question_only"]["generic"]) == (10, 0)
    inside = rows["question_inside_300_words"]
    assert (inside["found"], inside["generic"]) == (1, 9)
    assert {row["generic"] for kind, row in rows.items() if "question" not in kind} == {0}


def test_fewer_items_are_planted_where_it_is_asked_for() -> None:
    config = Decontamination()
    what = items("b", 12)
    measured = planted_leaks.measure_recall(
        what, CLEAN, config, build_index(what, 13, config), max_items=4
    )
    assert {row["planted"] for row in measured["results"]} == {4}

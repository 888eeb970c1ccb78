"""Items that documents touch are told from the others by what decontamination itself writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hare_jax.evaluation.benchmarks import clean_subset, statistics
from hare_jax.evaluation.benchmarks.clean_subset import ContaminatedItems
from hare_jax.evaluation.benchmarks.decontamination_status import DecontaminationStatus

SHA, OTHER = "12ab", "ffff"
LAYOUT = {"mmlu": {"files": {"test.jsonl.gz": SHA, "dev.jsonl.gz": OTHER}}}
INDEXED = {"mmlu": [f"test.jsonl.gz {SHA}"], "gsm8k": ["test.jsonl.gz 1"]}


def samples(right: dict[int, float], *, filter_: str = "none") -> list[dict[str, Any]]:
    return [
        {"doc": {"item": f"mmlu/test/{row}"}, "filter": filter_, "acc": value}
        for row, value in right.items()
    ]


def of(
    found: ContaminatedItems, asked: dict[str, list[dict[str, Any]]], *, by_items: bool = True
) -> dict[str, Any]:
    return clean_subset.of_benchmark(found, "mmlu", "acc,none", asked, by_items=by_items)


def numbers(parts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: (pytest.approx(part["value"]), part["items"]) if part else None
        for name, part in parts.items()
        if name != "state"
    }


def test_evidence_of_all_stages_is_put_together() -> None:
    def read(stage: Path) -> Iterator[tuple[str, str]]:
        yield "mmlu", f"mmlu/test/{stage.name}"
        yield "mmlu", "mmlu/test/9"

    checked = DecontaminationStatus(INDEXED, [Path("data/1"), Path("data/2")])
    found = clean_subset.load_contaminated_items(checked, read, LAYOUT)
    assert found == ContaminatedItems(
        {"mmlu": {"mmlu/test/1", "mmlu/test/2", "mmlu/test/9"}}, INDEXED, LAYOUT, ""
    )


def test_a_score_is_split_by_what_was_touched() -> None:
    found = ContaminatedItems(
        {"mmlu": {"mmlu/test/1", "mmlu/test/7", "mmlu/dev/0"}}, INDEXED, LAYOUT
    )
    asked = {
        "anatomy": samples({0: 1.0, 1: 1.0}) + samples({0: 0.0, 1: 0.0}, filter_="strict"),
        "virology": samples({5: 0.0, 6: 0.0, 7: 1.0, 8: 1.0}),
    }
    split = of(found, asked)
    assert split.pop("state") == "known"
    assert numbers(split) == {"all": (4 / 6, 6), "clean": (2 / 4, 4), "touched": (1.0, 2)}
    # All of them make the benchmark's own score; subjects may also weigh alike.
    alike = of(found, asked, by_items=False)
    scores = [statistics.estimate([1, 1]), statistics.estimate([0, 0, 1, 1])]
    assert alike["all"] == statistics.combined(scores, by_items=False)
    assert alike["clean"]["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert alike["clean"]["stderr"] is None  # of one item nobody knows


def test_no_item_is_no_score() -> None:
    split = of(ContaminatedItems({}, INDEXED, LAYOUT), {"anatomy": samples({0: 1.0, 1: 0.0})})
    assert split["touched"] is None and split["clean"] == split["all"]
    # A subject without an item of a part is left out of it.
    found = ContaminatedItems({"mmlu": {"mmlu/test/0", "mmlu/test/1"}}, INDEXED, LAYOUT)
    asked = {"anatomy": samples({0: 1.0, 1: 0.0}), "virology": samples({5: 1.0, 6: 1.0})}
    assert numbers(of(found, asked, by_items=False)) == {
        "all": (0.75, 4),
        "clean": (1.0, 2),
        "touched": (0.5, 2),
    }


def test_what_cannot_be_told_is_unknown() -> None:
    asked = {"anatomy": samples({0: 1.0, 1: 0.0})}

    def reason(found: ContaminatedItems, asked: dict[str, list[dict[str, Any]]] = asked) -> str:
        split = of(found, asked)
        assert split.keys() == {"state", "reason"} and split["state"] == "unknown"
        return str(split["reason"])

    def damaged(stage: Path) -> Iterator[tuple[str, str]]:
        raise ValueError(f"{stage}: got no finished stage")
        yield

    checked = DecontaminationStatus(INDEXED, [Path("decontaminate-1")])
    gone = "the stages that made the training data are not there to be read"
    assert reason(clean_subset.load_contaminated_items(None, damaged, LAYOUT)) == gone
    assert reason(clean_subset.load_contaminated_items(checked, None, LAYOUT)) == gone
    said = reason(clean_subset.load_contaminated_items(checked, damaged, LAYOUT))
    assert said == "decontaminate-1: got no finished stage"
    said = reason(ContaminatedItems({}, {"gsm8k": ["test.jsonl.gz 1"]}, LAYOUT))
    assert said == "not all of the training data was compared with this benchmark"
    another = "decontamination has indexed another test file than the one evaluated"
    assert reason(ContaminatedItems({}, {"mmlu": [f"test.jsonl.gz {OTHER}"]}, LAYOUT)) == another
    assert reason(ContaminatedItems({}, {"mmlu": [f"mmlu.jsonl.gz {SHA}"]}, LAYOUT)) == another
    assert reason(ContaminatedItems({}, INDEXED, {})) == another
    hub: list[dict[str, Any]] = [{"doc": {}, "filter": "none", "acc": 1.0}]
    said = reason(ContaminatedItems({}, INDEXED, {}), {"anatomy": hub})
    assert said.startswith("its items have no names")
    pairs = [{"doc": {"item": "mmlu/test/0"}, "filter": "none", "acc": (0, 1.0)}]
    assert (
        reason(ContaminatedItems({}, INDEXED, LAYOUT), {"anatomy": pairs})
        == "acc,none is no mean over items"
    )

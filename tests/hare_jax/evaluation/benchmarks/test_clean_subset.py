"""Contaminated items are those that decontamination itself has listed."""

from __future__ import annotations

import hashlib
import json
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


def write_stage(folder: Path, *shards: list[tuple[str, str]]) -> Path:
    """A decontaminate* stage with the contaminated items of each shard."""
    (folder / "contaminated").mkdir(parents=True)
    listed = []
    for number, items in enumerate(shards):
        rows = [json.dumps({"benchmark": name, "item": item}) + "\n" for name, item in items]
        content = "".join(rows).encode()
        file = f"contaminated/web-{number:05d}.jsonl"
        (folder / file).write_bytes(content)
        files = {file: hashlib.sha256(content).hexdigest(), "shards/x": "0"}
        listed.append({"shard": f"web-{number:05d}", "files": files})
    (folder / "manifest.json").write_text(json.dumps({"shards": listed}))
    return folder


def test_items_of_all_stages_and_shards_are_put_together(tmp_path: Path) -> None:
    stages = [
        write_stage(tmp_path / "1", [("mmlu", "mmlu/test/1")], [], [("mmlu", "mmlu/test/9")]),
        write_stage(tmp_path / "2", [("mmlu", "mmlu/test/2"), ("mmlu", "mmlu/test/9")]),
    ]
    status = DecontaminationStatus(INDEXED, stages)
    items = clean_subset.load_contaminated_items(status, LAYOUT)
    assert items == ContaminatedItems(
        {"mmlu": {"mmlu/test/1", "mmlu/test/2", "mmlu/test/9"}}, INDEXED, LAYOUT, ""
    )


def test_a_score_is_split_by_what_is_contaminated() -> None:
    found = ContaminatedItems(
        {"mmlu": {"mmlu/test/1", "mmlu/test/7", "mmlu/dev/0"}}, INDEXED, LAYOUT
    )
    asked = {
        "anatomy": samples({0: 1.0, 1: 1.0}) + samples({0: 0.0, 1: 0.0}, filter_="strict"),
        "virology": samples({5: 0.0, 6: 0.0, 7: 1.0, 8: 1.0}),
    }
    split = of(found, asked)
    assert split.pop("state") == "known"
    assert numbers(split) == {"all": (4 / 6, 6), "clean": (2 / 4, 4), "contaminated": (1.0, 2)}
    # All of them make the benchmark's own score; subjects may also weigh alike.
    alike = of(found, asked, by_items=False)
    scores = [statistics.estimate([1, 1]), statistics.estimate([0, 0, 1, 1])]
    assert alike["all"] == statistics.combine(scores, by_items=False)
    assert alike["clean"]["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert alike["clean"]["stderr"] is None  # of one item nobody knows


def test_no_item_is_no_score() -> None:
    split = of(ContaminatedItems({}, INDEXED, LAYOUT), {"anatomy": samples({0: 1.0, 1: 0.0})})
    assert split["contaminated"] is None and split["clean"] == split["all"]
    # A subject without an item of a part is left out of it.
    found = ContaminatedItems({"mmlu": {"mmlu/test/0", "mmlu/test/1"}}, INDEXED, LAYOUT)
    asked = {"anatomy": samples({0: 1.0, 1: 0.0}), "virology": samples({5: 1.0, 6: 1.0})}
    assert numbers(of(found, asked, by_items=False)) == {
        "all": (0.75, 4),
        "clean": (1.0, 2),
        "contaminated": (0.5, 2),
    }


def test_what_is_not_known_is_unknown(tmp_path: Path) -> None:
    asked = {"anatomy": samples({0: 1.0, 1: 0.0})}

    def reason(found: ContaminatedItems, asked: dict[str, list[dict[str, Any]]] = asked) -> str:
        split = of(found, asked)
        assert split.keys() == {"state", "reason"} and split["state"] == "unknown"
        return str(split["reason"])

    def reason_of(stage: Path) -> str:
        status = DecontaminationStatus(INDEXED, [stage])
        return reason(clean_subset.load_contaminated_items(status, LAYOUT))

    missing = "the stages that made the training data cannot be read"
    assert reason(clean_subset.load_contaminated_items(None, LAYOUT)) == missing
    assert "No such file" in reason_of(tmp_path / "nothing")
    stage = write_stage(tmp_path / "1", [("mmlu", "mmlu/test/1")])
    (stage / "contaminated" / "web-00000.jsonl").write_text("")
    assert reason_of(stage).endswith(
        "contaminated/web-00000.jsonl has changed since it was written"
    )
    (stage / "manifest.json").write_text(json.dumps({"shards": [{"files": {"shards/x": "0"}}]}))
    assert "an older version made it" in reason_of(stage)
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
        == "acc,none is not a mean over items"
    )

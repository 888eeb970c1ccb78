"""Usage of teachers: sums over shards by stage and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.report import teachers
from data_pipeline.storage.atomic import write_text
from data_pipeline.teacher.ask_shard import SPENT
from data_pipeline.teacher.usage import Usage
from tests.data_pipeline.builders import stage_of_ledgers


def directory(stage: str, *extras: dict[str, Any], at: Path = Path()) -> Directory:
    ledgers = [Ledger(f"{k}", extra=extra) for k, extra in enumerate(extras)]
    return stage_of_ledgers(stage, *ledgers, parent=at)


def test_rows_are_sums_by_stage_and_model(tmp_path: Path) -> None:
    one = Usage("m", requests=3, failed=1, prompt_tokens=10, completion_tokens=20, cost=0.25)
    other = Usage("m", requests=2, estimated=2, prompt_tokens=5, completion_tokens=6, cost=0.5)
    spent = tmp_path / "restructure" / SPENT / "0.json"  # of the run that made it
    write_text(spent, json.dumps({"cached": 1, "retries": 3, "paid": 0.25}))
    rows = teachers.usage(
        [
            directory("clean", {}, {"sentences": 3}),
            directory("synthesise", {"usage": one.to_json()}, {"usage": other.to_json()}),
            directory(
                "restructure",
                {"usage": other.to_json() | {"model": "n"}},
                {"usage": None},
                at=tmp_path,
            ),
        ]
    )
    names = ("requests", "failed", "estimated", "prompt_tokens", "completion_tokens", "cost")
    names += ("cached", "retries", "paid")
    assert rows == [
        {"stage": "synthesise", "model": "m"}
        | dict(zip(names, (5, 1, 2, 15, 26, 0.75, 0, 0, 0), strict=True)),
        {"stage": "restructure", "model": "n"}
        | dict(zip(names, (2, 0, 2, 5, 6, 0.5, 1, 3, 0.25), strict=True)),
    ]

"""Requests, tokens and cost of teachers, summed over the ledgers of the stages that use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipeline.execution.manifest import Directory
from data_pipeline.report.results import read_json
from data_pipeline.teacher.ask_shard import SPENT


def usage(directories: Sequence[Directory]) -> list[dict[str, Any]]:
    """Returns one row per stage and model: `stage`, `model`, and the sums of Usage.to_json().

    A stage that uses a teacher writes these counts into `ledger.extra["usage"]` of each shard.
    `estimated` is the number of requests whose token counts are estimates because the server
    reported none. `cached`, `retries` and `paid` describe the run that produced the shards; they
    are not part of its result.

    >>> usage([synthesis])                                         # doctest: +SKIP
    [{'stage': 'synthesise', 'model': 'm', 'requests': 9, 'failed': 1, 'estimated': 0,
      'prompt_tokens': 800, 'completion_tokens': 7000, 'cost': 0.03, 'cached': 0, 'retries': 2,
      'paid': 0.03}]
    """
    rows: dict[tuple[str, str], Counter[str]] = {}
    for directory in directories:
        for ledger in directory.ledgers():
            counts = dict(ledger.extra.get("usage") or {})
            if model := counts.pop("model", ""):
                row = rows.setdefault((directory.manifest["stage"], model), Counter())
                row.update(counts)
                spent = read_json(directory.path / SPENT / f"{ledger.shard}.json") or {}
                row.update({name: spent.get(name, 0) for name in ("cached", "retries", "paid")})
    return [{"stage": stage, "model": model} | dict(row) for (stage, model), row in rows.items()]

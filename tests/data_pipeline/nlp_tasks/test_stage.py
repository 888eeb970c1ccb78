from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.config import NlpTasks, Recipe
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.nlp_tasks.stage import write_tasks
from tests.data_pipeline.builders import (
    dropped_by_id,
    kept_by_id,
    runner_at,
    stage_of_documents,
)
from tests.data_pipeline.nlp_tasks.kinds.test_kinds import everything, make


@pytest.mark.slow
def test_stage_drops_tasks_with_too_many_tokens_and_counts_kinds(tmp_path: Path) -> None:
    recipe = Recipe(nlp_tasks=NlpTasks(max_tokens=90))
    with runner_at(tmp_path) as runner:
        made = stage_of_documents(runner, {"a": everything()}, "made", {"web": "D1"})
        again = stage_of_documents(runner, {"a": everything()}, "more", {"web": "D3"})
        found = write_tasks(recipe, runner, [made, again])
    written, dropped = kept_by_id(found), dropped_by_id(found)
    expected = {task.id: task for task in make(recipe.nlp_tasks)}
    assert written.keys() | dropped.keys() == expected.keys()
    assert len(written) + len(dropped) == len(expected) and written and dropped
    encode = MixtureTokenizer().encode
    assert all(len(encode(task.text)) <= 90 for task in written.values())
    for one in dropped.values():
        assert one.reason == "too_many_tokens"
        assert one.evidence == {"tokens": len(encode(one.document.text)), "max_tokens": 90}
        assert one.evidence["tokens"] > 90
    kinds: Counter[tuple[str, str]] = Counter()
    for ledger in found.ledgers():
        for kind, became in ledger.extra["kinds"].items():
            kinds.update({(kind, what): n for what, n in became.items()})
    assert kinds == Counter(
        (task.meta["task"], "kept" if name in written else "too_many_tokens")
        for name, task in expected.items()
    )

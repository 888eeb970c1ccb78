"""Items that documents touch are told from the others by what decontamination itself writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.config import Benchmark, Decontamination
from data_pipeline.decontamination import benchmarks, index, rules
from data_pipeline.document import Document, Dropped
from data_pipeline.shards import DroppedWriter, read_dropped
from hare_jax.evaluation.clean_subset import split_scores, touched_items

QUESTIONS = [
    "Olga bought seventeen copper kettles from the travelling merchant of Trondheim. How many "
    "kettles remain after she lends four of them to the lighthouse keeper?",
    "A windmill near Alkmaar grinds ninety sacks of rye before noon and half as many afterwards. "
    "How many sacks does it grind during the whole day?",
    "Seven ferrymen share the toll of the frozen canal equally among themselves. What does each "
    "ferryman receive when skaters have paid eighty four guilders?",
]
ANSWERS = ["Olga keeps 17 - 4 = 13 kettles.", "It grinds 90 + 45 = 135.", "Each has 84 / 7 = 12."]


def test_items_are_touched_by_the_documents_that_hold_them(tmp_path: Path) -> None:
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    rows = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = Decontamination().resolved()
    items = list(benchmarks.read(Benchmark("gsm8k", str(folder))))
    decide = rules.build(config, index.build_index(items, config.ngram_words["D1"], config))
    texts = [f"Puzzles of the week. {QUESTIONS[1]} {ANSWERS[1]} Good luck!", "Hares are fast."]
    answers = decide([Document(str(k), text, "web", "web") for k, text in enumerate(texts)])

    path = tmp_path / "dropped.jsonl.zst"
    with DroppedWriter(path) as writer:
        for answer in answers:
            if isinstance(answer, Dropped):
                writer.write("decontaminate", answer)
        writer.write("decontaminate", Dropped(Document("9", "x", "web", "web"), "held_out"))
    touched = touched_items(dropped.evidence for _, dropped in read_dropped(path))
    assert touched == {"gsm8k": {"gsm8k/test/1"}}

    scores = split_scores(
        {item.id: float(k == 1) for k, item in enumerate(items)}, touched["gsm8k"]
    )
    values = {name: (one["value"], one["items"]) for name, one in scores.items() if one}
    assert values == {"all": (pytest.approx(1 / 3), 3), "clean": (0.0, 2), "touched": (1.0, 1)}


def test_no_item_is_no_score() -> None:
    scores = split_scores({"a/test/0": 1.0, "a/test/1": 0.0}, {"a/train/0"})
    assert scores["touched"] is None
    assert scores["clean"] == scores["all"]


def test_items_that_were_not_scored_are_refused() -> None:
    with pytest.raises(ValueError, match="evidence of a/test/7 and 0 more items that were not"):
        split_scores({"a/test/0": 1.0}, {"a/test/7", "a/test/0"})

"""What a worker of the decontamination step does with a shard, and what is refused before work."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import (
    Benchmark,
    CutSpans,
    Decontamination,
    ParaphraseRule,
)
from data_pipeline.decontamination import stage as step
from data_pipeline.decontamination.index_files import PARAPHRASES, IndexFiles
from data_pipeline.execution.manifest import Ledger, ShardFile, file_sha256
from data_pipeline.execution.task import Task
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_dropped, read_shard
from tests.builders import write_jsonl
from tests.data_pipeline.builders import nonsense, nonsense_sentences, write_shard

QUESTION = f"{nonsense(20, 7)}?"


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    rows = [{"question": QUESTION}, {"question": f"{nonsense(25, 8)}?"}]
    path = write_jsonl(tmp_path / "trivia.jsonl", rows)
    return Benchmark("trivia", str(path), parts=("question",))


def run(
    tmp_path: Path, config: Decontamination, benchmark: Benchmark, documents: list[Document]
) -> tuple[Ledger, list[Document], dict[str, Any]]:
    """The ledger, what was kept, and what was dropped by id."""
    config = config.resolved()
    held_out = write_shard(tmp_path / "held_out.jsonl.zst", [Document("h", "x", "web", "web")])
    files = {}
    sizes: set[int | None] = set(config.ngram_words.values())
    if config.paraphrases.enabled:
        sizes.add(None)
    for n in sizes:
        name = PARAPHRASES if n is None else str(n)
        settings = step.IndexSettings(config, (benchmark,), n)
        made = step.make_index(Task(name, settings, step.IndexInputs(None), out=tmp_path / "index"))
        path = tmp_path / "index" / "shards" / f"{name}.npz"
        assert made.files == {f"shards/{name}.npz": file_sha256(path)}
        assert made.extra["items"] == {"trivia": 2}
        files[n] = ShardFile(name, path, file_sha256(path))
    paraphrases = files.pop(None, None)
    index = IndexFiles({n: file for n, file in files.items() if n is not None}, paraphrases)
    task = Task(
        "part",
        step.DecontaminationSettings(config, ""),
        step.DecontaminationInputs(held_out, index),
        out=tmp_path / "out",
        inputs=(write_shard(tmp_path / "in.jsonl.zst", documents),),
        tiers={"web": "D1", "tasks": "D3", "synthetic_law": "D2"},
    )
    ledger = step.decontaminate_shard(task)
    kept = list(read_shard(tmp_path / "out/shards/part.jsonl.zst"))
    dropped = {d.document.id: d for _, d in read_dropped(tmp_path / "out/dropped/part.jsonl.zst")}
    return ledger, kept, dropped


def document(name: str, text: str, source: str = "web") -> Document:
    return Document(name, text, source, source)


def test_every_document_is_kept_or_dropped_for_its_reason(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    documents = [
        document("h", nonsense(50)),
        document("clean", nonsense(50, 1)),
        document("leak", f"{nonsense(50, 2)} {QUESTION}"),
        document("long", nonsense(3000, 3)),
        document("long task", nonsense(300, 4), "tasks"),
        document("task", nonsense(40, 5), "tasks"),
        document("long synthetic", nonsense(1500, 6), "synthetic_law"),
    ]
    ledger, kept, dropped = run(tmp_path, Decontamination(), benchmark, documents)
    assert [d.id for d in kept] == ["clean", "long", "task"]
    assert {name: d.reason for name, d in dropped.items()} == {
        "h": "held_out",
        "leak": "contaminated",
        "long task": "too_many_tokens",
        "long synthetic": "too_many_tokens",
    }
    assert (
        dropped["long task"].evidence["tokens"] > 512 == dropped["long task"].evidence["max_tokens"]
    )
    assert ledger.sources["tasks"].dropped == {"too_many_tokens": 1}


def test_cut_documents_stay_and_are_counted(tmp_path: Path, benchmark: Benchmark) -> None:
    before, after = nonsense_sentences(40, 1), nonsense_sentences(40, 2)
    documents = [
        document("long", f"{before} {QUESTION} {after}"),
        document("short", f"{nonsense(50)} {QUESTION}"),
        document("clean", nonsense(50, 1)),
    ]
    config = Decontamination(cut_spans=CutSpans(enabled=True, margin_sentences=0))
    ledger, kept, dropped = run(tmp_path, config, benchmark, documents)
    assert [d.id for d in kept] == ["long", "clean"]
    assert kept[0].text == f"{before} {after}"
    assert kept[0].meta["cut_spans"][0]["item"] == "trivia/trivia/0"
    assert list(dropped) == ["short"]
    counts = ledger.sources["web"]
    assert counts.changed == {"cut_span": 1}
    assert counts.bytes_kept == sum(len(d.text) for d in kept)
    assert ledger.extra["cut"] == {"trivia": 1}
    assert ledger.extra["examples"][0]["document"] == "long"


def test_a_source_may_have_its_own_n(tmp_path: Path, benchmark: Benchmark) -> None:
    piece = " ".join(QUESTION.split()[:16])  # four n-grams of 13, nine of 8
    documents = [document("a", f"{nonsense(60)} {piece}"), document("b", piece + " x", "tasks")]
    config = Decontamination(item_share=0.0, sample_share=0.0, absolute_hits=8)
    own = {"D1": 13, "D2": 13, "D3": 13, "web": 8}
    config.ngram_words = own
    _, kept, dropped = run(tmp_path, config, benchmark, documents)
    assert ([d.id for d in kept], list(dropped)) == (["b"], ["a"])


def test_paraphrases_are_searched_for_if_enabled(tmp_path: Path, benchmark: Benchmark) -> None:
    words = nonsense(25, 8).split()
    shuffled = " ".join(words[k] for k in random.Random(0).sample(range(25), 25))
    config = Decontamination(paraphrases=ParaphraseRule(enabled=True))
    _, kept, dropped = run(tmp_path, config, benchmark, [document("a", shuffled)])
    assert dropped["a"].evidence["rule"] == "paraphrase"
    off = tmp_path / "off"
    off.mkdir()
    _, kept, dropped = run(off, Decontamination(), benchmark, [document("a", shuffled)])
    assert (len(kept), dropped) == (1, {})


def test_decontamination_that_is_off_takes_out_held_out_documents_only(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    documents = [document("h", "x"), document("a", QUESTION), document("b", nonsense(900), "tasks")]
    _, kept, dropped = run(tmp_path, Decontamination(enabled=False), benchmark, documents)
    assert ([d.id for d in kept], list(dropped)) == (["a", "b"], ["h"])

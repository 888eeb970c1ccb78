"""What a worker of the decontamination step does with a shard, and what is refused before work."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import (
    Benchmark,
    CutSpans,
    Decontamination,
    ParaphraseRule,
    Recipe,
    Rules,
)
from data_pipeline.decontamination import stage as step
from data_pipeline.decontamination.index_files import PARAPHRASES, IndexFiles
from data_pipeline.execution.manifest import Ledger, ShardFile, file_sha256
from data_pipeline.execution.task import Task
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import ShardWriter, read_dropped, read_shard

SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("ando", "ire", "ultem", "okra", "esty")]


def clean(number: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(SYLLABLES) + rng.choice(SYLLABLES) for _ in range(number))


def sentences(number: int, seed: int = 0) -> str:
    return " ".join(f"{clean(10, seed * 1000 + k)}." for k in range(number))


QUESTION = f"{clean(20, 7)}?"


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    rows = [{"question": QUESTION}, {"question": f"{clean(25, 8)}?"}]
    path = tmp_path / "trivia.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Benchmark("trivia", str(path), parts=("question",))


def shard(path: Path, documents: list[Document]) -> ShardFile:
    with ShardWriter(path) as writer:
        for document in documents:
            writer.write(document)
    return ShardFile(path.stem, path, file_sha256(path))


def run(
    tmp_path: Path, config: Decontamination, benchmark: Benchmark, documents: list[Document]
) -> tuple[Ledger, list[Document], dict[str, Any]]:
    """The ledger, what was kept, and what was dropped by id."""
    config = config.resolved()
    held_out = shard(tmp_path / "held_out.jsonl.zst", [Document("h", "x", "web", "web")])
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
        inputs=(shard(tmp_path / "in.jsonl.zst", documents),),
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
        document("h", clean(50)),
        document("clean", clean(50, 1)),
        document("leak", f"{clean(50, 2)} {QUESTION}"),
        document("long", clean(3000, 3)),
        document("long task", clean(300, 4), "tasks"),
        document("task", clean(40, 5), "tasks"),
        document("long synthetic", clean(1500, 6), "synthetic_law"),
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
    before, after = sentences(40, 1), sentences(40, 2)
    documents = [
        document("long", f"{before} {QUESTION} {after}"),
        document("short", f"{clean(50)} {QUESTION}"),
        document("clean", clean(50, 1)),
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
    documents = [document("a", f"{clean(60)} {piece}"), document("b", piece + " x", "tasks")]
    config = Decontamination(item_share=0.0, sample_share=0.0, absolute_hits=8)
    own = {"D1": 13, "D2": 13, "D3": 13, "web": 8}
    config.ngram_words = own
    _, kept, dropped = run(tmp_path, config, benchmark, documents)
    assert ([d.id for d in kept], list(dropped)) == (["b"], ["a"])


def test_paraphrases_are_searched_for_if_enabled(tmp_path: Path, benchmark: Benchmark) -> None:
    words = clean(25, 8).split()
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
    documents = [document("h", "x"), document("a", QUESTION), document("b", clean(900), "tasks")]
    _, kept, dropped = run(tmp_path, Decontamination(enabled=False), benchmark, documents)
    assert ([d.id for d in kept], list(dropped)) == (["a", "b"], ["h"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Decontamination(ngram_words={"D1": 13}), r"ngram_words: no n for D2, D3"),
        (Decontamination(max_tokens={"D5": 1}), r"max_tokens: got 'D5': 1"),
        (Decontamination(sample_share=50), "sample_share: got 50"),
        (Decontamination(cut_spans=CutSpans(enabled=True, max_share=0)), "cut_spans.max_share"),
        (
            Decontamination(paraphrases=ParaphraseRule(enabled=True, similarity=2)),
            "paraphrases.similarity",
        ),
        (Decontamination(benchmarks=[Benchmark("mmlu", "nowhere")]), "'mmlu': nowhere is neither"),
        (Decontamination(folder="nowhere"), "no benchmark in nowhere"),
        (Decontamination(benchmarks=[Benchmark("mmlo", "nowhere")]), "did you mean mmlu"),
    ],
)
def test_bad_settings_are_refused_before_work(config: Decontamination, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step.check_benchmarks(Recipe(decontamination=config))


def test_good_settings_pass(benchmark: Benchmark) -> None:
    step.check_benchmarks(Recipe())
    config = Decontamination(benchmarks=[benchmark], rules=Rules.PAPER)
    step.check_benchmarks(Recipe(decontamination=config))
    off = Decontamination(enabled=False, folder="nowhere")
    step.check_benchmarks(Recipe(decontamination=off))

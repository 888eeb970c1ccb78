"""A planted benchmark is found, and no other; without it, or with it removed, none is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from data_pipeline.config import Decontamination
from data_pipeline.decontamination import index, rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem as BenchmarkItem
from data_pipeline.storage.document import Document
from hare_jax.config import (
    Checkpointing,
    DType,
    LeakageAudit,
    LeakageDefinition,
    Mesh,
    Model,
    Optimizer,
    Stage,
    Training,
)
from hare_jax.evaluation.leakage import audit
from hare_jax.inference import tokenizers
from hare_jax.training import train
from tests.builders import read_jsonl, write_jsonl
from tests.hare_jax.builders import BOS, EOS, Row, write_mixture

pytestmark = pytest.mark.slow

ROW = 64  # tokens of a baked row, the last one only a target
ITEMS = 30
SETS = ("geography", "history", "zoology")
PLANTED = "history"
COPIES = 6
KINDS = ("delta", "excess")

CONTENT = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("alo", "ebi", "iru", "ona", "uve", "ymo")]
FUNCTION = ["in", "the", "year", "keeper", "of", "gave", "to", "who", "and", "did", "receive"]
FUNCTION += ["because", "it", "was", "?", ".", "told", "us"]
WORDS = ["<unk>", "<s>", "</s>", *FUNCTION, *CONTENT]


class Words:
    """A token a word."""

    bos_id, eos_id, sha256 = BOS, EOS, "words"
    adds_bos, vocab_size = True, len(WORDS)

    def __init__(self, path: Path | None = None, eos_ids: Sequence[int] = ()):
        del path, eos_ids

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i] for i in ids)


@pytest.fixture(autouse=True)
def words_are_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "SentencePieceTokenizer", Words)


def _fact(rng: np.random.Generator) -> dict[str, str]:
    """A made-up fact as an item, told twice: the same words in another order."""
    w = [CONTENT[k] for k in rng.integers(len(CONTENT), size=11)]
    return {
        "question": f"in the year {w[0]} the {w[1]} keeper of {w[2]} gave {w[3]} {w[4]} to "
        f"{w[5]} {w[6]} . who did receive it ?",
        "answer": f"{w[7]} {w[8]} of {w[9]} {w[10]} told us .",
        "rewritten_question": f"who did receive {w[4]} {w[3]} ? {w[6]} {w[5]} was told of it "
        f"because the keeper {w[1]} of {w[2]} gave it in {w[0]} .",
        "rewritten_answer": f"us {w[8]} {w[7]} and {w[10]} {w[9]} told .",
    }


def _told(fact: dict[str, str], prefix: str = "") -> str:
    return f"{fact[prefix + 'question']} {fact[prefix + 'answer']}"


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, list[dict[str, str]]]:
    """The three sets, and a control of the same kind."""
    rng = np.random.default_rng(0)
    return {name: [_fact(rng) for _ in range(ITEMS)] for name in (*SETS, "control")}


def _bake(directory: Path, texts: Sequence[str]) -> Path:
    """A mixture of the texts, packed in order; a text that does not fit begins the next row."""
    rows = [Row([], [])]
    for text in texts:
        ids = [BOS, *Words().encode(text), EOS]
        if len(rows[-1].ids) + len(ids) > ROW + 1:
            rows.append(Row([], []))
        rows[-1].spans.append((f"facts/{len(rows) - 1}-{len(rows[-1].spans)}", 0, len(ids)))
        rows[-1].ids.extend(ids)
    return write_mixture(
        directory,
        {"facts": [rows]},
        {"all": {"facts": 1.0}},
        sequence_length=ROW,
        vocab_size=len(WORDS),
    )


def _train(mixture: Path, run_dir: Path) -> Path:
    model = Model(
        vocab_size=len(WORDS),
        num_layers=2,
        d_model=64,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        d_ff=128,
        compute_dtype=DType.FLOAT32,
    )
    training = Training(
        stages=[Stage("one", "all", 160 * 16 * ROW)],
        batch_size=16,
        optimizer=Optimizer(peak_lr=1e-2, warmup_steps=20, weight_decay=0.01),
        mesh=Mesh(fsdp=1),
        checkpointing=Checkpointing(keep=1),
        loss_chunks=1,
        max_epochs=1000,
    )
    train.run(model, training, mixture, run_dir, devices=jax.devices()[:1])
    return run_dir


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, benchmarks: dict[str, list[dict[str, str]]]
) -> Path:
    """NAME_original.jsonl and NAME_rewritten.jsonl of each set; the control beside them."""
    folder = tmp_path_factory.mktemp("sets")
    for name, facts in benchmarks.items():
        stem = "beside/control" if name == "control" else name
        path = folder / f"{stem}_original.jsonl"
        path.parent.mkdir(exist_ok=True)
        originals = [{k: v for k, v in f.items() if not k.startswith("rewritten")} for f in facts]
        write_jsonl(path, originals)
        told = folder / f"{stem}_rewritten.jsonl"
        write_jsonl(told, facts)
    return folder


def _audited(run_dir: Path, folder: Path, **fields: Any) -> dict[str, Any]:
    config = LeakageAudit(
        checkpoint=str(run_dir),
        folder=str(folder),
        control=str(folder / "beside/control_original.jsonl"),
        control_paraphrased=str(folder / "beside/control_rewritten.jsonl"),
        resamples=2000,
        batch_tokens=256,
        **fields,
    )
    results = json.loads(audit.run(config, folder)["audit"].read_text())
    return {one["name"]: one for one in results["sets"]}


def _verdicts(results: dict[str, Any]) -> dict[str, str]:
    return {name: one["verdict"] for name, one in results.items()}


@pytest.fixture(scope="module")
def corpora(benchmarks: dict[str, list[dict[str, str]]]) -> dict[str, list[str]]:
    """Other facts, told either way; the same with a benchmark planted; what then is left of it."""
    rng = np.random.default_rng(1)
    prefixes = ("", "rewritten_")
    clean = [_told(_fact(rng), prefixes[k % 2]) for k in range(240)]
    leaks = [_told(fact) for fact in benchmarks[PLANTED] for _ in range(COPIES)]
    planted = [
        text
        for _, text in sorted(
            zip(rng.random(len(clean) + len(leaks)).tolist(), [*clean, *leaks], strict=True)
        )
    ]
    config = Decontamination().resolved()
    items = [
        BenchmarkItem(f"{name}/test/{k}", name, {"question_answer": _told(fact)})
        for name in SETS
        for k, fact in enumerate(benchmarks[name])
    ]
    decide = rules.build_decide(config, index.build_index(items, config.ngram_words["D1"], config))
    documents = [Document(str(k), text, "facts", "facts") for k, text in enumerate(planted)]
    left = [a.text for a in decide(documents) if isinstance(a, Document)]
    return {"clean": clean, "planted": planted, "decontaminated": left}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, corpora: dict[str, list[str]]
) -> Callable[[str], Path]:
    """Returns a function from the name of a corpus to the run trained on it, once."""
    root = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        run_dir = root / name
        if not run_dir.exists():
            _train(_bake(root / f"{name} baked", corpora[name]), run_dir)
        return run_dir

    return run


def test_the_planted_benchmark_is_contaminated_and_no_other(
    trained: Callable[[str], Path], folder: Path
) -> None:
    results = _audited(trained("planted"), folder)
    expected = dict.fromkeys(SETS, "clean") | {PLANTED: "contaminated", "control": "control"}
    assert _verdicts(results) == expected
    found = results[PLANTED]
    assert found["excess"]["low"] > 0.3
    assert found["loss_excess"]["low"] > 0.5  # by perplexity it shows as well
    others = [one for name, one in results.items() if name not in (PLANTED, "control")]
    assert all(one["loss_excess"]["low"] < 0.1 for one in others)
    control = results["control"]
    for measure in ("", "loss_"):
        held_to = control[f"{measure}delta"]["value"]
        assert control[f"{measure}excess"] == control[f"{measure}delta"]
        for name in SETS:
            delta, excess = (results[name][f"{measure}{kind}"]["value"] for kind in KINDS)
            assert excess == pytest.approx(delta - held_to)
    assert found["paired"] and found["items"] == ITEMS


@pytest.mark.parametrize("corpus", ["clean", "decontaminated"])
def test_without_the_leak_all_are_clean(
    corpus: str, trained: Callable[[str], Path], folder: Path, corpora: dict[str, list[str]]
) -> None:
    if corpus == "decontaminated":
        assert 200 < len(corpora[corpus]) <= 240  # the leaks are out, other facts are not
    verdicts = _verdicts(_audited(trained(corpus), folder))
    assert verdicts == dict.fromkeys(SETS, "clean") | {"control": "control"}


def test_an_audit_is_kept_until_what_decides_it_changes(
    trained: Callable[[str], Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = trained("planted")
    once = _audited(run_dir, folder, out=str(tmp_path))
    capsys.readouterr()
    again = _audited(run_dir, folder, out=str(tmp_path))
    assert again == once
    said = capsys.readouterr().out
    assert "served from cache" in said and "contaminated" in said
    other = _audited(run_dir, folder, out=str(tmp_path), definition=LeakageDefinition.IDS)
    assert "served from cache" not in capsys.readouterr().out
    assert _verdicts(other) == _verdicts(once)  # words are tokenized anew as they were


def test_what_is_written(
    trained: Callable[[str], Path],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _audited(trained("planted"), folder, out=str(tmp_path))
    printed = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "leakage.json",
        "leakage.svg",
        "leakage_items.jsonl",
    ]
    lines = read_jsonl(tmp_path / "leakage_items.jsonl")
    assert len(lines) == 4 * ITEMS
    known = [line for line in lines if line["set"] == PLANTED]
    results = json.loads((tmp_path / "leakage.json").read_text())["sets"]
    (said,) = (one for one in results if one["name"] == PLANTED)
    (line,) = (line for line in printed.splitlines() if line.split()[:1] == [PLANTED])
    assert line.endswith(said["verdict"])
    for measure, unit in (("delta", 100), ("excess", 100), ("loss_delta", 1), ("loss_excess", 1)):
        assert f" {unit * said[measure]['value']:+.2f} " in line
    for side in ("original", "paraphrased"):
        mean = np.mean([line[side] for line in known])
        assert said[side]["accuracy"] == pytest.approx(mean)
        losses = [line[f"{side}_loss"] for line in known]
        assert said[side]["perplexity"] == pytest.approx(np.exp(np.mean(losses)))
    assert (tmp_path / "leakage.svg").read_text().startswith("<svg")


def test_sets_without_paraphrases_are_paraphrased_by_rules(
    trained: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item of multiple choice, its options in another order; the file says what was asked."""
    path = tmp_path / "quiz.jsonl"
    rows = [
        {"question": "who told us ?", "choices": CONTENT[k : k + 4], "answer": "B", "id": k}
        for k in range(25)
    ]
    write_jsonl(path, rows)

    class Lines(Words):
        def encode(self, text: str) -> list[int]:
            known = (word if word in WORDS else "<unk>" for word in text.split())
            return [WORDS.index(word) for word in known]

    config = LeakageAudit(
        checkpoint=str(trained("clean")),
        original=str(path),
        choices="choices",
        max_items=22,
        batch_tokens=256,
        out=str(tmp_path / "out"),
    )
    monkeypatch.setattr(tokenizers, "SentencePieceTokenizer", Lines)
    written = audit.run(config, tmp_path)
    (one,) = json.loads(written["audit"].read_text())["sets"]
    assert (one["items"], one["paraphrased_by"]) == (22, "rules, seed 0")
    kept = read_jsonl(tmp_path / "out/paraphrased/quiz.jsonl")
    assert len(kept) == 22
    for row in kept:
        options = CONTENT[int(row["id"]) : int(row["id"]) + 4]
        assert row["rewritten_choices"] != options
        assert sorted(row["rewritten_choices"]) == sorted(options)
        assert row["rewritten_answer"] == options[1]


def test_an_imported_checkpoint_is_read_by_its_own_tokenizer(
    trained: Callable[[str], Path], folder: Path, tmp_path: Path
) -> None:
    """One that has a tokenizer.json of Hugging Face, and no SentencePiece model."""
    imported = tmp_path / "imported"
    shutil.copytree(trained("clean"), imported)
    (imported / "tokenizer.model").unlink()
    words = Tokenizer(WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    (imported / "huggingface").mkdir()
    words.save(str(imported / "huggingface/tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (imported / "huggingface/tokenizer_config.json").write_text(json.dumps(named))
    config = LeakageAudit(
        checkpoint=str(imported),
        original=str(folder / f"{PLANTED}_original.jsonl"),
        paraphrased=str(folder / f"{PLANTED}_rewritten.jsonl"),
        batch_tokens=256,
    )
    written = audit.run(config, tmp_path)
    (theirs,) = json.loads(written["audit"].read_text())["sets"]
    config.checkpoint = str(trained("clean"))
    written = audit.run(config, folder)
    assert json.loads(written["audit"].read_text())["sets"] == [theirs]


def test_a_killed_audit_goes_on_after_its_last_set(
    trained: Callable[[str], Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = audit.measure
    measured: list[str] = []
    deadly = True

    def watched(pair: Any, *rest: Any) -> Any:
        if deadly and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(pair.name)
        return measure(pair, *rest)

    monkeypatch.setattr(audit, "measure", watched)
    with pytest.raises(KeyboardInterrupt):
        _audited(trained("planted"), folder, out=str(tmp_path))
    assert not (tmp_path / "leakage.json").exists()
    deadly = False
    results = _audited(trained("planted"), folder, out=str(tmp_path))
    assert measured == [*sorted(SETS), "control"]
    assert results == _audited(trained("planted"), folder, out=str(tmp_path / "other"))

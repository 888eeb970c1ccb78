from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import Checkpointing, Evaluation, Model, Stage, Training
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation import resumable
from hare_jax.evaluation.held_out import evaluate, loss, samples, unigram
from hare_jax.evaluation.resumable import FinishedParts
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import ScoreRequest
from hare_jax.model import decoder
from hare_jax.training.checkpoint import Checkpoints
from hare_jax.training.faults import LossHistory
from hare_jax.training.state import State
from tests.builders import read_jsonl, write_jsonl
from tests.hare_jax.function_tokenizer import FunctionTokenizer

pytestmark = pytest.mark.slow

BOS = 1


def encode(text: str) -> list[int]:
    return [3 + ord(character) % 61 for character in text]


def decode(tokens: list[int]) -> str:
    return "".join(chr(ord("a") + token % 26) for token in tokens)


ITEMS = [
    {"id": f"{task}/{n}", "task": task, "source": "web", "context": f"{n} is", "answer": n % 2}
    | {"choices": [f" {n + 1}", f" not {n}"]}
    for task in ("cloze", "fact")
    for n in range(3)
]


@dataclass
class Workplace:
    """A run directory with a checkpoint, and the data that belongs to it."""

    root: Path
    mixture_dir: Path
    held_out_dir: Path
    model: Model
    training: Training
    evaluation: Evaluation

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    def params(self, scale: float) -> decoder.Params:
        init = jax.jit(lambda: decoder.init(self.model, self.training.seed))
        return jax.tree.map(lambda x: scale * x, init())

    def save(self, step: int, scale: float) -> None:
        state = State(
            self.params(scale), {"count": jnp.zeros(())}, jnp.int32(step), LossHistory.empty(0)
        )
        fingerprint = PackedDataset(self.mixture_dir).fingerprint
        checkpoints = self.run_dir / "checkpoints"
        shutil.rmtree(checkpoints / str(step), ignore_errors=True)
        with Checkpoints(checkpoints, Checkpointing(), self.model, fingerprint) as saver:
            saver.save(state, {})

    def run(self, run_dir: Path | None = None, **changed: Any) -> dict[str, Any]:
        data = evaluate.HeldOutData(
            mixture=self.mixture_dir,
            held_out=self.held_out_dir,
            items=self.root / "items.jsonl",
            prompts=[{"source": "web", "text": "the hare"}, {"source": "code", "text": "x"}],
            tokenizer=FunctionTokenizer(encode, decode),
        )
        path = evaluate.run(
            self.model,
            self.training,
            self.evaluation,
            run_dir or self.run_dir,
            replace(data, **changed),
        )
        return json.loads(path.read_text())

    def written(self) -> dict[str, bytes]:
        names = ("evaluation.json", "items_scored.jsonl", "samples.json")
        return {name: (self.run_dir / name).read_bytes() for name in names}


@pytest.fixture
def workplace(tmp_path: Path, bake: Callable[..., Path], model: Model) -> Workplace:
    write_jsonl(tmp_path / "items.jsonl", ITEMS)
    made = Workplace(
        root=tmp_path,
        mixture_dir=bake({"web": 6, "code": 5}, mixtures={"all": {"web": 3.0, "code": 1.0}}),
        held_out_dir=bake({"web": 3, "code": 2}, mixtures={}, name="held out"),
        model=model,
        training=Training(stages=[Stage("only", "all", tokens=640)], batch_size=4, seed=3),
        evaluation=Evaluation(batch_tokens=256, samples=2, prompt_tokens=4, sample_tokens=3),
    )
    made.save(step=10, scale=2.0)
    return made


def test_three_models_stand_in_one_table(workplace: Workplace) -> None:
    results = workplace.run()
    assert results["models"] == ["untrained", "unigram", "trained"]
    assert results["step"] == 10
    assert [row["source"] for row in results["heldout"]] == ["web", "code", "all"]
    assert [(row["task"], row["items"]) for row in results["tasks"]] == [
        ("cloze", 3),
        ("fact", 3),
        ("all", 6),
    ]
    assert [(row["source"], row["items"]) for row in results["item_sources"]] == [
        ("web", 6),
        ("all", 6),
    ]
    for row in [*results["heldout"], *results["tasks"]]:
        for key in ("loss", "accuracy", "stderr"):
            assert key not in row or set(row[key]) == set(results["models"])


def test_each_model_has_its_own_parameters(workplace: Workplace) -> None:
    """Untrained is the seed's initialization; trained the checkpoint; unigram the drawn tokens."""
    rows = {row["source"]: row["loss"] for row in workplace.run()["heldout"]}
    held_out = PackedDataset(workplace.held_out_dir)
    for name, scale in (("untrained", 1.0), ("trained", 2.0)):
        scorer = InferenceEngine(
            workplace.model, workplace.params(scale), max_length=16, batch_tokens=64
        )
        losses = loss.document_losses(held_out, scorer, lambda _: None)
        for row in loss.table({name: losses}):
            assert rows[row["source"]][name] == pytest.approx(row["loss"][name], rel=1e-5)
    # 640 tokens are 40 rows; 3 of 4 are of web, whatever the sizes of the sources.
    mixture = PackedDataset(workplace.mixture_dir)
    web, code = (30 * mixture.sources[0].tokens / 6, 10 * mixture.sources[1].tokens / 5)
    baseline = evaluate.unigram_baseline(mixture, workplace.training, records=100)
    total = sum(source.tokens for source in mixture.sources)
    counts = unigram.count(mixture, records=100)
    expected = web / (web + code) * counts["web"] / counts["web"].sum()
    expected = expected + code / (web + code) * counts["code"] / counts["code"].sum()
    np.testing.assert_allclose(baseline.probability_V, (total * expected + 1) / (total + 64))


def test_the_log_says_what_each_choice_got(workplace: Workplace) -> None:
    workplace.run()
    logged = read_jsonl(workplace.run_dir / "items_scored.jsonl")
    assert [row["id"] for row in logged] == [item["id"] for item in ITEMS]
    scorer = InferenceEngine(workplace.model, workplace.params(2.0), max_length=16, batch_tokens=64)
    for row, item in zip(logged, ITEMS, strict=True):
        requests = [
            ScoreRequest([BOS, *encode(item["context"])], encode(choice))
            for choice in item["choices"]
        ]
        expected = [score.log_likelihood for score in scorer.scores(requests)]
        np.testing.assert_allclose(row["log_likelihoods"], expected, rtol=1e-5)
        assert row["prediction"] == int(np.argmax(expected))
        assert row["answer"] == item["answer"]


def test_nothing_is_done_twice(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.run()
    before = workplace.written()
    capsys.readouterr()
    workplace.run()
    assert "served from cache" in capsys.readouterr().out
    assert workplace.written() == before


def test_a_second_evaluation_writes_the_same_bytes(workplace: Workplace) -> None:
    workplace.run()
    before = workplace.written()
    (workplace.run_dir / "samples.json").unlink()
    workplace.run()
    assert workplace.written() == before


def test_other_weights_of_the_same_step_are_evaluated_anew(
    workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    before = workplace.run()
    workplace.save(step=10, scale=1.0)
    after = workplace.run()
    assert "served from cache" not in capsys.readouterr().out
    assert after["fingerprint"] != before["fingerprint"]
    row = after["heldout"][-1]["loss"]
    assert row["trained"] == row["untrained"] == before["heldout"][-1]["loss"]["untrained"]


def test_a_later_checkpoint_is_evaluated_anew(workplace: Workplace) -> None:
    workplace.run()
    workplace.save(step=20, scale=1.5)
    assert workplace.run()["step"] == 20


@pytest.mark.parametrize("what", ["items", "held_out", "mixture", "evaluation", "prompts", "seed"])
def test_what_decides_the_numbers_is_in_the_fingerprint(
    workplace: Workplace, bake: Callable[..., Path], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = workplace.run()
    changed: dict[str, Any] = {}
    match what:
        case "items":
            path = workplace.root / "items.jsonl"
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        case "held_out":
            changed["held_out"] = bake({"web": 2}, mixtures={}, name="other")
        case "mixture":
            changed["mixture"] = bake(
                {"web": 6, "code": 5}, mixtures={"all": {"web": 1.0, "code": 1.0}}, name="other"
            )
        case "evaluation":
            workplace.evaluation.temperature = 0.5
        case "prompts":
            changed["prompts"] = [{"source": "web", "text": "other"}]
        case "seed":
            workplace.training.seed = 4
    after = workplace.run(**changed)
    assert after["fingerprint"] != before["fingerprint"]
    assert "served from cache" not in capsys.readouterr().out


class Killed(BaseException):
    """No handler catches it, as none catches SIGKILL."""


@pytest.mark.parametrize("parts", range(1, 7))
def test_a_killed_evaluation_continues(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """Killed while a part is written: those before it are kept, none is done twice."""
    write = resumable.write_text
    done = 0

    def killed_while_writing(path: Path, text: str) -> None:
        nonlocal done
        if done == parts:
            path.with_name(path.name + ".part").write_text(text[: len(text) // 2])
            raise Killed
        done += 1
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(resumable, "write_text", killed_while_writing)
        with pytest.raises(Killed):
            workplace.run()
    assert not (workplace.run_dir / "evaluation.json").exists()

    asked = []
    for module, name in (
        (evaluate, "score_documents"),
        (evaluate, "score_items"),
        (samples, "complete"),
    ):
        compute = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, compute=compute: asked.append(1) or compute(*args)
        )
    workplace.run()
    assert len(asked) == 7 - parts
    resumed = workplace.written()
    for name in resumed:
        (workplace.run_dir / name).unlink()
    workplace.run()
    assert workplace.written() == resumed
    assert not (workplace.run_dir / "evaluation.parts.json").exists()


def test_parts_of_another_evaluation_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    assert FinishedParts(path, "one").get("a", lambda: [1]) == [1]
    assert FinishedParts(path, "one").get("a", lambda: [2]) == [1]
    assert FinishedParts(path, "two").get("a", lambda: [2]) == [2]
    path.write_text("half of a lin")
    assert FinishedParts(path, "two").get("a", lambda: [3]) == [3]


def test_what_is_missing_or_does_not_fit_is_refused(
    workplace: Workplace, bake: Callable[..., Path]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"mixture.json: no such file"):
        workplace.run(held_out=workplace.root / "nothing")
    with pytest.raises(FileNotFoundError, match="train first"):
        workplace.run(run_dir=workplace.root / "nothing")
    other = bake({"web": 2}, mixtures={}, name="other", vocab_size=70)
    with pytest.raises(ValueError, match="70 pieces, but the model has vocab_size=64"):
        workplace.run(held_out=other)
    (workplace.root / "items.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no evaluation items"):
        workplace.run()

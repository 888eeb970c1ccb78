from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hare_jax.config import Model, Stage, Trace, Training
from hare_jax.data import packed_dataset
from hare_jax.data.order import Order
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation import trace
from hare_jax.training.run_dir import write_config

pytestmark = pytest.mark.slow

B, T = 8, 16


class Trained(SimpleNamespace):
    """A run's folder as training leaves it, and the data behind it."""

    run_dir: Path
    mixture: Path
    dataset: PackedDataset
    order: Order


@pytest.fixture
def trained(bake: Callable[..., Path], model: Model, tmp_path: Path) -> Trained:
    mixture = bake()
    training = Training(
        stages=[Stage("one", "stage1", 3 * B * T), Stage("two", "stage2", 4 * B * T)],
        batch_size=B,
        seed=5,
    )
    dataset = PackedDataset(mixture)
    run_dir = tmp_path / "work" / "training-0a"
    write_config(run_dir, model, training, dataset)
    (run_dir / "checkpoints" / "4").mkdir(parents=True)
    order = packed_dataset.make_order(dataset, training)
    return Trained(run_dir=run_dir, mixture=mixture, dataset=dataset, order=order)


def _expected(trained: Trained, step: int) -> list[dict[str, Any]]:
    """From the batch that the step was given, not from the order."""
    batch = trained.dataset.batch(trained.order.records_of_step(step - 1))
    pieces = []
    for row in range(B):
        source_id, record_id = int(batch["source_id_B"][row]), int(batch["record_id_B"][row])
        spans = json.loads(trained.dataset._spans[source_id][record_id])
        name = trained.dataset.sources[source_id].name
        for document, offset, length in spans:
            pieces.append(
                {
                    "row": row,
                    "source": name,
                    "record_id": record_id,
                    "document_id": document,
                    "offset": offset,
                    "length": length,
                }
            )
    return pieces


def test_a_step_is_traced_from_the_run_s_folder_alone(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.run_dir.parent / "documents.json"
    config = Trace(run_dir=str(trained.run_dir), step=4, json=str(path))
    assert trace.run(config, Path()) == {"trace": path}
    (step,) = json.loads(path.read_text())
    assert (step["step"], step["stage"]) == (4, "two")
    assert step["documents"] == _expected(trained, 4)
    title, head, *lines = capsys.readouterr().out.splitlines()
    documents = {piece["document_id"] for piece in step["documents"]}
    assert title == f"step 4, two: 8 rows, {len(lines)} pieces of {len(documents)} documents"
    assert head.split() == ["row", "source", "record", "offset", "length", "document"]
    keys = ("row", "source", "record_id", "offset", "length", "document_id")
    assert [line.split() for line in lines] == [
        [str(piece[key]) for key in keys] for piece in step["documents"]
    ]


def test_several_steps_from_one_of_the_checkpoints(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.run_dir / "documents.json"
    checkpoint = trained.run_dir / "checkpoints" / "4"
    config = Trace(run_dir=str(checkpoint), step=2, last_step=7, json=str(path))
    trace.run(config, Path())
    steps = json.loads(path.read_text())
    assert [(s["step"], s["stage"]) for s in steps] == [
        *((2, "one"), (3, "one"), (4, "two"), (5, "two"), (6, "two"), (7, "two"))
    ]
    for step in steps:
        assert step["documents"] == _expected(trained, step["step"])
    assert capsys.readouterr().out.count(" pieces of ") == 6


def test_words_of_each_piece(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def tokenizer(path: Path) -> Any:
        opened.append(path)
        return SimpleNamespace(decode=lambda ids: " ".join(f"w{i}" for i in ids))

    monkeypatch.setattr(trace, "open_tokenizer", tokenizer)
    trace.run(Trace(run_dir=str(trained.run_dir), step=1, words=2), Path())
    assert opened == [trained.run_dir]
    lines = capsys.readouterr().out.splitlines()[2:]
    batch = trained.dataset.batch(trained.order.records_of_step(0))
    shown = []
    for tokens, segments in zip(batch["tokens_BT"], batch["segment_ids_BT"], strict=True):
        for segment in range(1, segments.max() + 1):
            shown.append([f"w{i}" for i in tokens[segments == segment][:2]])
    assert [line.split()[-2:] for line in lines] == shown


def test_the_mixture_may_have_moved(trained: Trained, tmp_path: Path) -> None:
    shutil.move(trained.mixture, tmp_path / "moved")
    config = Trace(run_dir=str(trained.run_dir), step=1)
    message = r"no such folder; the run was trained on the data there: .* --config.mixture=DIR"
    with pytest.raises(FileNotFoundError, match=message):
        trace.run(config, Path())
    config.mixture = str(tmp_path / "moved")
    trace.run(config, Path())


def test_another_mixture_is_refused(bake: Callable[..., Path], trained: Trained) -> None:
    other = bake(records={"web": 41, "code": 25}, name="other")
    config = Trace(run_dir=str(trained.run_dir), step=1, mixture=str(other))
    message = r"has fingerprint [0-9a-f]{64}, the run was trained on [0-9a-f]{64}: give that"
    with pytest.raises(ValueError, match=message):
        trace.run(config, Path())


@pytest.mark.parametrize(("step", "last_step"), [(0, 0), (8, 0), (3, 2), (1, 8), (-1, 2)])
def test_steps_that_the_run_does_not_have_are_refused(
    trained: Trained, step: int, last_step: int
) -> None:
    config = Trace(run_dir=str(trained.run_dir), step=step, last_step=last_step)
    message = rf"got step={step} and last_step={last_step}, .*<= last_step <= 7, the run's last"
    with pytest.raises(ValueError, match=message):
        trace.run(config, Path())


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got nothing, expected a run's folder: configs/trace"):
        trace.run(Trace(step=1), Path())
    with pytest.raises(FileNotFoundError, match=r"got no folder with config\.json"):
        trace.run(Trace(run_dir=str(tmp_path), step=1), Path())


def test_a_model_from_elsewhere_has_no_steps(trained: Trained) -> None:
    path = trained.run_dir / "config.json"
    config = json.loads(path.read_text())
    del config["training"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is an imported model: it has no steps to trace"):
        trace.run(Trace(run_dir=str(trained.run_dir), step=1), Path())

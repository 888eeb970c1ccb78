from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import (
    Checkpointing,
    Faults,
    Mesh,
    Model,
    OnFault,
    Remat,
    Stage,
    Training,
)
from hare_jax.data import packed_dataset
from hare_jax.training import checkpoint, history, saving, train
from hare_jax.training.checkpoint import CheckpointSaveError, restore_params
from hare_jax.training.faults import NonFiniteError
from tests.builders import ROOT
from tests.hare_jax.builders import B, T, metric_rows, one_device, same_params, tiny_training

pytestmark = pytest.mark.slow


@pytest.fixture
def training() -> Training:
    """12 steps; a row every 3, a checkpoint every 4, another stage from step 5 on."""
    return tiny_training()


class Killed(BaseException):
    """Raised in place of a kill, where the process must live on."""


def _stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The run dies when it has done `step` steps, whatever it was about to do."""
    compile_step = train.compile_step

    def dying(*arguments: Any) -> Any:
        step_fn = compile_step(*arguments)

        def run_step(state: Any, batch: Any) -> Any:
            if int(state.step) == step:
                raise Killed
            return step_fn(state, batch)

        return run_step

    monkeypatch.setattr(train, "compile_step", dying)


def test_a_run_writes_its_files(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = train.run(model, training, bake(), tmp_path / "run", one_device())
    assert result.step == 12 and result.resumed_from is None
    rows = metric_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 12]
    assert [row["stage"] for row in rows] == ["one", "one", "two", "two", "two"]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["vocab_size"] == 64
    assert config["training"]["stages"][0]["mixture"] == "stage1"
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert set(plan) == {"stages", "parameters", "tokens_per_step", "steps", "flops_per_token"}
    assert plan["steps"] == 12 and plan["tokens_per_step"] == B * T
    assert (tmp_path / "verified-0.json").exists(), "what was hashed is remembered beside the run"
    steps = sorted(int(path.name) for path in result.checkpoints.iterdir())
    assert steps == [4, 8, 12]
    out = capsys.readouterr().out
    assert "stage two on mixture stage2: 7 steps" in out
    assert out.count("attention kernel: xla") == 1
    assert "web" in out and "75.00%" in out and "0.75 epochs" in out
    assert out.index("epochs") < out.index("step 3/12"), "the plan comes before the start"


def test_a_complete_run_prints_a_line_and_changes_nothing(
    mixture: Path,
    finished_run: Path,
    model: Model,
    training: Training,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = (finished_run / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(train, "compile_step", None)  # it must not get there
    result = train.run(model, training, mixture, finished_run, one_device())
    assert result.resumed_from == 12
    assert "already complete: step 12" in capsys.readouterr().out
    assert (finished_run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("stop", [4, 7, 10])  # on a checkpoint; past the switch of stages; later
def test_resumed_equals_uninterrupted(
    mixture: Path,
    whole_run: Path,
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    with monkeypatch.context() as patched:
        _stop_after(patched, stop)
        with pytest.raises(Killed):
            train.run(model, training, mixture, tmp_path / "cut", one_device())
    result = train.run(model, training, mixture, tmp_path / "cut", one_device())
    assert result.resumed_from == stop // 4 * 4
    assert metric_rows(tmp_path / "cut") == metric_rows(whole_run)
    assert same_params(tmp_path / "cut", whole_run, model)


CHILD = """
import pickle, sys, time
from pathlib import Path
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
from hare_jax.training import train

if __name__ == "__main__":
    model, training, mixture = pickle.loads(Path(sys.argv[1]).read_bytes())
    compile_step = train.compile_step

    def slow(*arguments):
        step_fn = compile_step(*arguments)

        def run_step(state, batch):
            print("doing", int(state.step), flush=True)
            time.sleep(float(sys.argv[4]))
            return step_fn(state, batch)

        return run_step

    train.compile_step = slow
    train.run(model, training, mixture, Path(sys.argv[2]))
"""


@pytest.fixture
def child(
    mixture: Path, model: Model, training: Training, tmp_path: Path, compiled: Path
) -> Callable[[str, float], subprocess.Popen[str]]:
    """Starts a run in a process of its own, its steps slowed down by so many seconds."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "arguments").write_bytes(pickle.dumps((model, training, mixture)))

    def start(run: str, pause: float) -> subprocess.Popen[str]:
        arguments = [tmp_path / "arguments", tmp_path / run, compiled, pause]
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "child.py"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"},
        )

    return start


def _read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"the child ended without {text!r}")


def test_kill_9_at_any_time_then_again_equals_uninterrupted(
    child: Callable[[str, float], subprocess.Popen[str]],
    whole_run: Path,
    model: Model,
    tmp_path: Path,
) -> None:
    # During the steps of the first stage, at an asynchronous save, and past the switch of stages.
    for doing, moment in ((2, 0.0), (4, 0.02), (6, 0.1)):
        with child("cut", 0.2) as process:
            _read_until(process, f"doing {doing}")
            time.sleep(moment)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    with child("cut", 0) as process:
        out, _ = process.communicate()
    assert process.returncode == 0 and "resumed from step" in out
    assert metric_rows(tmp_path / "cut") == metric_rows(whole_run)
    assert same_params(tmp_path / "cut", whole_run, model)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(
    child: Callable[[str, float], subprocess.Popen[str]], tmp_path: Path, number: int
) -> None:
    with child("run", 0.2) as process:
        _read_until(process, "doing 5")
        process.send_signal(number)
        out, _ = process.communicate()
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    assert f"{name}: saved step 6 of 12; run the same command to resume" in out
    assert "6" in {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}


def test_resumes_on_another_mesh(
    mixture: Path,
    whole_run: Path,
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        _stop_after(patched, 6)
        with pytest.raises(Killed):
            train.run(model, training, mixture, tmp_path / "run", one_device())
    training.mesh = Mesh(data=2, fsdp=2, tensor=2)
    train.run(model, training, mixture, tmp_path / "run")
    losses = [[row["loss"] for row in metric_rows(run)] for run in (whole_run, tmp_path / "run")]
    np.testing.assert_allclose(*losses, rtol=2e-4)


def test_a_damaged_latest_checkpoint_costs_steps_only(
    mixture: Path, whole_run: Path, finished_run: Path, model: Model, training: Training
) -> None:
    for path in (finished_run / "checkpoints" / "12" / "params").rglob("*"):
        if path.parent.name == "d":
            path.write_bytes(path.read_bytes()[:-9])
    result = train.run(model, training, mixture, finished_run, one_device())
    assert result.resumed_from == 8
    assert metric_rows(finished_run) == metric_rows(whole_run)
    assert (finished_run / "checkpoints-damaged" / "000-step-12").is_dir()
    assert restore_params(finished_run / "checkpoints", model)[1] == 12


def test_nothing_is_compiled_after_the_first_step(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    counts: list[int] = []
    compile_step = train.compile_step

    def counting(*arguments: Any) -> Any:
        step_fn = compile_step(*arguments)

        def run_step(state: Any, batch: Any) -> Any:
            counts.append(len(compiled))
            return step_fn(state, batch)

        return run_step

    monkeypatch.setattr(train, "compile_step", counting)
    training.checkpointing.every_steps = 2
    train.run(model, training, bake(), tmp_path / "run", one_device())
    assert counts[0] > 0, "the listener hears compilations"
    # Steps 0 and 1; what the first save compiles comes before step 2; then never again.
    assert counts[0] == counts[1] and len(set(counts[2:])) == 1


def test_the_loop_waits_for_the_device_where_a_row_or_a_save_is_due_only(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No value comes to the host, and nothing goes to the device unasked, in any other step."""
    array = type(jnp.zeros(()))
    value, doing = array._value, [0]
    fetched: set[int] = set()

    def fetch(self: Any) -> Any:
        fetched.add(doing[0])
        return value.fget(self)

    compile_step = train.compile_step

    def guarded(*arguments: Any) -> Any:
        step_fn = compile_step(*arguments)

        def run_step(state: Any, batch: Any) -> Any:
            doing[0] += 1
            if doing[0] == 1:
                monkeypatch.setattr(array, "_value", property(fetch))
            with jax.transfer_guard("disallow"):
                return step_fn(state, batch)

        return run_step

    monkeypatch.setattr(train, "compile_step", guarded)
    training.checkpointing.every_steps = 8
    training.faults = Faults(OnFault.SKIP, OnFault.SKIP, spike_z=100)
    training.log_every = 6
    train.run(model, training, bake(), tmp_path / "run", one_device())
    assert doing == [12]
    assert fetched == {5, 6, 8, 12}, "rows (the stage ends at 5), saves"


def _spoil_step_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of step 7 is NaN."""
    make_step = train.make_step

    def spoiled(*arguments: Any, **named: Any) -> Any:
        step = make_step(*arguments, **named)

        def run_step(state: Any, batch: Any) -> Any:
            batch = {
                **batch,
                "loss_mask_BT": batch["loss_mask_BT"] * jnp.where(state.step == 6, jnp.nan, 1.0),
            }
            return step(state, batch)

        return run_step

    monkeypatch.setattr(train, "make_step", spoiled)


def test_a_nan_loss_stops_the_run_and_writes_its_documents(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _spoil_step_7(monkeypatch)
    directory = bake()
    message = r"step 7: loss nan, gradient norm nan; its \d+ documents \((web|code)/\d+, .*7.json"
    with pytest.raises(NonFiniteError, match=message):
        train.run(model, training, directory, tmp_path / "run", one_device())
    case = json.loads((tmp_path / "run" / "bad-steps" / "step-7.json").read_text())
    spans = case["documents"]
    assert {"row", "source", "record_id", "document_id", "offset", "length"} == set(spans[0])
    assert {span["row"] for span in spans} == set(range(B))
    params, step = restore_params(tmp_path / "run" / "checkpoints", model)
    assert step == 4, "step 8 came after the bad one and was not saved"
    assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(params))
    monkeypatch.undo()
    assert train.run(model, training, directory, tmp_path / "run", one_device()).resumed_from == 4


def _unreadable(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The batch of a step, 1 for the first, cannot be read."""
    batches = packed_dataset.batches

    def failing(*arguments: Any, first_step: int, **named: Any) -> Iterator[Any]:
        for number, batch in enumerate(batches(*arguments, first_step=first_step, **named), 1):
            if first_step + number == step:
                raise OSError("Stale file handle")
            yield batch

    monkeypatch.setattr(packed_dataset, "batches", failing)


def test_an_error_of_the_data_saves_the_steps_before_it(
    mixture: Path,
    whole_run: Path,
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patched:
        _unreadable(patched, 8)
        with pytest.raises(OSError, match="Stale file handle"):
            train.run(model, training, mixture, tmp_path / "run", one_device())
    assert "an error ends the run: saved step 7" in capfd.readouterr().err
    result = train.run(model, training, mixture, tmp_path / "run", one_device())
    assert result.resumed_from == 7
    assert metric_rows(tmp_path / "run") == metric_rows(whole_run)
    assert same_params(tmp_path / "run", whole_run, model)


def test_an_error_after_a_bad_step_saves_nothing(
    mixture: Path,
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _spoil_step_7(monkeypatch)
    _unreadable(monkeypatch, 8)
    with pytest.raises(OSError, match="Stale file handle"):
        train.run(model, training, mixture, tmp_path / "run", one_device())
    assert "step 7 could not be saved: step 7: loss nan" in capfd.readouterr().err
    assert restore_params(tmp_path / "run" / "checkpoints", model)[1] == 4


def test_saves_by_minutes(
    mixture: Path,
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training.checkpointing = Checkpointing(every_steps=100, every_minutes=1, keep=20)
    monkeypatch.setattr(saving, "SECONDS_PER_MINUTE", 1e-9)
    result = train.run(model, training, mixture, tmp_path / "run", one_device())
    assert {int(path.name) for path in result.checkpoints.iterdir()} == set(range(1, 13))


def test_the_history_has_a_row_for_each_start(
    mixture: Path, finished_run: Path, model: Model, training: Training
) -> None:
    training.stages[-1].tokens += 2 * B * T
    train.run(model, training, mixture, finished_run, one_device())
    with (finished_run / "history.jsonl").open("a") as file:
        file.write('{"cut by a crash')
    training.stages[-1].tokens += B * T
    model.remat = Remat.FULL
    train.run(model, training, mixture, finished_run, one_device())
    lines = (finished_run / "history.jsonl").read_text().splitlines()
    assert lines.pop(2) == '{"cut by a crash'
    rows = list(map(json.loads, lines))
    assert [row["step"] for row in rows] == [0, 12, 14]
    assert [row["plan"]["steps"] for row in rows] == [12, 14, 15]
    assert [row["config"]["model"]["remat"] for row in rows] == ["none", "none", "full"]
    config = json.loads((finished_run / "config.json").read_text())
    assert rows[-1]["config"] == config
    for name in ("version", "commit", "python", "libraries", "devices", "command", "environment"):
        assert name in rows[0]
    assert rows[0]["libraries"]["jax"] == jax.__version__ and rows[0]["devices"] == {"cpu": 8}
    history.append(finished_run, 15, {"config": config, "plan": rows[-1]["plan"]})
    last = json.loads((finished_run / "history.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 15 and not {"config", "plan"} & set(last), "as before"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "was trained with seed=0 up to its checkpoint, the config gives seed=1"),
        ({"batch_size": 4}, "was trained with batch_size=8 .* the config gives batch_size=4"),
        ({"stages": [Stage("x", "stage2", 12 * B * T)]}, "was trained with stages="),
    ],
)
def test_other_data_than_before_is_refused(
    mixture: Path,
    finished_run: Path,
    model: Model,
    training: Training,
    change: dict[str, Any],
    message: str,
) -> None:
    changed = dataclasses.replace(training, **change)
    with pytest.raises(ValueError, match=message):
        train.run(model, changed, mixture, finished_run, one_device())


def test_more_tokens_for_the_last_stage_go_on_from_its_end(
    mixture: Path, finished_run: Path, model: Model, training: Training
) -> None:
    training.stages[-1].tokens += 2 * B * T
    result = train.run(model, training, mixture, finished_run, one_device())
    assert result.resumed_from == 12 and result.step == 14
    assert [row["step"] for row in metric_rows(finished_run)] == [3, 5, 6, 9, 12, 14]


def test_another_mixture_is_refused(
    bake: Callable[..., Path], finished_run: Path, model: Model, training: Training
) -> None:
    other = bake(records={"web": 41, "code": 25}, name="other")
    with pytest.raises(ValueError, match=r"was trained on mixture .* give the same baked data"):
        train.run(model, training, other, finished_run, one_device())


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_intact(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After step 4 the system lets no file grow past 20 kB: arrays cannot be written."""
    save, limits = checkpoint.Checkpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(self: Any, state: Any, record: dict[str, Any]) -> None:
        if int(state.step) > 4:
            self.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        save(self, state, record)

    monkeypatch.setattr(checkpoint.Checkpoints, "save", full)
    directory, run_dir = bake(), tmp_path / "run"
    message = r"checkpoints: a checkpoint could not be written, those before it are intact; free"
    try:
        with pytest.raises(CheckpointSaveError, match=message) as caught:
            train.run(model, training, directory, run_dir, one_device())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in str(caught.value) and "\n" not in str(caught.value)
    assert not caplog.records and "Traceback" not in capfd.readouterr().err
    del caught
    gc.collect()  # Orbax's writers log as they are freed, which must not happen in another test
    monkeypatch.undo()
    assert restore_params(run_dir / "checkpoints", model)[1] == 4
    assert train.run(model, training, directory, run_dir, one_device()).resumed_from == 4
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["12", "4", "8"]


def test_data_that_does_not_fit_is_refused_before_anything_is_written(
    bake: Callable[..., Path], model: Model, training: Training, tmp_path: Path
) -> None:
    model.vocab_size = 128
    with pytest.raises(ValueError, match="vocab_size=128"):
        train.run(model, training, bake(), tmp_path / "run", one_device())
    assert not (tmp_path / "run").exists()

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hare_jax.data.order import StageSchedule
from hare_jax.tracking import metrics
from hare_jax.tracking.metrics import Metrics, MetricsWriter, StepCost, drop_rows_after
from tests.builders import read_jsonl
from tests.hare_jax.builders import metric_rows

ONE = StageSchedule("one", "m", 0, 5, (1, 1), (0, 0))
TWO = StageSchedule("two", "m", 5, 5, (1, 1), (5, 5))


def _values(step: int, loss: float | None = None) -> dict[str, jax.Array]:
    loss = 4.0 - step / 7 if loss is None else loss
    return {
        "loss": jnp.float32(loss),
        "learning_rate": jnp.float32(0.1 * (step + 1)),
        "grad_norm": jnp.float32(1.0),
        "param_norm": jnp.float32(2.0),
        "source_loss_sum": jnp.array([loss * 10, 0.0]),
        "source_tokens": jnp.array([10.0, 0.0 if step != 1 else 5.0]),
    }


def _metrics(run_dir: Path, **changes: Any) -> Metrics:
    first_step, project = changes.pop("first_step", 0), changes.pop("wandb_project", "")
    arguments: dict[str, Any] = {
        "sources": ["web", "code"],
        "cost": StepCost(128, 1e6, metrics.peak_flops(jax.devices())),
        "log_every": 2,
        "is_learned": lambda step, values: True,
        **changes,
    }
    return Metrics(MetricsWriter(run_dir, first_step, 10, project), **arguments)


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    return read_jsonl(run_dir / "metrics.jsonl")


def _fill(m: Metrics, first: int, last: int) -> None:
    for step in range(first, last):
        m.add(step, ONE if step < 5 else TWO, _values(step), input_wait=0.0)


def test_rows_are_means_and_end_with_each_stage(tmp_path: Path) -> None:
    with _metrics(tmp_path) as m:
        _fill(m, 0, 10)
    rows = _rows(tmp_path)
    assert [(row["step"], row["stage"]) for row in rows] == [
        (2, "one"),
        (4, "one"),
        (5, "one"),
        (6, "two"),
        (8, "two"),
        (10, "two"),
    ]
    assert rows[0]["loss"] == (float(jnp.float32(4.0)) + float(jnp.float32(4.0 - 1 / 7))) / 2
    assert rows[0]["tokens"] == 256 and rows[0]["mfu"] is None
    assert set(rows[0]["source_loss"]) == {"web", "code"}
    assert set(rows[1]["source_loss"]) == {"web"}, "a source without tokens has no loss"
    assert list(rows[0]) == [
        "step",
        "stage",
        "loss",
        "learning_rate",
        "grad_norm",
        "param_norm",
        "skipped",
        "tokens",
        "tokens_per_second",
        "mfu",
        "input_wait",
        "checkpoint_stall",
        "memory_in_use",
        "memory_peak",
        "source_loss",
    ]


@pytest.mark.parametrize("stopped", range(1, 10))
def test_interrupted_anywhere_gives_the_rows_of_an_uninterrupted_run(
    tmp_path: Path, stopped: int
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with _metrics(tmp_path / "a") as m:
        _fill(m, 0, 10)
    with _metrics(tmp_path / "b") as m:
        _fill(m, 0, stopped)
        pending = json.loads(json.dumps(m.fetch()))  # as the checkpoint keeps it
        _fill(m, stopped, min(10, stopped + 3))  # lost after the checkpoint
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "los')  # cut while it was written
    with _metrics(tmp_path / "b", first_step=stopped, pending=pending) as m:
        _fill(m, stopped, 10)
    assert metric_rows(tmp_path / "a") == metric_rows(tmp_path / "b")


def test_a_bad_step_raises_before_its_row_is_written(tmp_path: Path) -> None:
    def counts(step: int, values: dict[str, Any]) -> bool:
        if not math.isfinite(values["loss"]):
            raise ArithmeticError(f"step {step}")
        return True

    with _metrics(tmp_path, log_every=5, is_learned=counts) as m:
        _fill(m, 0, 2)
        m.add(2, ONE, _values(2, math.inf), input_wait=0.0)
        m.add(3, ONE, _values(3, math.nan), input_wait=0.0)
        with pytest.raises(ArithmeticError, match="step 2"):
            m.add(4, ONE, _values(4), input_wait=0.0)
    assert _rows(tmp_path) == []


def test_skipped_steps_are_counted_and_enter_no_mean(tmp_path: Path) -> None:
    left_out = {1, 2, 3}  # with a row every 2 steps: half a row, a whole one
    counts = lambda step, values: step not in left_out  # noqa: E731
    with _metrics(tmp_path, is_learned=counts) as m:
        for step in range(6):
            loss = math.nan if step in left_out else None
            m.add(step, ONE if step < 5 else TWO, _values(step, loss), input_wait=0.0)
    rows = _rows(tmp_path)
    assert [(row["step"], row["skipped"]) for row in rows] == [(2, 1), (5, 2), (6, 0)]
    assert [row["loss"] for row in rows] == pytest.approx([4.0, 4.0 - 4 / 7, 4.0 - 5 / 7])
    assert rows[0]["source_loss"] == {"web": pytest.approx(4.0)}


def test_steps_skipped_before_a_checkpoint_are_counted_after_it(tmp_path: Path) -> None:
    with _metrics(tmp_path, log_every=5, is_learned=lambda step, _: step != 1) as m:
        _fill(m, 0, 3)
        pending = json.loads(json.dumps(m.fetch()))
    with _metrics(tmp_path, log_every=5, first_step=3, pending=pending) as m:
        _fill(m, 3, 5)
    (row,) = _rows(tmp_path)
    assert row["skipped"] == 1
    assert row["loss"] == pytest.approx(4.0 - (0 + 2 + 3 + 4) / 4 / 7)


def test_the_stall_of_saves_is_in_the_next_row(tmp_path: Path) -> None:
    with _metrics(tmp_path) as m:
        _fill(m, 0, 2)
        m.add_stall(0.25)
        m.add_stall(0.5)
        _fill(m, 2, 6)
    assert [row["checkpoint_stall"] for row in _rows(tmp_path)] == [0.0, 0.75, 0.0, 0.0]


def test_steps_stay_on_the_device_until_a_row_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    device_get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda x: fetched.append(x) or device_get(x))
    with _metrics(tmp_path, log_every=5) as m:
        _fill(m, 0, 4)
        assert not fetched
        _fill(m, 4, 5)
        assert len(fetched) == 5


def test_mfu_is_a_share_of_the_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.PEAK_FLOPS, "cpu", 1e12)
    with _metrics(tmp_path) as m:
        _fill(m, 0, 2)
    row = _rows(tmp_path)[0]
    expected = row["tokens_per_second"] * 1e6 / (1e12 * len(jax.devices()))
    assert row["mfu"] == pytest.approx(expected)


class _Device:
    """A device as an accelerator is: it says how much of its memory is taken."""

    def __init__(self, in_use: int, peak: int):
        self._stats = {"bytes_in_use": in_use, "peak_bytes_in_use": peak, "bytes_limit": 99}

    def memory_stats(self) -> dict[str, int]:
        return self._stats


def test_memory_is_that_of_the_fullest_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert metrics.memory() == (None, None), "a CPU does not say"
    monkeypatch.setattr(jax, "local_devices", lambda: [_Device(5, 30), _Device(7, 20)])
    with _metrics(tmp_path) as m:
        _fill(m, 0, 2)
    (row,) = _rows(tmp_path)
    assert (row["memory_in_use"], row["memory_peak"]) == (7, 30)


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    judged: list[int] = []
    with _metrics(tmp_path, is_learned=lambda step, _: judged.append(step) is None) as m:
        _fill(m, 0, 4)
        m.sync()
    assert list(tmp_path.iterdir()) == [] and judged == [0, 1, 2, 3]


def test_tensorboard_has_the_losses(
    tmp_path: Path, curves: Callable[[Path], dict[tuple[str, int], float]]
) -> None:
    with _metrics(tmp_path) as m:
        _fill(m, 0, 4)
    scalars, rows = curves(tmp_path), _rows(tmp_path)
    assert scalars["train/loss", 2] == pytest.approx(rows[0]["loss"])
    assert scalars["source_loss/web", 4] == pytest.approx(rows[1]["source_loss"]["web"])
    assert {name for name, _ in scalars if name.startswith("train/")} == {
        f"train/{key}"
        for key, value in rows[0].items()
        if isinstance(value, int | float) and key != "step"
    }


def test_a_project_gets_the_scalars_of_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    class Board:
        def __init__(self, run_dir: Path, project: str):
            calls.append((run_dir, project))

        def write(self, step: int, values: dict[str, float]) -> None:
            calls.append((step, values["train/loss"], values["source_loss/web"]))

        def close(self, failed: bool) -> None:
            calls.append(failed)

    monkeypatch.setattr(metrics, "WeightsAndBiases", Board)
    with pytest.raises(ZeroDivisionError), _metrics(tmp_path, wandb_project="hares") as m:
        _fill(m, 0, 2)
        raise ZeroDivisionError
    (row,) = _rows(tmp_path)
    assert calls == [(tmp_path, "hares"), (2, row["loss"], row["source_loss"]["web"]), True]


def test_rows_up_to_the_step_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    drop_rows_after(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
    drop_rows_after(path, 0)
    assert path.read_text() == ""


def test_plain_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _metrics(tmp_path) as m:
        _fill(m, 0, 10)
    lines = capsys.readouterr().out.splitlines()
    # The first row, then nothing until seconds have passed, then the last.
    assert len(lines) == 2
    assert lines[0].startswith("step 2/10  one  loss 3.9286  ")
    assert lines[0].endswith(" left") and " tokens/s" in lines[0]
    assert lines[1].startswith("step 10/10  two  loss ") and "  0:00 left" in lines[1]

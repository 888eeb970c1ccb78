from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from hare_jax.training import metrics
from hare_jax.training.metrics import Metrics, NotFinite, cut_back
from hare_jax.training.order import Stretch

ONE = Stretch("one", "m", 0, 5, (1, 1), (0, 0))
TWO = Stretch("two", "m", 5, 5, (1, 1), (5, 5))


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
    arguments: dict[str, Any] = {
        "sources": ["web", "code"],
        "steps": 10,
        "log_every": 2,
        "tokens_per_step": 128,
        "flops_per_token": 1e6,
        "devices": jax.devices(),
        **changes,
    }
    return Metrics(run_dir, **arguments)


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


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
        "tokens",
        "tokens_per_second",
        "mfu",
        "input_wait",
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
    timed = ("tokens_per_second", "input_wait")
    a, b = (
        [{key: value for key, value in row.items() if key not in timed} for row in _rows(run)]
        for run in (tmp_path / "a", tmp_path / "b")
    )
    assert a == b


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_step_is_named(tmp_path: Path, bad: float) -> None:
    with _metrics(tmp_path, log_every=5) as m:
        _fill(m, 0, 2)
        m.add(2, ONE, _values(2, bad), input_wait=0.0)
        m.add(3, ONE, _values(3, math.nan), input_wait=0.0)
        with pytest.raises(NotFinite, match=rf"step 3: loss {bad}, gradient norm 1.0") as caught:
            m.add(4, ONE, _values(4), input_wait=0.0)
    assert caught.value.step == 2
    assert _rows(tmp_path) == []


def test_a_bad_gradient_is_as_bad_as_a_bad_loss(tmp_path: Path) -> None:
    with _metrics(tmp_path) as m:
        m.add(0, ONE, {**_values(0), "grad_norm": jnp.float32(jnp.inf)}, input_wait=0.0)
        with pytest.raises(NotFinite, match=r"step 1: loss 4\.0, gradient norm inf"):
            m.fetch()


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


def test_tensorboard_has_the_losses(tmp_path: Path) -> None:
    with _metrics(tmp_path) as m:
        _fill(m, 0, 4)
    (events,) = (tmp_path / "tensorboard").iterdir()
    data, scalars, at = events.read_bytes(), {}, 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
        at += 16 + size
    rows = _rows(tmp_path)
    assert scalars["train/loss", 2] == pytest.approx(rows[0]["loss"])
    assert scalars["source_loss/web", 4] == pytest.approx(rows[1]["source_loss"]["web"])


def test_cut_back_leaves_whole_rows_up_to_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    cut_back(path, 4)
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'
    cut_back(path, 0)
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

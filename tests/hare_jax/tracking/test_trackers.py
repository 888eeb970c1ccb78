from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hare_jax.tracking import trackers
from hare_jax.tracking.trackers import TensorBoard, WeightsAndBiases
from tests.builders import ROOT


class FakeWandb(SimpleNamespace):
    """The three calls that are made of the package, written down; any of them may fail."""

    def __init__(self, failing: str = ""):
        super().__init__()
        self.calls: list[tuple[str, Any]] = []
        self.failing = failing
        self.Settings = dict

    def _called(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        if name == self.failing:
            raise ConnectionError("no\nroute to host")

    def init(self, **arguments: Any) -> FakeWandb:
        self._called("init", arguments)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self._called("log", (step, values))

    def finish(self, exit_code: int) -> None:
        self._called("finish", exit_code)


def _install(monkeypatch: pytest.MonkeyPatch, fake: FakeWandb) -> FakeWandb:
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(trackers.util, "find_spec", lambda name: object())
    return fake


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"training": {"seed": 3}}))
    return tmp_path


def test_a_run_that_is_resumed_within_a_second_keeps_its_curves(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    curves: Callable[[Path], dict[tuple[str, int], float]],
) -> None:
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    for first_step in (0, 2, 4):
        board = TensorBoard(run_dir, first_step)
        board.write(first_step + 1, {"train/loss": first_step})
        board.close(failed=False)
    assert curves(run_dir) == {("train/loss", step + 1): step for step in (0, 2, 4)}


def test_rows_and_config_go_to_the_project(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _install(monkeypatch, FakeWandb())
    board = WeightsAndBiases(run_dir, "hares")
    board.write(7, {"train/loss": 2.5})
    board.close(failed=False)
    (_, init), log, finish = fake.calls
    assert (init["project"], init["name"], init["dir"]) == ("hares", run_dir.name, str(run_dir))
    assert init["config"] == {"training": {"seed": 3}}
    assert log == ("log", (7, {"train/loss": 2.5})) and finish == ("finish", 0)


def test_a_resumed_run_is_the_same_run_there(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _install(monkeypatch, FakeWandb())
    for failed in (True, False):
        WeightsAndBiases(run_dir, "hares").close(failed)
    first, second = (value for name, value in fake.calls if name == "init")
    assert first["id"] == second["id"] and first["resume"] == "allow"
    assert [value for name, value in fake.calls if name == "finish"] == [1, 0]


@pytest.mark.parametrize("failing", ["init", "log", "finish"])
def test_a_failure_is_printed_once_and_disables_the_tracker(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failing: str,
) -> None:
    fake = _install(monkeypatch, FakeWandb(failing))
    board = WeightsAndBiases(run_dir, "hares")
    for step in range(3):
        board.write(step, {"train/loss": 1.0})
    board.close(failed=False)
    told = capsys.readouterr().err
    message = (
        "!!! Weights & Biases failed; training continues without it: ConnectionError: no route"
    )
    assert told.count(message) == told.count("!!!") == 1
    assert fake.calls[-1][0] == failing, "it is not asked again"


def test_without_the_package_the_project_is_refused(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.util, "find_spec", lambda name: None)
    message = r"wandb_project is 'hares', .* not installed: pip install -e '.\[wandb\]', or leave"
    with pytest.raises(ValueError, match=message):
        WeightsAndBiases(run_dir, "hares")


OFFLINE = """
import sys
from pathlib import Path
from hare_jax.tracking.trackers import WeightsAndBiases

board = WeightsAndBiases(Path(sys.argv[1]), "hares")
for step in range(3):
    board.write(step, {"train/loss": 4.0 - step})
board.close(failed=False)
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_an_offline_run_of_the_real_package(run_dir: Path) -> None:
    # A process of its own: the package starts a service that outlives a test.
    result = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(run_dir)],
        env={**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "!!!" not in result.stderr, result.stderr
    (log,) = run_dir.glob("wandb/offline-run-*/*.wandb")
    id = (run_dir / "wandb-id").read_text().strip()
    assert log.name == f"run-{id}.wandb"
    assert b"train/loss" in log.read_bytes()

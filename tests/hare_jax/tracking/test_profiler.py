from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from hare_jax.config import Model, ProfilerWindow
from hare_jax.tracking.profiler import Profiler
from hare_jax.training import train
from hare_jax.training.identity import run_name
from tests.hare_jax.builders import tiny_training

pytestmark = pytest.mark.slow


def _traced_steps(run_dir: Path) -> list[int]:
    """The steps that the traces below `run_dir` hold, as the trace viewer shows them."""
    steps = []
    for path in sorted((run_dir / "profile").rglob("*.trace.json.gz")):
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
        steps += [int(e["args"]["step_num"]) for e in events if e.get("name") == "train"]
    return sorted(steps)


def _run(config: ProfilerWindow, run_dir: Path, steps: range) -> None:
    state = jnp.ones((8, 8))
    with Profiler(config, run_dir) as profiler:
        for step in steps:
            profiler.at(step, state)
            state = state @ state


@pytest.mark.parametrize(
    ("steps", "traced"),
    [
        (range(8), [3, 4, 5]),
        (range(4), [3, 4]),  # ended, or stopped by a signal, before the last of them
        (range(3, 8), [4, 5]),  # resumed among them
        (range(5, 8), []),  # resumed behind them
        (range(2), []),
    ],
)
def test_the_configured_steps_are_traced(tmp_path: Path, steps: range, traced: list[int]) -> None:
    _run(ProfilerWindow(3, 5), tmp_path, steps)
    assert _traced_steps(tmp_path) == traced


def test_nothing_is_traced_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(ProfilerWindow(), tmp_path, range(8))
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_a_failing_step_ends_the_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Profiler(ProfilerWindow(1, 9), tmp_path) as profiler:
        profiler.at(0, jnp.ones(3))
        raise ZeroDivisionError
    _run(ProfilerWindow(1, 1), tmp_path, range(1))  # another trace can be begun


@pytest.mark.parametrize(
    "config",
    [ProfilerWindow(3, 2), ProfilerWindow(0, 2), ProfilerWindow(-1, 2), ProfilerWindow(2, 0)],
)
def test_an_invalid_range_is_refused(tmp_path: Path, config: ProfilerWindow) -> None:
    message = rf"first_step={config.first_step} and last_step={config.last_step}: expected 1 <= "
    with pytest.raises(ValueError, match=message):
        Profiler(config, tmp_path)


def test_a_run_prints_the_path_of_its_trace(
    bake: Callable[..., Path], model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tiny_training(profile=ProfilerWindow(2, 3))
    mixture = bake()
    named = run_name(model, training, mixture)
    train.run(model, training, mixture, tmp_path / "run", jax.devices()[:1])
    assert _traced_steps(tmp_path / "run") == [2, 3]
    (trace,) = (tmp_path / "run" / "profile").rglob("*.trace.json.gz")
    out = capsys.readouterr().out
    assert f"profile of steps 2 to 3: open {trace} in https://ui.perfetto.dev" in out
    training.profile = ProfilerWindow()
    assert run_name(model, training, mixture) == named, "to look at a run does not change it"

"""A killed and resumed run ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import Evaluation
from tests.builders import read_jsonl, write_jsonl
from tests.hare_jax.builders import metric_rows, same_params, tiny_model, tiny_training

pytestmark = pytest.mark.slow

PLACES = {  # where -> the checkpoints of training that are there then
    "during_a_step": ["4"],
    "during_an_asynchronous_save": ["4", "8.orbax-checkpoint-tmp"],
    "between_save_and_commit": ["4", "8.orbax-checkpoint-tmp"],
    "during_prefetch": ["4"],
    "during_evaluation": ["12", "4", "8"],
    "just_across_a_stage_switch": ["4"],
}
MODEL = tiny_model()
ITEMS = [
    {"id": f"fact/{n}", "task": "fact", "source": "web", "context": f"{n} is", "answer": n % 2}
    | {"choices": [f" {n + 1}", f" not {n}"]}
    for n in range(3)
]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, bake_at: Callable[..., Path], compiled: Path
) -> tuple[Path, dict[str, Any]]:
    """The directory of all runs, and what killed_runs.py said of them."""
    directory = tmp_path_factory.mktemp("runs")
    write_jsonl(directory / "items.jsonl", ITEMS)
    settings = {
        "model": MODEL,
        "training": tiny_training(),
        "evaluation": Evaluation(batch_tokens=256, samples=1, prompt_tokens=4, sample_tokens=2),
        "mixture": bake_at(directory),
        "held_out": bake_at(directory, {"web": 3, "code": 2}, mixtures={}, name="held out"),
        "items": directory / "items.jsonl",
        "compiled": str(compiled),
    }
    (directory / "settings").write_bytes(pickle.dumps(settings))
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(directory / "settings"), str(directory)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(script.parents[3]), "JAX_NUM_CPU_DEVICES": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == set(PLACES)
    return directory, told


def _seen(run_dir: Path) -> list[dict[str, Any]]:
    """What each step saw and gave, in the order in which steps were done."""
    return read_jsonl(run_dir / "seen.jsonl")


@pytest.mark.parametrize("place", PLACES)
def test_killed_then_again_equals_uninterrupted(
    runs: tuple[Path, dict[str, Any]], place: str
) -> None:
    directory, told = runs
    assert told[place] == [-signal.SIGKILL, PLACES[place]]
    whole, cut = directory / "whole", directory / place
    expected = {line["step"]: line for line in _seen(whole)}
    seen = _seen(cut)
    assert {line["step"] for line in seen} == set(range(12))
    assert all(line == expected[line["step"]] for line in seen), "records, sources and losses"
    assert metric_rows(cut) == metric_rows(whole)
    assert same_params(cut, whole, MODEL)
    written = ["plan.json"]
    if place == "during_evaluation":
        written += ["evaluation.json", "items_scored.jsonl", "samples.json"]
    for name in written:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    sums = [
        json.loads((run / "checkpoints" / "12" / "record" / "metadata").read_text())["checksums"]
        for run in (cut, whole)
    ]
    assert sums[0] == sums[1], "the optimizer's moments too"


def test_each_went_on_from_its_last_checkpoint(runs: tuple[Path, dict[str, Any]]) -> None:
    for place in PLACES:
        steps = [line["step"] for line in _seen(runs[0] / place)]
        assert steps[:4] == [0, 1, 2, 3] and steps.count(3) == 1, "done once"
        again = [step for before, step in pairwise(steps) if step <= before]
        assert again == ([] if place == "during_evaluation" else again and [4])

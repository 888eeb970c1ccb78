"""Which run a command continues: by the table of docs/training.md, and through main.py."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import Model, Optimizer, Schedule, Stage, Training, plain
from hare_jax.data.packed_dataset import fingerprint_of
from hare_jax.training import identity
from hare_jax.training.identity import Choice, choose, run_name
from hare_jax.training.rules import RULES, Rule, rule_of
from tests.builders import ROOT
from tests.hare_jax.builders import B, T, metric_rows, same_params, tiny_model, tiny_training

# ---------------------------------------------------------------- the table


def fields_of(section: Any, address: str) -> Iterator[str]:
    """Yields the addresses of all fields below a section: training.mesh.slices.data."""
    for field in dataclasses.fields(section):
        value, where = getattr(section, field.name), f"{address}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, where)
        elif field.name == "stages":
            yield from fields_of(Stage("one", "stage1", 1), where)
        else:
            yield where


ALL = [*fields_of(Model(), "model"), *fields_of(Training(), "training")]


def table() -> dict[str, str]:
    """Returns what docs/training.md says of each field."""
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    found: dict[str, str] = {}
    for section, names, rule in re.findall(r"^\| `([a-z_.]+)` \| (.*) \| (.*) \|$", text, re.M):
        if section.split(".")[0] not in ("model", "training") or rule not in {
            r.value for r in Rule
        }:
            continue
        fields = (
            [f for f in ALL if f.startswith(f"{section}.")]
            if names == "all"
            else [f"{section}.{name}" for name in re.findall(r"`(\w+)`", names)]
        )
        assert not found.keys() & set(fields), "each field once"
        found |= dict.fromkeys(fields, rule)
    return found


def test_the_table_lists_every_field_with_its_rule() -> None:
    assert table() == {field: rule_of(field).value for field in ALL}
    assert all(any(f == r or f.startswith(f"{r}.") for f in ALL) for r in RULES), "no other rules"


def other(value: Any) -> Any:
    """Returns another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, enum.Enum):
        return next(one for one in type(value) if one is not value)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 1.0
    return {str: f"{value}x", tuple: ("x",), dict: {"web": 2.0}, type(None): 3}[type(value)]


def changed(model: Model, training: Training, address: str) -> None:
    """Gives the field of an address another value; of the stages, that of the one in progress."""
    owner: Any = {"model": model, "training": training}[address.split(".")[0]]
    *path, last = address.split(".")[1:]
    for name in path:
        owner = owner.stages[1] if name == "stages" else getattr(owner, name)
    setattr(owner, last, other(getattr(owner, last)))


DONE = 8  # of 12 steps: five of stage one and three of stage two


def begun(workdir: Path, mixture: Path, training: Training) -> Path:
    """Writes the folder of a run with DONE steps, as far as `choose` reads it."""
    run_dir = workdir / run_name(tiny_model(), training, mixture)
    (run_dir / "checkpoints" / str(DONE)).mkdir(parents=True)
    config = {
        "model": plain(tiny_model()),
        "training": plain(training),
        "mixture": {"fingerprint": fingerprint_of(mixture), "sequence_length": T},
    }
    (run_dir / "config.json").write_text(json.dumps(config), "utf-8")
    return run_dir


@pytest.mark.parametrize("address", ALL)
def test_a_change_of_each_field_does_what_the_table_says(
    address: str, tmp_path: Path, mixture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = begun(tmp_path, mixture, tiny_training())
    model, training = tiny_model(), tiny_training()
    changed(model, training, address)
    if address == "training.continue_from":
        training.continue_from = str(run_dir)
    if address == "training.stages.tokens":
        training.stages[1].tokens += B * T
    chosen, said = choose(tmp_path, model, training, mixture), capsys.readouterr().out
    rule = table()[address]
    if address == "training.stages.tokens":  # of later steps
        rule = Rule.NOTED.value
    elif rule == Rule.UPCOMING.value and address != "training.optimizer.decay_fraction":
        rule = Rule.REFUSED.value  # the data or the learning rate of finished steps
    if rule == Rule.REFUSED.value:
        assert chosen.run_dir != run_dir and chosen.run_dir.parent == tmp_path
        if address not in ("training.name", "training.continue_from"):
            assert f"a new run, {chosen.run_dir}" in said
            assert address.replace("stages", "stages[1]") in said
    else:
        assert chosen.run_dir == run_dir
        noted = address.replace("stages", "stages[1]") in said
        assert noted == (rule != Rule.CONTINUES.value), said


def _wsd(**changes: Any) -> Training:
    """Twelve steps, of which the last two decay."""
    settings = {"peak_lr": 1e-2, "warmup_steps": 2, "decay_fraction": 1 / 6} | changes
    return tiny_training(optimizer=Optimizer(schedule=Schedule.WSD, **settings))


def test_what_has_not_happened_yet_may_change(tmp_path: Path, mixture: Path) -> None:
    run_dir = begun(tmp_path, mixture, _wsd())

    def chosen(training: Training) -> Choice:
        return choose(tmp_path, tiny_model(), training, mixture)

    later_stage = _wsd()
    later_stage.stages.append(Stage("three", "stage1", B * T))
    sooner = _wsd(decay_fraction=0.1)
    sooner.stages[1].tokens = 5 * B * T  # ten steps in all, the last of which decays
    for training in (_wsd(decay_fraction=1 / 4), _wsd(final_lr_fraction=0), later_stage, sooner):
        assert chosen(training).run_dir == run_dir
    assert chosen(_wsd(decay_fraction=0.5)).run_dir != run_dir, "steps 7 and 8 would have decayed"
    shorter = _wsd()
    shorter.stages[1].tokens = 2 * B * T
    assert chosen(shorter).run_dir != run_dir, "fewer steps than it has"


def test_a_name_starts_anew_and_holds_its_run(tmp_path: Path, mixture: Path) -> None:
    begun(tmp_path, mixture, tiny_training())
    training = tiny_training(name="again")
    run_dir = begun(tmp_path, mixture, training)
    assert run_dir.name == "training-again"
    assert choose(tmp_path, tiny_model(), training, mixture).run_dir == run_dir
    message = (
        r"training-again has 8 finished steps, with training\.seed: 0, now 1: give the settings .*"
        rf"training\.name=NAME to start anew.*continue_from={run_dir}/checkpoints/8 "
    )
    with pytest.raises(ValueError, match=message):
        choose(tmp_path, tiny_model(), dataclasses.replace(training, seed=1), mixture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"holds another state, give the same: training\.seed: 0, now 1"),
        ({"batch_size": 4}, r"give the same: training\.batch_size: 8, now 4"),
        ({"stages": [Stage("one", "stage1", B * T)]}, "got 1 steps, expected more than the 8 of"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, mixture: Path
) -> None:
    run_dir = begun(tmp_path, mixture, tiny_training())
    training = tiny_training(continue_from=str(run_dir), **changes)
    with pytest.raises(ValueError, match=message):
        choose(tmp_path, tiny_model(), training, mixture)


def test_a_stage_in_progress_is_split_where_its_data_change() -> None:
    stages = [Stage("one", "stage1", 5 * B * T), Stage("two", "stage2", 3 * B * T)]
    origin = identity.Origin("checkpoints", 8, stages)

    def names(training: Training) -> list[tuple[str, int]]:
        split = identity._with_finished(origin, training, B * T)
        return [(stage.name, stage.tokens // (B * T)) for stage in split.stages]

    training = tiny_training()
    assert names(training) == [("one", 5), ("two", 7)]
    training.stages[1].weights = {"web": 2.0}
    assert names(training) == [("one", 5), ("two", 3), ("two from step 8", 4)]


# ---------------------------------------------------------------- through main.py

PAGE = """
from configs.experiment import Experiment
from tests.hare_jax.builders import tiny_model, tiny_training

def get_config(mixture):
    return Experiment(mixture=mixture, model=tiny_model(), training=tiny_training())
"""


class Command:
    """Runs main.py on a small mixture."""

    def __init__(self, folder: Path, mixture: Path, compiled: Path):
        self.workdir = folder / "work"
        (folder / "page.py").write_text(PAGE, "utf-8")
        self._fixed = [f"--config={folder}/page.py:{mixture}", f"--workdir={self.workdir}"]
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }

    def __call__(self, *settings: str, devices: int = 1) -> tuple[str, Path]:
        """Returns what was printed, and the run's folder."""
        settings = tuple(f"--config.{setting}" for setting in settings)
        done = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *self._fixed, *settings],
            env={**self._environment, "JAX_NUM_CPU_DEVICES": str(devices)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("checkpoints")]
        return done.stdout, Path(line.split(maxsplit=1)[1]).parent


@pytest.fixture
def command(tmp_path: Path, mixture: Path, compiled: Path) -> Command:
    return Command(tmp_path, mixture, compiled)


def _tokens(steps: int) -> str:
    return f"training.stages[1].tokens={steps * B * T}"


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_tokens_on_other_hardware(command: Command) -> None:
    _, first = command()
    hardware = ["model.remat=FULL", "training.mesh.data=2", "training.accumulation=2"]
    said, second = command(_tokens(9), "training.stages[0].name=first", *hardware, devices=2)
    assert second == first and len(list(command.workdir.glob("training-*"))) == 1
    assert "training.stages[1].tokens: 896, now 1152" in said and "resumed from step 12" in said
    assert [row["step"] for row in metric_rows(first)] == [3, 5, 6, 9, 12, 14]


@pytest.mark.slow
def test_a_decay_from_a_checkpoint_equals_a_run_that_was_planned_so(command: Command) -> None:
    """And it needs the other run no longer once it has begun."""
    wsd = ["training.optimizer.schedule=WSD", "training.optimizer.decay_fraction=0.16"]
    _, long = command(*wsd, "training.name=long")
    short = [
        wsd[0],
        "training.optimizer.decay_fraction=0.2",
        _tokens(5),
    ]  # ten, of which two decay
    source = f"training.continue_from={long}/checkpoints/8"
    said, decayed = command(*short, source)
    assert f"begins with {long}/checkpoints/8" in said
    _, planned = command(*short, "training.name=planned")
    assert same_params(decayed, planned, tiny_model())
    assert metric_rows(decayed) == metric_rows(planned)

    weights = [*wsd, source, "training.stages[1].weights.web=2.0"]
    _, other_weights = command(*weights)
    config = json.loads((other_weights / "config.json").read_text())
    assert [s["name"] for s in config["training"]["stages"]] == ["one", "two", "two from step 8"]
    assert config["training"]["stages"][2]["weights"] == {"web": 2.0}
    shutil.rmtree(long)
    said, again = command(*weights)
    assert again == other_weights and "already complete" in said

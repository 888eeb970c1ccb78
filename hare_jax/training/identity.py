"""The identity of a run: which run of a workdir the given settings continue.

A run is identified by what changes what it has learned up to its last checkpoint: the mixture, the
architecture, seed, batch size, optimizer and the stages so far. Settings of hardware, memory, logs
and saves may change, and so may what has not happened yet: later stages, the length of the last
one, the learning rate of later steps.

`choose` reads the runs of a workdir. It returns the one that the settings continue, or a new one.
With training.continue_from, a new run begins with the state of another run's checkpoint, and the
settings hold from its step on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import Model, Stage, Training, from_plain, plain
from hare_jax.data.packed_dataset import fingerprint_of, sequence_length_of
from hare_jax.runtime import distributed
from hare_jax.training import optim
from hare_jax.training.rules import STATE, Rule, rule_of
from hare_jax.training.run_dir import Run, open_run

C, N, U, R = Rule.CONTINUES, Rule.NOTED, Rule.UPCOMING, Rule.REFUSED
MAX_NAMED = 3  # runs, and changes of each, that a message names


@dataclass(slots=True)
class Change:
    """A field that differs from a run, and what follows from it for this run as far as it is."""

    field: str  # training.stages[1].tokens
    before: Any
    now: Any
    rule: Rule  # never UPCOMING

    def __str__(self) -> str:
        """Returns `training.seed: 0, now 1`."""
        return f"{self.field}: {self.before!r}, now {self.now!r}"


@dataclass(slots=True)
class Origin:
    """The checkpoint of another run whose state a run began with."""

    checkpoints: str  # folder
    step: int
    stages: list[Stage]  # of the steps up to it


@dataclass(slots=True)
class Choice:
    """The run that settings continue or begin."""

    run_dir: Path
    training: Training  # with the stages that the finished steps had
    origin: Origin | None = None
    changes: list[Change] = field(default_factory=list)


def choose(workdir: Path, model: Model, training: Training, mixture_dir: Path) -> Choice:
    """Returns the run in `workdir` that these settings continue, or a new one; prints which.

    Args:
      workdir: the folder of the runs.
      model: the model.
      training: the settings.
      mixture_dir: the folder of the packed data.

    Raises:
      ValueError: the run of this name has learned something else, or training.continue_from cannot
        be continued with these settings.
      FileNotFoundError: there is no checkpoint at training.continue_from.
    """
    name = run_name(model, training, mixture_dir)
    runs = [run for run in _runs(workdir, fingerprint_of(mixture_dir)) if latest_step(run)]
    compared = [(run, _continued(run, model, training)) for run in runs]
    compared.sort(key=lambda pair: (pair[0].directory.name != name, -latest_step(pair[0])))
    for run, choice in compared:
        refused = _refused(choice.changes)
        if not refused:
            _print_continued(run, choice)
            return choice
        if run.directory.name == name:
            raise ValueError(_other_history(run, refused))
    if not (training.continue_from or training.name):
        _print_others([(run, _refused(choice.changes)) for run, choice in compared], workdir / name)
    choice = Choice(workdir / name, training)
    if training.continue_from:
        choice.origin = _origin(model, training, mixture_dir)
        steps = _tokens_per_step(training, sequence_length_of(mixture_dir))
        choice.training = _with_finished(choice.origin, training, steps)
    return choice


def run_name(model: Model, training: Training, mixture_dir: Path) -> str:
    """Returns the name of the folder of a new run with these settings.

    It is training.name, or a hash of the mixture and of all fields that a run in progress cannot
    change, or not for its finished steps.
    """
    if training.name:
        return f"training-{training.name}"
    fields = {**_flat("model", plain(model)), **_flat("training", plain(training))}
    fixed = {k: v for k, v in fields.items() if rule_of(k) in (R, U)}
    value = [fingerprint_of(mixture_dir), fixed]
    return f"training-{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]}"


def compare(run: Run, step: int, model: Model, training: Training) -> list[Change]:
    """Lists the fields in which settings differ from a run with `step` finished steps.

    Args:
      run: the run, with the settings of its latest start.
      step: its finished steps.
      model: the model.
      training: the settings, with the stages that the finished steps had.
    """
    assert run.training is not None
    tokens = _tokens_per_step(training, run.mixture["sequence_length"])
    before = {**_flat("model", plain(run.model)), **_flat("training", plain(run.training))}
    now = {**_flat("model", plain(model)), **_flat("training", plain(training))}
    changes = [
        Change(name, before[name], now[name], rule_of(name))
        for name in before
        if name in now and before[name] != now[name] and ".stages" not in name
    ]
    same_rates = _same_rates(run.training, training, step, tokens)
    for change in changes:
        if change.rule is U:  # a field of the learning rate
            change.rule = N if same_rates else R
    return changes + list(_changed_stages(run.training, training, step, tokens))


def latest_step(run: Run) -> int:
    """Returns the step of a run's latest checkpoint by the names of their folders; 0: none."""
    return max((int(p.name) for p in run.checkpoints.iterdir() if p.name.isdigit()), default=0)


def origin_to_plain(origin: Origin | None) -> dict[str, Any] | None:
    """Converts an origin for config.json."""
    return None if origin is None else asdict(origin)


def origin_of(run: Run) -> Origin | None:
    """Returns the checkpoint that a run began with, from its config.json."""
    if run.origin is None:
        return None
    stages = [from_plain(Stage, stage) for stage in run.origin["stages"]]
    return Origin(run.origin["checkpoints"], run.origin["step"], stages)


def _runs(workdir: Path, fingerprint: str) -> Iterator[Run]:
    """Yields the runs of a workdir on one mixture; folders that cannot be read are left out."""
    for file in sorted(workdir.glob("training-*/config.json")):
        try:
            run = open_run(file.parent)
        except (FileNotFoundError, ValueError):
            continue
        if run.training is not None and run.mixture.get("fingerprint") == fingerprint:
            yield run


def _continued(run: Run, model: Model, training: Training) -> Choice:
    """Returns what it would mean to continue a run with these settings."""
    assert run.training is not None
    origin = origin_of(run)
    if origin is not None and run.training.continue_from == training.continue_from:
        tokens = _tokens_per_step(training, run.mixture["sequence_length"])
        training = _with_finished(origin, training, tokens)
    changes = compare(run, latest_step(run), model, training)
    return Choice(run.directory, training, origin, changes)


def _origin(model: Model, training: Training, mixture_dir: Path) -> Origin:
    """Opens the checkpoint of training.continue_from; raises if it does not fit the settings."""
    run = open_run(training.continue_from)
    what = f"config.training.continue_from={training.continue_from}"
    if run.training is None:
        raise ValueError(
            f"{what} is an imported model, which has no optimizer state; to begin with its "
            "parameters: --config.training.start_from"
        )
    step = latest_step(run) if run.step is None else run.step
    if not (run.checkpoints / str(step)).is_dir():
        raise FileNotFoundError(f"{what}: got no checkpoint of step {step} in {run.checkpoints}")
    if run.mixture["fingerprint"] != fingerprint_of(mixture_dir):
        raise ValueError(
            f"{what} was trained on mixture {run.mixture['fingerprint']}, the mixture given is "
            f"{fingerprint_of(mixture_dir)}: give the same data, or begin with the parameters "
            "alone: --config.training.start_from"
        )
    wrong = [
        change
        for change in compare(run, step, model, training)
        if change.field in STATE or (change.field.startswith("model.") and change.rule is R)
    ]
    if wrong:
        raise ValueError(f"{what} holds another state, give the same: {_listed(wrong)}")
    tokens = _tokens_per_step(training, run.mixture["sequence_length"])
    return Origin(str(run.checkpoints), step, _first_steps(run.training, step, tokens))


def _with_finished(origin: Origin, training: Training, tokens_per_step: int) -> Training:
    """Returns the settings with the stages of the finished steps in place of their own.

    A stage in progress whose data change is split at the step of the origin.

    Raises ValueError if no step is left.
    """
    stages, first = list(origin.stages), 0
    for stage in training.stages:
        steps = math.ceil(stage.tokens / tokens_per_step)
        rest = first + steps - max(first, origin.step)
        if rest > 0:
            last = stages[-1]
            if first < origin.step and _data(last) == _data(stage):
                stages[-1] = replace(
                    last, name=stage.name, tokens=last.tokens + rest * tokens_per_step
                )
            else:
                taken = stage.name in [other.name for other in stages]
                name = f"{stage.name} from step {origin.step}" if taken else stage.name
                stages.append(replace(stage, name=name, tokens=rest * tokens_per_step))
        first += steps
    if first <= origin.step:
        raise ValueError(
            f"config.training.stages: got {first} steps, expected more than the {origin.step} of "
            f"{origin.checkpoints}, which is continued: give more tokens, or an earlier checkpoint"
        )
    return replace(training, stages=stages)


def _data(stage: Stage) -> tuple[Any, ...]:
    """Returns what determines what is learned in a stage, but its length."""
    return stage.mixture, stage.weights, stage.dropout


def _first_steps(training: Training, step: int, tokens_per_step: int) -> list[Stage]:
    """Returns the stages of the first `step` steps, the last of them cut."""
    stages, first = [], 0
    for stage in training.stages:
        steps = math.ceil(stage.tokens / tokens_per_step)
        done = min(steps, step - first)
        if done > 0:
            stages.append(replace(stage, tokens=done * tokens_per_step))
        first += steps
    return stages


def _tokens_per_step(training: Training, sequence_length: int) -> int:
    return training.batch_size * sequence_length


def _steps(training: Training, tokens_per_step: int) -> int:
    return sum(math.ceil(stage.tokens / tokens_per_step) for stage in training.stages)


def _same_rates(before: Training, now: Training, step: int, tokens_per_step: int) -> bool:
    """Returns whether the settings give the finished steps the learning rates that they had.

    A change of the run's length alone does not count: `tokens` of a stage says what follows of it.
    """

    def rates(training: Training, steps: int) -> np.ndarray:
        return np.asarray(optim.learning_rate(training.optimizer, steps)(np.arange(step)))

    try:
        expected = rates(now, _steps(now, tokens_per_step))
        had = rates(before, _steps(before, tokens_per_step))
        return np.array_equal(expected, had) or np.array_equal(
            expected, rates(before, _steps(now, tokens_per_step))
        )
    except ValueError:  # a schedule without room for its warmup, which training refuses by name
        return False


def _changed_stages(
    before: Training, now: Training, step: int, tokens_per_step: int
) -> Iterator[Change]:
    """Yields each change of a stage; one that concerns finished steps is refused."""
    first_before = first_now = 0
    for number in range(max(len(before.stages), len(now.stages))):
        where = f"training.stages[{number}]"
        begun = min(first_before, first_now) < step
        if number >= len(before.stages) or number >= len(now.stages):
            old_stage, new_stage = (
                asdict(s.stages[number]) if number < len(s.stages) else None for s in (before, now)
            )
            yield Change(where, old_stage, new_stage, R if begun else N)
            continue
        old, new = before.stages[number], now.stages[number]
        steps = [math.ceil(stage.tokens / tokens_per_step) for stage in (old, new)]
        for name in ("name", "mixture", "weights", "dropout"):
            if getattr(old, name) != getattr(new, name):
                rule = C if name == "name" else R if begun else N
                yield Change(f"{where}.{name}", getattr(old, name), getattr(new, name), rule)
        if steps[0] != steps[1]:
            done = min(steps[0], step - first_before), min(steps[1], step - first_now)
            rule = R if begun and done[0] != done[1] else N
            yield Change(f"{where}.tokens", old.tokens, new.tokens, rule)
        first_before, first_now = first_before + steps[0], first_now + steps[1]


def _flat(prefix: str, value: dict[str, Any]) -> dict[str, Any]:
    """Flattens nested dicts to {"training.mesh.data": 1}; the stages stay one list."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{prefix}.{name}"
        if name == "stages":
            stages = [{k: v for k, v in stage.items() if k != "name"} for stage in item]
            flat[f"{path}.mixture"] = stages  # one field of it, for its rule
        else:
            flat |= _flat(path, item) if isinstance(item, dict) else {path: item}
    return flat


def _refused(changes: list[Change]) -> list[Change]:
    return [change for change in changes if change.rule is R]


def _listed(changes: list[Change]) -> str:
    more = len(changes) - MAX_NAMED
    return "; ".join(map(str, changes[:MAX_NAMED])) + (f"; and {more} more" if more > 0 else "")


def _print_continued(run: Run, choice: Choice) -> None:
    """Prints the changes that are worth a note."""
    noted = [change for change in choice.changes if change.rule is N]
    if not noted:
        return
    lines = [f"{run.directory} continues from step {latest_step(run)} with other settings:"]
    lines += [f"  {change}" for change in noted]
    lines.append("  to start anew instead, name the new run: --config.training.name=NAME")
    distributed.print_once("\n".join(lines))


def _print_others(others: list[tuple[Run, list[Change]]], run_dir: Path) -> None:
    """Prints in what the runs that are there differ from the settings of a new run."""
    if not others:
        return
    lines = [f"a new run, {run_dir}; runs of the same mixture have learned something else:"]
    for run, refused in others[:MAX_NAMED]:
        lines.append(f"  {run.directory}, step {latest_step(run)}: {_listed(refused)}")
    if len(others) > MAX_NAMED:
        lines.append(f"  and {len(others) - MAX_NAMED} more")
    lines.append(
        "  the settings that a run had continue it; to continue one with these settings from a "
        "checkpoint on: --config.training.continue_from=RUN/checkpoints/STEP"
    )
    distributed.print_once("\n".join(lines))


def _other_history(run: Run, refused: list[Change]) -> str:
    step = latest_step(run)
    return (
        f"{run.directory} has {step} finished steps, with {_listed(refused)}: give the settings "
        "that it had, which continue it; or --config.training.name=NAME to start anew, and with "
        f"it --config.training.continue_from={run.directory}/checkpoints/{step} to begin with the "
        "state of this or an earlier checkpoint"
    )

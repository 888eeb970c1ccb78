"""The check of a model's and a run's settings before any work. Loads no JAX.

Training and its parts check the same again, with what only the baked data and the devices show.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from hare_jax.config import (
    AheadOfTime,
    BenchmarkEvaluation,
    BenchmarkOptions,
    Checkpointing,
    Distributed,
    Evaluation,
    Faults,
    Generation,
    HuggingFaceExport,
    InLoopConfig,
    LeakageAudit,
    LeakageParaphrasing,
    Mesh,
    Model,
    OnFault,
    Optimizer,
    ProfilerWindow,
    RopeScaling,
    Slices,
    Stage,
    Trace,
    Training,
)


@dataclass(frozen=True, slots=True)
class PlannedData:
    """What is known of the training data before it is baked."""

    sequence_length: int  # tokens
    vocab_size: int  # of the tokenizer
    mixtures: Collection[str]  # names


class FieldRange(NamedTuple):
    """The numbers that a field may have."""

    low: float = -math.inf
    high: float = math.inf
    has_low: bool = True
    has_high: bool = True

    def __contains__(self, value: object) -> bool:
        """Returns whether a number is in the range; NaN and infinities never are."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low or (self.has_low and value == self.low)
        below = value < self.high or (self.has_high and value == self.high)
        return above and below and (isinstance(value, int) or math.isfinite(value))

    def __str__(self) -> str:
        """Returns a description for error messages.

        >>> str(FieldRange(0)), str(FieldRange(0, 1, has_low=False)), str(FieldRange())
        ('0 or more', 'above 0 and at most 1', 'any finite number')
        """
        parts = []
        if math.isfinite(self.low):
            parts.append(f"{self.low} or more" if self.has_low else f"above {self.low}")
        if math.isfinite(self.high):
            parts.append(f"at most {self.high}" if self.has_high else f"below {self.high}")
        return " and ".join(parts) or "any finite number"


AT_LEAST_0, AT_LEAST_1 = FieldRange(0), FieldRange(1)
ABOVE_0 = FieldRange(0, has_low=False)
SHARE, SHARE_BELOW_1 = FieldRange(0, 1), FieldRange(0, 1, has_high=False)
SHARE_ABOVE_0 = FieldRange(0, 1, has_low=False)
JAX_SEED = FieldRange(-(2**63), 2**63 - 1)  # what jax.random.key takes
AXIS = FieldRange(-1)  # of a mesh; 0 is refused with the whole mesh

_BENCHMARK_OPTIONS = {
    "shots": FieldRange(-1),
    "limit": AT_LEAST_0,
    "max_length": AT_LEAST_0,
    "batch_tokens": AT_LEAST_1,
}
_SAMPLING = {"temperature": AT_LEAST_0, "top_k": AT_LEAST_0, "top_p": SHARE_ABOVE_0}

# The range of every number of every configuration.
RANGES: dict[type, dict[str, FieldRange]] = {
    Model: {
        "vocab_size": AT_LEAST_1,
        "num_layers": AT_LEAST_1,
        "d_model": AT_LEAST_1,
        "num_heads": AT_LEAST_1,
        "num_kv_heads": AT_LEAST_1,
        "head_dim": AT_LEAST_1,
        "d_ff": AT_LEAST_1,
        "rope_theta": ABOVE_0,
        "nope_every": AT_LEAST_0,
        "norm_eps": AT_LEAST_0,
        "sliding_window": AT_LEAST_1,
        "max_segments": AT_LEAST_1,
    },
    RopeScaling: {
        "factor": AT_LEAST_1,
        "original_length": AT_LEAST_1,
        "low_rotations": ABOVE_0,
        "high_rotations": ABOVE_0,
        "attention_factor": AT_LEAST_0,
    },
    Optimizer: {
        "peak_lr": AT_LEAST_0,
        "warmup_steps": AT_LEAST_0,
        "final_lr_fraction": AT_LEAST_0,
        "decay_fraction": SHARE_ABOVE_0,
        "b1": SHARE_BELOW_1,
        "b2": SHARE_BELOW_1,
        "eps": AT_LEAST_0,
        "momentum": SHARE_BELOW_1,
        "weight_decay": AT_LEAST_0,
        "clip_norm": ABOVE_0,
    },
    Stage: {"tokens": AT_LEAST_1, "dropout": SHARE_BELOW_1},
    Slices: {"data": AT_LEAST_0, "fsdp": AT_LEAST_0, "tensor": AT_LEAST_0},
    Mesh: {"data": AXIS, "fsdp": AXIS, "tensor": AXIS},
    Checkpointing: {
        "every_steps": AT_LEAST_1,
        "every_minutes": AT_LEAST_0,
        "keep": AT_LEAST_1,
        "keep_every": AT_LEAST_0,
    },
    Faults: {
        "spike_z": ABOVE_0,
        "spike_window": AT_LEAST_1,
        "spike_warmup": FieldRange(2),
        "max_skipped": AT_LEAST_1,
        "hang_seconds": AT_LEAST_0,
    },
    ProfilerWindow: {"first_step": AT_LEAST_0, "last_step": AT_LEAST_0},
    BenchmarkOptions: _BENCHMARK_OPTIONS,
    InLoopConfig: _BENCHMARK_OPTIONS | {"every_steps": AT_LEAST_0},
    Training: {
        "batch_size": AT_LEAST_1,
        "accumulation": AT_LEAST_1,
        "seed": JAX_SEED,
        "z_loss": AT_LEAST_0,
        "loss_chunks": AT_LEAST_1,
        "max_epochs": ABOVE_0,
        "log_every": AT_LEAST_1,
    },
    Evaluation: {
        "batch_tokens": AT_LEAST_1,
        "baseline_records": AT_LEAST_0,
        "samples": AT_LEAST_0,
        "prompt_tokens": AT_LEAST_1,
        "sample_tokens": AT_LEAST_0,
        "seed": JAX_SEED,
    }
    | _SAMPLING,
    BenchmarkEvaluation: _BENCHMARK_OPTIONS,
    LeakageAudit: {
        "ngram": AT_LEAST_1,
        "num_prefixes": AT_LEAST_1,
        "threshold": FieldRange(-1, 1, has_low=False, has_high=False),
        "confidence": FieldRange(0, 1, has_low=False, has_high=False),
        "resamples": FieldRange(100),
        "max_items": AT_LEAST_0,
        "max_length": AT_LEAST_0,
        "batch_tokens": AT_LEAST_1,
        "seed": AT_LEAST_0,
    },
    LeakageParaphrasing: {
        "versions": AT_LEAST_1,
        "max_attempts": AT_LEAST_1,
        "max_items": AT_LEAST_0,
        "answer_tokens": AT_LEAST_1,
        "seed": AT_LEAST_0,
    },
    Trace: {"step": AT_LEAST_0, "last_step": AT_LEAST_0, "words": AT_LEAST_0},
    Distributed: {"processes": AT_LEAST_0, "process": FieldRange(-1), "timeout": AT_LEAST_1},
    HuggingFaceExport: {"shard_gb": ABOVE_0},
    AheadOfTime: {"sequence_length": AT_LEAST_1},
    Generation: {"max_tokens": AT_LEAST_1, "max_length": AT_LEAST_0, "seed": JAX_SEED} | _SAMPLING,
}


def check_numbers(config: Any, address: str = "config") -> None:
    """Checks every number of a config and its sections, before any work.

    Args:
      config: an instance of a dataclass; sections of data_pipeline are left to its own checks.
      address: of the config on the command line.

    Raises:
      ValueError: lists all numbers that are outside their range, and values of a wrong kind.
    """
    _raise_if_any(list(_out_of_range(address, config)))


def check(
    model: Model,
    training: Training,
    evaluation: Evaluation,
    data: PlannedData | None = None,
    devices: int | None = None,
) -> None:
    """Checks everything about these settings that can be known before any work.

    Args:
      model: the section `config.model`.
      training: the section `config.training`.
      evaluation: the section `config.evaluation`.
      data: the data that will be trained on; None if it is not known.
      devices: number of devices of the run; None if it is not known.

    Raises:
      ValueError: lists all settings that cannot be used, by their addresses on the command line.
    """
    problems = [
        *_out_of_range("config.model", model),
        *_out_of_range("config.training", training),
        *_out_of_range("config.evaluation", evaluation),
    ]
    if not problems:  # what follows computes with these numbers
        problems += [*_of_model(model), *_of_training(training), *_of_mesh(training, devices)]
        if data is not None:
            problems += _of_data(model, training, data)
    _raise_if_any(problems)


def _raise_if_any(problems: list[str]) -> None:
    """Raises ValueError with the only problem, or a list of all of them."""
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        raise ValueError("\n  ".join([f"{len(problems)} settings cannot be used:", *problems]))


def _problem(address: str, got: object, expected: str) -> str:
    return f"{address}: got {got!r}, expected {expected}"


def _out_of_range(address: str, section: Any) -> Iterator[str]:
    """Yields a message for each number outside its range, and each value of a wrong kind."""
    ranges = RANGES.get(type(section), {})
    for field in dataclasses.fields(section):
        value, where = getattr(section, field.name), f"{address}.{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(where, value)
        elif isinstance(value, list):
            for number, element in enumerate(value):
                if dataclasses.is_dataclass(element):
                    yield from _out_of_range(f"{where}[{number}]", element)
        elif field.name in ranges:
            if value is None and type(None) in typing.get_args(field.type):
                continue
            is_whole = isinstance(value, int) or float in (field.type, *typing.get_args(field.type))
            if value not in ranges[field.name]:
                yield _problem(where, value, str(ranges[field.name]))
            elif not is_whole:
                yield _problem(where, value, "a whole number")
        elif (
            isinstance(field.type, type)
            and issubclass(field.type, enum.Enum)
            and not isinstance(value, field.type)
        ):
            names = ", ".join(f"{field.type.__name__}.{one.name}" for one in field.type)
            yield _problem(where, value, f"one of {names}")


def _of_model(model: Model) -> Iterator[str]:
    """Yields a message for each combination that the decoder cannot have."""
    if model.num_heads % model.num_kv_heads:
        expected = f"a divisor of num_heads, which is {model.num_heads}"
        yield _problem("config.model.num_kv_heads", model.num_kv_heads, expected)
    if model.head_dim % 2:
        expected = "an even number, for rotary positions"
        yield _problem("config.model.head_dim", model.head_dim, expected)
    scaling = model.rope_scaling
    if scaling.high_rotations <= scaling.low_rotations:
        expected = f"more than low_rotations, which is {scaling.low_rotations}"
        where = "config.model.rope_scaling.high_rotations"
        yield _problem(where, scaling.high_rotations, expected)


def _of_training(training: Training) -> Iterator[str]:
    """Yields a message for each combination of settings, or missing file, that stops a run."""
    if not training.stages:
        yield _problem("config.training.stages", training.stages, "at least one Stage")
    for number, stage in enumerate(training.stages):
        for name, weight in stage.weights.items():
            if weight not in AT_LEAST_0:
                where = f"config.training.stages[{number}].weights[{name!r}]"
                yield _problem(where, weight, "a weight of 0 or more")
    faults = training.faults
    if faults.not_finite is OnFault.IGNORE:
        expected = "'stop' or 'skip': a step with a non-finite loss cannot be learned from"
        yield _problem("config.training.faults.not_finite", faults.not_finite.value, expected)
    if faults.spike_warmup > faults.spike_window:
        expected = f"at most spike_window, which is {faults.spike_window}"
        yield _problem("config.training.faults.spike_warmup", faults.spike_warmup, expected)
    saves = training.checkpointing
    if saves.keep_every % saves.every_steps:
        expected = f"0 or a multiple of every_steps, which is {saves.every_steps}"
        yield _problem("config.training.checkpointing.keep_every", saves.keep_every, expected)
    profile = training.profile
    if (profile.first_step or profile.last_step) and not (
        1 <= profile.first_step <= profile.last_step
    ):
        expected = "1 <= first_step <= last_step, or 0 for both: no trace"
        yield _problem("config.training.profile", profile, expected)
    if training.start_from and not Path(training.start_from).exists():
        expected = "the folder of a run or of an import, or '' for random parameters"
        yield _problem("config.training.start_from", training.start_from, expected)
    if training.start_from and training.continue_from:
        expected = "'', as config.training.start_from names parameters to start from"
        yield _problem("config.training.continue_from", training.continue_from, expected)
    if training.name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", training.name):
        expected = "letters, digits, '.', '_' and '-', which may stand in the name of a folder"
        yield _problem("config.training.name", training.name, expected)
    if training.wandb_project and util.find_spec("wandb") is None:
        expected = "'', as the package wandb is not installed (pip install -e '.[wandb]')"
        yield _problem("config.training.wandb_project", training.wandb_project, expected)


def _of_mesh(training: Training, devices: int | None) -> Iterator[str]:
    """Yields a message if the mesh cannot be laid out, or the batch not be divided among it."""
    mesh = training.mesh
    axes = {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    where = "config.training.mesh"
    inferred = [name for name, size in axes.items() if size == -1]
    if 0 in axes.values() or len(inferred) > 1:
        yield _problem(where, axes, "1 or more for each axis, one of which may be -1: the rest")
        return
    given = math.prod(size for size in axes.values() if size != -1)
    if devices is not None:
        if devices % given or not (inferred or given == devices):
            expected = f"sizes that multiply to the number of devices, which is {devices}"
            yield _problem(where, axes, expected)
            return
        axes |= dict.fromkeys(inferred, devices // given)
    # Of an axis that is not known only 1 is certain.
    shares = math.prod(max(1, axes[name]) for name in ("data", "fsdp"))
    if training.batch_size % (shares * training.accumulation):
        expected = (
            f"a multiple of {shares * training.accumulation}: of mesh axes data x fsdp = {shares}, "
            f"times accumulation = {training.accumulation}"
        )
        yield _problem("config.training.batch_size", training.batch_size, expected)


def _of_data(model: Model, training: Training, data: PlannedData) -> Iterator[str]:
    """Yields a message for each setting that does not fit the data."""
    if model.vocab_size != data.vocab_size:
        expected = f"the number of the tokenizer's pieces, which is {data.vocab_size}"
        yield _problem("config.model.vocab_size", model.vocab_size, expected)
    if data.sequence_length % training.loss_chunks:
        expected = f"a divisor of the sequence length, which is {data.sequence_length}"
        yield _problem("config.training.loss_chunks", training.loss_chunks, expected)
    for number, stage in enumerate(training.stages):
        if stage.mixture not in data.mixtures:
            where = f"config.training.stages[{number}].mixture"
            expected = f"one of the recipe's mixtures ({', '.join(data.mixtures)})"
            yield _problem(where, stage.mixture, expected)
    tokens = training.batch_size * data.sequence_length
    steps = sum(math.ceil(stage.tokens / tokens) for stage in training.stages)
    warmup = training.optimizer.warmup_steps
    if training.stages and warmup >= steps:
        expected = f"fewer than the {steps} steps of the run"
        yield _problem("config.training.optimizer.warmup_steps", warmup, expected)

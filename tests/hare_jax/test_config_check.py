"""Settings of training that cannot be used are refused before any work, without JAX."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hare_jax import config
from hare_jax.config import (
    Evaluation,
    Faults,
    Mesh,
    Model,
    OnFault,
    Optimizer,
    ProfilerWindow,
    Stage,
    Training,
)
from hare_jax.config_check import PlannedData, check, check_numbers
from hare_jax.runtime.device_count import count_devices, needs_devices
from tests.builders import ROOT

DATA = PlannedData(sequence_length=16, vocab_size=256, mixtures=("one", "two"))


def good() -> tuple[Model, Training, Evaluation]:
    """Returns settings that pass: two stages of 10 steps each."""
    stages = [Stage("a", "one", 10 * 8 * 16), Stage("b", "two", 10 * 8 * 16, {"web": 1.0})]
    optimizer = Optimizer(warmup_steps=19)
    training = Training(stages=stages, batch_size=8, optimizer=optimizer, loss_chunks=4)
    return Model(vocab_size=256, sliding_window=8), training, Evaluation()


def refusal(
    change: Callable[[Model, Training, Evaluation], object], devices: int | None = None
) -> str:
    """Returns the message with which changed settings are refused."""
    settings = good()
    change(*settings)
    with pytest.raises(ValueError) as error:
        check(*settings, DATA, devices)
    return str(error.value)


def put(address: str, value: object) -> Callable[[Model, Training, Evaluation], None]:
    """Returns a function that sets a field by its address: "training.optimizer.b1"."""

    def change(*settings: Any) -> None:
        first, *middle, last = address.split(".")
        owner = dict(zip(("model", "training", "evaluation"), settings, strict=True))[first]
        for name in middle:
            owner = owner[int(name)] if name.isdigit() else getattr(owner, name)
        setattr(owner, last, value)

    return change


def test_good_settings_pass() -> None:
    check(*good(), DATA, devices=4)
    check(*good())


@pytest.mark.parametrize(
    ("address", "value", "message"),
    [
        ("model.num_kv_heads", 5, "model.num_kv_heads: got 5, expected a divisor of num_heads"),
        ("model.head_dim", 63, "model.head_dim: got 63, expected an even number"),
        ("model.rope_scaling.factor", 0.5, "rope_scaling.factor: got 0.5, expected 1 or more"),
        ("model.rope_scaling.high_rotations", 1.0, "expected more than low_rotations, which is 1"),
        ("model.sliding_window", 0, "model.sliding_window: got 0, expected 1 or more"),
        ("model.vocab_size", 300, "model.vocab_size: got 300, expected the number of the tokeniz"),
        ("model.remat", "full", "model.remat: got 'full', expected one of Remat.NONE"),
        ("training.stages", [], "training.stages: got [], expected at least one Stage"),
        ("training.stages.0.tokens", 0, "training.stages[0].tokens: got 0, expected 1 or more"),
        ("training.stages.1.mixture", "three", "training.stages[1].mixture: got 'three', expected"),
        ("training.stages.0.dropout", 1.0, "[0].dropout: got 1.0, expected 0 or more and below 1"),
        ("training.stages.1.weights", {"web": -1.0}, "stages[1].weights['web']: got -1.0, expect"),
        ("training.optimizer.warmup_steps", 20, "got 20, expected fewer than the 20 steps"),
        ("training.optimizer.warmup_steps", -1, "got -1, expected 0 or more"),
        ("training.optimizer.decay_fraction", 0.0, "got 0.0, expected above 0 and at most 1"),
        ("training.optimizer.peak_lr", math.nan, "got nan, expected 0 or more"),
        ("training.mesh", Mesh(data=-1), "config.training.mesh: got {'data': -1, 'fsdp': -1"),
        ("training.mesh", Mesh(data=0), "config.training.mesh: got {'data': 0"),
        ("training.mesh", Mesh(data=3), "config.training.batch_size: got 8, expected a multiple"),
        ("training.accumulation", 3, "config.training.batch_size: got 8, expected a multiple of 3"),
        ("training.loss_chunks", 3, "config.training.loss_chunks: got 3, expected a divisor"),
        ("training.faults", Faults(spike=OnFault.STOP, spike_warmup=200), "faults.spike_warmup"),
        ("training.faults", Faults(spike_window=9), "faults.spike_warmup: got 32, expected at mos"),
        ("training.faults.not_finite", OnFault.IGNORE, "not_finite: got 'ignore', expected 'stop'"),
        ("training.checkpointing.keep_every", 1500, "keep_every: got 1500, expected 0 or a multip"),
        ("training.profile", ProfilerWindow(5, 3), "config.training.profile: got"),
        ("training.start_from", "nowhere", "config.training.start_from: got 'nowhere'"),
        ("evaluation.top_p", 0.0, "config.evaluation.top_p: got 0.0, expected above 0"),
    ],
)
def test_bad_settings_are_refused(address: str, value: object, message: str) -> None:
    got = refusal(put(address, value))
    assert got.startswith("config.")
    assert message in got


def test_a_mesh_must_fit_the_devices() -> None:
    two = put("training.mesh", Mesh(data=2, fsdp=1))
    assert "multiply to the number of devices, which is 4" in refusal(two, devices=4)
    three = put("training.mesh", Mesh(data=3))
    assert "which is 4" in refusal(three, devices=4)
    check(*good(), DATA, devices=8)
    assert "a multiple of 16" in refusal(put("training.mesh", Mesh(data=2)), devices=16)


def test_several_errors_are_listed_at_once() -> None:
    def change(model: Model, training: Training, evaluation: Evaluation) -> None:
        model.head_dim = 63
        training.loss_chunks = 3

    head, *lines = refusal(change).splitlines()
    assert head == "2 settings cannot be used:"
    assert [line.split(":")[0] for line in lines] == [
        "  config.model.head_dim",
        "  config.training.loss_chunks",
    ]


def numbers_of(section: Any, address: str) -> Iterator[str]:
    """Yields the addresses of all numbers, dicts aside."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(value, list):
            for number, element in enumerate(value):
                yield from numbers_of(element, f"{address}.{field.name}.{number}")
        elif dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{address}.{field.name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{address}.{field.name}"


ANY_INTEGER = {"training.seed", "evaluation.seed"}  # seeds of JAX's generators
MINUS_ONE = {  # with a meaning of its own
    "training.mesh.data",
    "training.mesh.fsdp",
    "training.mesh.tensor",
    "training.in_loop.shots",
}


def test_every_number_has_a_range() -> None:
    names = ("model", "training", "evaluation")
    addresses = [a for n, s in zip(names, good(), strict=True) for a in numbers_of(s, n)]
    assert len(addresses) > 50
    for address in addresses:
        brackets = address.replace("stages.0", "stages[0]").replace("stages.1", "stages[1]")
        bad = [math.nan]
        if address not in ANY_INTEGER:
            bad.append(-2 if address in MINUS_ONE else -1)
        for value in bad:
            assert f"config.{brackets}: got {value}" in refusal(put(address, value))


EVERY_CONFIG = [
    one for one in vars(config).values() if isinstance(one, type) and dataclasses.is_dataclass(one)
]
# Fields without a default; AheadOfTime, Stage.
REQUIRED = {"hardware": "h200", "name": "a", "mixture": "one", "tokens": 1}


@pytest.mark.parametrize("kind", EVERY_CONFIG, ids=lambda kind: kind.__name__)
def test_every_number_of_every_config_has_a_range(kind: type) -> None:
    for field in dataclasses.fields(kind):
        kinds = {field.type, *typing.get_args(field.type)}
        if not kinds & {int, float} or typing.get_origin(field.type) is dict:
            continue
        bad: list[object] = [math.nan, True, "1", math.inf if float in kinds else 1.5]
        if field.name != "seed":
            bad.append(-2)
        for value in bad:
            required = {f.name: REQUIRED[f.name] for f in dataclasses.fields(kind)
                        if f.default is f.default_factory}  # fmt: skip
            with pytest.raises(ValueError, match=rf"^config\.{field.name}: got .*, expected "):
                check_numbers(kind(**required | {field.name: value}))


def test_defaults_are_in_their_ranges() -> None:
    for kind in EVERY_CONFIG:
        if all(f.default is not f.default_factory for f in dataclasses.fields(kind)):
            check_numbers(kind())


def test_a_huge_seed_is_refused_and_a_large_one_is_not() -> None:
    check_numbers(Training(seed=-(2**63)))
    with pytest.raises(ValueError, match=r"config\.seed: got 1000"):
        check_numbers(Training(seed=10**400))


def test_the_check_loads_no_jax() -> None:
    code = (
        "import sys, hare_jax.config_check, hare_jax.runtime.device_count\n"
        "print('jax' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "JAX_PLATFORMS", "cpu")
    monkeypatch.setitem(os.environ, "XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert count_devices() == 3
    assert not needs_devices(Mesh())
    assert needs_devices(Mesh(tensor=2))
    assert needs_devices(Mesh(fsdp=1))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert count_devices() is None

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from ml_collections.config_flags import config_flags

from hare_jax import config


def test_plain_is_json_with_enums_by_value() -> None:
    training = config.Training(stages=[config.Stage("one", "stage1", 10, {"web": 0.5})])
    plain = json.loads(json.dumps(config.plain(training)))
    assert plain["stages"] == [
        {
            "name": "one",
            "mixture": "stage1",
            "tokens": 10,
            "weights": {"web": 0.5},
            "dropout": 0.0,
        }
    ]
    assert plain["optimizer"]["schedule"] == "cosine"
    axes = {"data": 0, "fsdp": 0, "tensor": 0}
    assert plain["mesh"] == {"data": 1, "fsdp": -1, "tensor": 1, "slices": axes}


def test_plain_holds_every_field_of_the_model() -> None:
    names = {field.name for field in dataclasses.fields(config.Model)}
    assert set(config.plain(config.Model())) == names


def test_from_plain_is_the_inverse_of_plain() -> None:
    training = config.Training(
        stages=[config.Stage("one", "stage1", 10, {"web": 0.5}), config.Stage("two", "x", 3)],
        optimizer=config.Optimizer(algorithm=config.Algorithm.MUON),
        mesh=config.Mesh(tensor=2),
    )
    model = config.Model(sliding_window=7, remat=config.Remat.FULL)
    for value in (training, model):
        written = json.loads(json.dumps(config.plain(value)))
        assert config.from_plain(type(value), written) == value
    assert config.from_plain(config.Model, {"d_model": 8}) == config.Model(d_model=8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"zebra": 1}, r"got \['zebra'\], which are not fields of Training"),
        ({"mesh": {"dta": 1}}, r"got \['dta'\], which are not fields of Mesh"),
        ({"optimizer": {"algorithm": "adam"}}, "'adam' is not a valid Algorithm"),
    ],
)
def test_from_plain_refuses_what_it_does_not_know(value: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.from_plain(config.Training, value)


def test_slots_refuse_a_misspelled_field() -> None:
    with pytest.raises(AttributeError, match="learning_rat"):
        config.Optimizer().learning_rat = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("sliding_window", "128", 128),
        ("remat", "FULL", config.Remat.FULL),
        ("tied_head", "true", True),
        ("num_layers", "3", 3),
    ],
)
def test_overrides_from_the_command_line(field: str, text: str, value: object) -> None:
    flags = config_flags.flags.FlagValues()
    arguments = ["main", f"--model.{field}={text}"]
    config_flags.DEFINE_config_dataclass(
        "model", config.Model(), flag_values=flags, sys_argv=arguments
    )
    flags(arguments)
    assert getattr(flags.model, field) == value


def test_config_imports_the_standard_library_only() -> None:
    # A config file is read before anything slow is imported, and by data_pipeline's side of a job.
    code = (
        "import sys; before = set(sys.modules); import hare_jax.config; "
        "roots = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(*roots - set(sys.stdlib_module_names))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["hare_jax"]

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
    assert plain["mesh"] == {"data": 1, "fsdp": -1, "tensor": 1}


def test_plain_holds_every_field_of_the_model() -> None:
    names = {field.name for field in dataclasses.fields(config.Model)}
    assert set(config.plain(config.Model())) == names


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

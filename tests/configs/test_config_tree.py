"""--help prints every field of a config with its value, its type or choices, and its comment."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from configs import config_tree, quickstart
from configs.experiment import Experiment
from tests.configs.test_command_line import CONFIG, ROOT, run_main


def dataclasses_below(kind: Any, seen: set[type]) -> Iterator[type]:
    """Yields every dataclass in the annotations of a type, the type included."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind in seen:
            return
        seen.add(kind)
        yield kind
        for hint in typing.get_type_hints(kind).values():
            yield from dataclasses_below(hint, seen)
    for argument in typing.get_args(kind):
        yield from dataclasses_below(argument, seen)


EVERY_KIND = list(dataclasses_below(Experiment, set()))


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.__name__)
def test_every_field_has_a_comment(kind: type) -> None:
    missing = [
        name
        for name, field in config_tree.fields_in_source(kind).items()
        if not field.comment and not dataclasses.is_dataclass(typing.get_type_hints(kind)[name])
    ]
    assert missing == []
    assert set(config_tree.fields_in_source(kind)) >= {
        field.name for field in dataclasses.fields(kind)
    }


def test_comment_at_the_end_of_a_line_and_above_it() -> None:
    @dataclasses.dataclass
    class Sizes:
        """Two sizes."""

        width: int = 3  # pixels
        # Pixels, of the longest
        # column.
        height: int = 4

    assert config_tree.fields_in_source(Sizes) == {
        "width": ("int", "pixels"),
        "height": ("int", "Pixels, of the longest column."),
    }
    title, width, height = config_tree.describe(Sizes()).splitlines()
    assert title == "config: Sizes  Two sizes."
    assert width.split() == ["width", "=", "3", "int", "pixels"]
    assert height.endswith("int                 Pixels, of the longest column.")


def test_every_field_of_a_config_is_shown() -> None:
    config = quickstart.get_config()
    shown = config_tree.describe(config)
    for kind in (type(config.model), type(config.training), type(config.data)):
        for field in dataclasses.fields(kind):
            assert f" {field.name}" in shown
    assert "peak_lr = 0.003" in shown
    assert "compute_dtype = float32" in shown and "float32 | bfloat16" in " ".join(shown.split())


def test_later_elements_of_a_list_show_what_differs_from_the_default() -> None:
    shown = config_tree.describe(quickstart.get_config(), ("data",))
    first, later = shown.split("    [1] ")
    assert "max_documents = 0" in first and "name = 'reference'" in first
    second = later.split("    [2] ")[0]
    assert "name = 'docs'" in second and "max_documents" not in second
    assert "max_documents = 4000" in later


def test_help_can_be_cut_off_by_a_pipe() -> None:
    command = f"{sys.executable} main.py --help | head -n 1"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert result.stderr == "" and len(result.stdout.splitlines()) == 1


def test_help_shows_overrides_and_a_part() -> None:
    result = run_main(CONFIG, "--config.model.num_layers=7", "--config.model", "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("config.model: Model  ")
    assert "num_layers = 7 " in result.stdout
    assert "peak_lr" not in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [CONFIG, "--help"]])
def test_help_shows_the_usage_and_the_whole_config(arguments: list[str]) -> None:
    result = run_main(*arguments)
    assert result.returncode == 0
    assert "python main.py --config=configs/quickstart.py" in result.stdout
    assert "--workdir" in result.stdout
    assert "peak_lr = " in result.stdout and "shard_bytes = " in result.stdout


def test_help_for_an_unknown_part_names_the_closest() -> None:
    result = run_main(CONFIG, "--config.training.optimzer", "--help")
    assert result.returncode == 2
    assert "did you mean optimizer?" in result.stderr


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("--config.training.stages[0].weights.web=2.0", "weights = {'web': 2.0}"),
        ("--config.data.budgets.stage1=1e9", "budgets = {'stage1': 1000000000.0}"),
        ("--config.data.mixtures.mine.web=1", "'mine': {'web': 1.0}"),
        ("--config.data.synthesis.teacher.extra_body.top_k=20", "extra_body = {'top_k': 20}"),
        ("--config.data.decontamination.max_tokens.D1=4096", "'D1': 4096"),
    ],
)
def test_a_dict_takes_new_entries(flag: str, shown: str) -> None:
    result = run_main(CONFIG, flag, "--help")
    assert result.returncode == 0, result.stderr
    assert shown in result.stdout


def test_a_new_entry_of_another_type_is_refused() -> None:
    result = run_main(CONFIG, "--config.data.budgets.stage1=many")
    assert result.returncode == 2
    assert "--config.data.budgets.stage1: got 'many', expected float" in result.stderr


def test_enums_are_shown_as_they_are_typed() -> None:
    class Color(enum.Enum):
        DARK_RED = 1

    assert config_tree._shown(Color.DARK_RED) == "dark_red"

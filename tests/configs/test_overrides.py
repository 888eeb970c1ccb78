"""Every field of every config can be set on the command line by its documented spelling."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from configs import jobs, quickstart
from configs.command_line import _override, _split_overrides
from configs.overrides import set_field, split_address
from data_pipeline import config as data_config
from data_pipeline.config import GopherRepetition
from hare_jax import config as c
from tests.configs.test_command_line import CONFIG, run_main

# Values of the fields without a default.
REQUIRED = {
    c.AheadOfTime: {"hardware": "h200"},
    c.Stage: {"name": "one", "mixture": "stage1", "tokens": 1},
}


def examples(hint: Any) -> Iterator[tuple[list[str], Any]]:
    """Yields (texts, value): every documented spelling of a value of the type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        for option in arguments:
            yield from examples(option)
    elif origin in (list, tuple):
        for written, value in as_in_a_page(arguments[0]):
            yield [f"({written}, {written})"], origin([value, value])
            yield [f"[{written}]"], origin([value])
        for texts, value in examples(arguments[0]):
            if texts != [""]:
                yield texts * 2, origin([value, value])
        yield ["()"], origin()
    elif origin is dict:
        for key, key_value in as_in_a_page(arguments[0]):
            for written, value in as_in_a_page(arguments[1]):
                yield [f"{{{key}: {written}}}"], {key_value: value}
        yield ["{}"], {}
    elif hint is types.NoneType:
        yield ["None"], None
    elif hint is bool:
        yield from [(["True"], True), (["false"], False)]
    elif hint is int:
        yield from [(["7"], 7), (["2_000_000"], 2_000_000), (["-1"], -1)]
    elif hint is float:
        yield from [(["5e-4"], 5e-4), (["3"], 3.0)]
    elif hint is str:
        yield from [(["a/b, c.txt"], "a/b, c.txt"), ([""], "")] if not arguments else []
    elif hint is object:
        yield from [(["20"], 20), (["text"], "text"), (["{'a': None}"], {"a": None})]
    elif issubclass(hint, enum.Enum):
        for member in hint:
            yield [member.name], member
            yield [member.name.lower()], member
            yield [f"{hint.__name__}.{member.name}"], member
    else:
        yield from (([written], value) for written, value in as_in_a_page(hint))


def as_in_a_page(hint: Any) -> Iterator[tuple[str, Any]]:
    """Yields (text, value): values as a page of Python would hold them."""
    if isinstance(hint, types.UnionType):
        for option in typing.get_args(hint):
            yield from as_in_a_page(option)
    elif dataclasses.is_dataclass(hint):
        required = [f for f in dataclasses.fields(hint) if f.default is f.default_factory]
        given = {f.name: {str: "x", int: 2}[f.type] for f in required}
        inside = ", ".join(f"{name}={value!r}" for name, value in given.items())
        yield f"{hint.__name__}({inside})", hint(**given)
    elif hint is str:
        yield from [("'text'", "text"), ('"a, b"', "a, b")]
    elif hint is object:
        yield from [("None", None), ("[1, 2]", [1, 2])]
    elif hint is int or hint is float:
        yield from [("2", hint(2)), ("-3", hint(-3))]
    elif issubclass(hint, enum.Enum):
        for member in hint:
            yield f"{hint.__name__}.{member.name}", member
            yield repr(member.name.lower()), member
    else:
        for texts, value in examples(hint):
            yield texts[0], value


def fields_below(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields (path, annotation) of every field of a dataclass and of the dataclasses in it."""
    for name, hint in typing.get_type_hints(type(node)).items():
        yield (*path, name), hint
        value = getattr(node, name)
        if dataclasses.is_dataclass(value):
            yield from fields_below(value, (*path, name))
        elif isinstance(value, list | tuple):
            for number, element in enumerate(value):
                if dataclasses.is_dataclass(element):
                    yield from fields_below(element, (*path, name, str(number)))


def full(kind: type) -> Any:
    """Returns a config of a job in which optional parts are there, and lists have an element."""
    config = kind(**REQUIRED.get(kind, {}))
    for name, hint in typing.get_type_hints(kind).items():
        for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
            if dataclasses.is_dataclass(option):
                setattr(config, name, full(typing.cast(type, option)))
            elif typing.get_origin(option) in (list, tuple):
                elements = [value for _, value in as_in_a_page(typing.get_args(option)[0])]
                setattr(config, name, typing.get_origin(option)(elements))
    return config


def part_at(node: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        node = node[int(name)] if name.isdecimal() else getattr(node, name)
    return node


@pytest.mark.parametrize("kind", jobs.JOBS, ids=lambda kind: kind.__name__)
def test_every_field_of_every_config_can_be_set(kind: type) -> None:
    addresses = list(fields_below(full(kind), ()))
    assert addresses
    for path, hint in addresses:
        spelled = list(examples(hint))
        assert spelled, path
        for texts, value in spelled:
            config = full(kind)
            set_field(config, path, texts)
            assert part_at(config, path) == value, (path, texts)
            assert type(part_at(config, path)) is type(value), (path, texts)


@pytest.mark.parametrize(
    ("address", "texts", "changed"),
    [
        ("training.stages[0].weights", ["{'web': 2.0}"], "training.stages[0].weights={'web': 2.0}"),
        ("training.stages[0].weights.web", ["2"], "training.stages[0].weights={'web': 2.0}"),
        ("training.stages[0].weights['my web']", ["2"], "training.stages[0].weights={'my web': 2}"),
        ("data.sources[1].text_fields[0]", ["body"], "data.sources[1].text_fields=('body',)"),
        ("data.mixtures.mine.web", ["1"], "data.mixtures['mine']={'web': 1.0}"),
        (
            "training.stages",
            ["[Stage('a', 'b', tokens=3)]"],
            "training.stages=[Stage('a', 'b', 3)]",
        ),
        (
            "data.repeated_lines.profiles",
            ["PROSE", "code"],
            "data.repeated_lines.profiles=(CleaningProfile.PROSE, CleaningProfile.CODE)",
        ),
        (
            "data.cleaning.rule_sets",
            ["(C4(min_sentences=2), GopherRepetition())"],
            "data.cleaning.rule_sets=(C4(min_sentences=2), GopherRepetition())",
        ),
        ("training", ["none"], "training=None"),
    ],
)
def test_an_override_does_what_a_page_would(address: str, texts: list[str], changed: str) -> None:
    config, page = quickstart.get_config(), quickstart.get_config()
    set_field(config, split_address(address), texts)
    exec(f"page.{changed}", {"page": page, **vars(data_config), **vars(c)})
    assert config == page != quickstart.get_config()


def test_a_key_that_is_a_number_is_replaced() -> None:
    config = quickstart.get_config()
    config.data.cleaning.rule_sets = (GopherRepetition(),)
    set_field(config, split_address("data.cleaning.rule_sets[0].max_top_ngram.2"), ["0.5"])
    assert config.data.cleaning.rule_sets[0].max_top_ngram == {2: 0.5, 3: 0.18, 4: 0.16}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.repeated_lines.profiles=POETRY", "got 'POETRY', expected one of prose|code|markup"),
        ("training.stages=[Stage('a')]", "missing 2 required positional arguments: 'mixture' and"),
        ("training.stages=[Stage('a', 'b', tokens='x')]", "got \"'x'\", expected int"),
        (
            "training.stages=[Stage(nam='a')]",
            "expected Stage(FIELD=VALUE, ...), with fields name, ",
        ),
        ("training.stages=[exit(3)]", "got 'exit(3)', expected Stage("),
        ("training.stages[0].weights=web", "got 'web', expected {str: float}"),
        ("data.cleaning.rule_sets=(C4(min_sentences='x'),)", "expected int"),
        ("model.sliding_window=half", "got 'half', expected int or None"),
        ("model.tied_head=maybe", "got 'maybe', expected bool"),
        ("training.stages[7].tokens=1", "no field '7' in list"),
        ("data.workers", "expected --config.data.workers=VALUE"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    override: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = quickstart.get_config()
    with pytest.raises(SystemExit):
        _, found, _ = _split_overrides([f"--config.{override}"], config, wants_help=False)
        for address, texts in found.items():
            _override(config, address, texts)
    assert message in capsys.readouterr().err


def test_overrides_on_the_command_line() -> None:
    result = run_main(
        CONFIG,
        "--config.training.stages[0].weights={'web': 2.0}",
        "--config.data.repeated_lines.profiles=PROSE",
        "--config.data.synthesis.categories[khan academy]=code",
        "--help",
    )
    assert result.returncode == 0, result.stderr
    assert "weights = {'web': 2.0}" in result.stdout
    assert "profiles = (prose,)" in result.stdout
    assert "'khan academy': 'code'" in result.stdout


def test_a_switch_needs_no_value_and_a_value_may_be_the_next_argument() -> None:
    arguments = [
        "--noconfig.topics.enabled",
        "--config.allow_missing",
        "--config.workers",
        "3",
        "x",
    ]
    rest, found, _ = _split_overrides(arguments, quickstart.get_config().data, wants_help=False)
    assert rest == ["x"]
    assert found == {"topics.enabled": ["False"], "allow_missing": ["True"], "workers": ["3"]}

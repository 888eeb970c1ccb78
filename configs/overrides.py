"""Overrides of a config on the command line, for every field of every config.

A value is typed as it would be written in a page of configs/, and is read by the annotation of its
field, never evaluated:

    bool                   --config.data.allow_missing=True, or --config.data.allow_missing
    int, float, str        --config.training.optimizer.peak_lr=5e-4
    enum                   --config.model.attention=cudnn
    `int | None`           --config.model.sliding_window=None
    tuple or list          --config.benchmarks=piqa --config.benchmarks=boolq
                           --config.benchmarks="('piqa', 'boolq')"
    empty                  --config.benchmarks="()"
    dict, one entry        --config.training.stages[0].weights.web=2.0
    dict, all entries      --config.training.stages[0].weights="{'web': 2.0}"
    dataclass              --config.training.stages="[Stage('one', 'stage1', tokens=1000)]"

A name that is no identifier is put in brackets: `categories[khan academy]`.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import re
import types
import typing
from collections.abc import Sequence
from typing import Any

from configs.config_tree import field_names

_ADDRESS = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([^\[\]]+)\]")
_SCALARS = {int: int, float: float}


class UnknownFieldError(LookupError):
    """A part of an address is neither field, key nor index."""


def split_address(address: str) -> list[str]:
    """Returns the names, keys and indices of an address.

    >>> split_address("training.stages[0].weights['my web'].x")
    ['training', 'stages', '0', 'weights', 'my web', 'x']
    """
    return [name or key.strip("'\"") for name, key in _ADDRESS.findall(address)]


def annotation_of(config: Any, path: Sequence[str]) -> Any:
    """Returns the annotation of the part of `config` at `path`, which may be a new dict entry.

    Raises UnknownFieldError if there is no such part.
    """
    hint: Any = type(config)
    for name in path:
        config, hint, _ = _step(config, hint, name)
    return hint


def set_field(config: Any, path: Sequence[str], texts: Sequence[str]) -> None:
    """Sets the part of `config` at `path` to what the user typed.

    Args:
      config: an instance of a dataclass.
      path: at least one name, as `split_address` returns them.
      texts: the value; several are the elements of a tuple or list.

    Raises:
      UnknownFieldError: there is no such part.
      ValueError: the text is no value of this field; the message says what was expected.
    """
    _replace(config, type(config), path, texts)


def parse(texts: Sequence[str], hint: Any) -> Any:
    """Returns the value of the type `hint` that `texts` spell; see this module's docstring.

    >>> parse(["3"], int | None), parse(["none"], int | None)
    (3, None)
    >>> parse(["a", "b"], tuple[str, ...]), parse(["('a', 'b')"], tuple[str, ...])
    (('a', 'b'), ('a', 'b'))

    Raises ValueError if they do not.
    """
    kind = typing.get_origin(hint)
    if kind not in (list, tuple):
        return _from_text(texts[-1], hint)
    element = typing.get_args(hint)[0]
    elements: list[Any] = []
    for text in texts:
        node = _syntax(text)
        if isinstance(node, ast.List | ast.Tuple) and text.strip()[0] in "([":
            elements += [_from_syntax(one, element) for one in node.elts]
        elif text.strip():
            elements.append(_from_text(text, element))
    return kind(elements)


def expected(hint: Any) -> str:
    """Describes the values of a type for error messages.

    >>> expected(int | None), expected(tuple[int, ...]), expected(dict[str, float])
    ('int or None', '(int, ...): one flag per element, or a tuple', '{str: float}')
    """
    if isinstance(hint, types.UnionType):
        return " or ".join(expected(one) for one in typing.get_args(hint))
    if hint is types.NoneType:
        return "None"
    if hint is object:
        return "a Python literal or text"
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (list, tuple):
        return f"({expected(arguments[0])}, ...): one flag per element, or a tuple"
    if typing.get_origin(hint) is dict:
        return f"{{{expected(arguments[0])}: {expected(arguments[1])}}}"
    if issubclass(hint, enum.Enum):
        return f"one of {'|'.join(member.name.lower() for member in hint)}"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"{hint.__name__}(FIELD=VALUE, ...), with fields {', '.join(_fields_of(hint))}"
    return str(hint.__name__)


def _fields_of(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _step(node: Any, hint: Any, name: str) -> tuple[Any, Any, Any]:
    """Returns (value, annotation, key) of the part `name`; the value of a new entry is None."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        if name in field_names(node):
            return getattr(node, name), typing.get_type_hints(type(node))[name], name
    elif isinstance(node, dict):
        key_hint, value_hint = _arguments(hint, dict)
        try:
            key = _from_text(name, key_hint)
        except ValueError:
            raise UnknownFieldError(name) from None
        return node.get(key), value_hint, key
    elif isinstance(node, list | tuple) and name.isdecimal() and int(name) < len(node):
        return node[int(name)], _arguments(hint, type(node))[0], int(name)
    raise UnknownFieldError(name)


def _arguments(hint: Any, kind: type) -> tuple[Any, ...]:
    """Returns the arguments of a generic type, looking through `| None`."""
    for option in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if typing.get_origin(option) is kind:
            return typing.get_args(option)
    return (object, object)  # inside of a dict[str, object]


def _replace(node: Any, hint: Any, path: Sequence[str], texts: Sequence[str]) -> Any:
    """Returns `node` with its part at `path` set; a tuple is replaced, anything else changed."""
    if not path:
        return parse(texts, hint)
    value, value_hint, key = _step(node, hint, path[0])
    if value is None and len(path) > 1 and typing.get_origin(value_hint) is dict:
        value = {}  # `mixtures.stage1.web=1` adds a mixture
    value = _replace(value, value_hint, path[1:], texts)
    if dataclasses.is_dataclass(node):
        setattr(node, str(key), value)
    elif isinstance(node, tuple):
        return (*node[:key], value, *node[key + 1 :])
    else:
        node[key] = value
    return node


def _refuse(text: str, hint: Any) -> typing.NoReturn:
    raise ValueError(f"got {text!r}, expected {expected(hint)}")


def _from_text(text: str, hint: Any) -> Any:
    """Reads the text of a whole flag, in which strings need no quotes."""
    if isinstance(hint, types.UnionType):
        return _first_that_fits(text, hint, _from_text, text)
    if hint is str:
        return text
    if hint is object:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    if hint is types.NoneType and text.lower() == "none":
        return None
    if hint is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if hint in _SCALARS:
        try:
            return _SCALARS[hint](text)
        except ValueError:
            _refuse(text, hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _member(text, hint)
    node = _syntax(text)
    if node is None or hint in (bool, types.NoneType):
        _refuse(text, hint)
    return _from_syntax(node, hint)


def _from_syntax(node: ast.expr, hint: Any) -> Any:
    """Reads a part of a value that is written in Python."""
    text = ast.unparse(node)
    if isinstance(hint, types.UnionType):
        return _first_that_fits(node, hint, _from_syntax, text)
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind in (list, tuple):
        if isinstance(node, ast.List | ast.Tuple):
            return kind([_from_syntax(one, arguments[0]) for one in node.elts])
    elif kind is dict:
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {
                _from_syntax(typing.cast(ast.expr, key), arguments[0]): _from_syntax(
                    value, arguments[1]
                )
                for key, value in zip(node.keys, node.values, strict=True)
            }
    elif dataclasses.is_dataclass(hint):
        return _built(node, hint)
    elif issubclass(hint, enum.Enum):
        return _member(text.strip("'\""), hint)
    else:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            _refuse(text, hint)
        if hint is object or type(value) is hint:
            return value
        if hint is float and type(value) is int:
            return float(value)
    _refuse(text, hint)


def _first_that_fits(source: Any, hint: Any, read: Any, text: str) -> Any:
    """Reads a value as the first of a union's types that it is of."""
    for option in typing.get_args(hint):
        try:
            return read(source, option)
        except ValueError as error:
            # A class that is named has been chosen: what is wrong with it is the message.
            if dataclasses.is_dataclass(option) and text.startswith(f"{option.__name__}("):  # type: ignore[union-attr]
                raise error
    _refuse(text, hint)


def _built(node: ast.expr, kind: Any) -> Any:
    """Builds a dataclass from its call, without running any code of the user's text."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if not named or node.func.id != kind.__name__:  # type: ignore[attr-defined]
        _refuse(ast.unparse(node), kind)
    call = typing.cast(ast.Call, node)
    names, hints = _fields_of(kind), typing.get_type_hints(kind)
    given = dict(zip(names, call.args, strict=False))
    given |= {str(keyword.arg): keyword.value for keyword in call.keywords}
    if len(call.args) > len(names) or set(given) - set(names):
        _refuse(ast.unparse(node), kind)
    try:
        return kind(**{name: _from_syntax(value, hints[name]) for name, value in given.items()})
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"got {ast.unparse(node)!r}: {error}") from None


def _member(text: str, kind: Any) -> enum.Enum:
    """Returns the member of an enum by its name or value: FP8, fp8, Matmul.FP8."""
    name = text.removeprefix(f"{kind.__name__}.").lower()
    for member in kind:
        if name in (member.name.lower(), str(member.value).lower()):
            return typing.cast(enum.Enum, member)
    _refuse(text, kind)


def _syntax(text: str) -> ast.expr | None:
    """Returns the syntax tree of a Python expression; None if the text is none."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None

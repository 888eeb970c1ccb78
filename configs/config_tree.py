"""The configuration as text: each field with its value, its type or choices, and its comment.

`python main.py --help` prints it. Comments are read from the source of the dataclasses, so that
what stands beside a field is what its user sees:

    batch_size: int = 1024  # sequences per step, over all devices
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import io
import itertools
import shutil
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_FIELD_COLUMNS = 46  # width of "  name = value"
_TYPE_COLUMNS = 20
_MIN_COMMENT_COLUMNS = 30
_MAX_COLUMNS = 120


class FieldInSource(NamedTuple):
    """What the source says about one field of a dataclass."""

    annotation: str
    comment: str


def describe(config: Any, path: Sequence[str] = ()) -> str:
    """Returns the part of a configuration at `path` as an indented tree.

    Args:
      config: an instance of a dataclass, as a page of configs/ returns it.
      path: names of fields, keys of dicts and indices of lists that lead to the part to describe:
        ("training", "stages", "0"); () describes all of it.

    Raises:
      LookupError: there is no such field, key or index; the message lists those that exist.
    """
    node = config
    for name in path:
        node = step_into(node, name)
    title = ".".join(["config", *path])
    width = max(
        min(shutil.get_terminal_size((_MAX_COLUMNS, 24)).columns, _MAX_COLUMNS),
        _FIELD_COLUMNS + _TYPE_COLUMNS + _MIN_COMMENT_COLUMNS,
    )
    if dataclasses.is_dataclass(node):
        heading = f"{title}: {type(node).__name__}  {_summary(type(node))}"
        rows = [heading, *(line for row in _rows(node, 1) for line in _wrapped(row, width))]
    elif _has_parts(node):
        rows = [title, *(line for row in _items(node, 1) for line in _wrapped(row, width))]
    else:
        rows = [f"{title} = {_shown(node)}"]
    return "\n".join(rows)


def step_into(node: Any, name: str) -> Any:
    """Returns the value of one field, key or index of a config.

    Args:
      node: a dataclass instance, dict, list or tuple.
      name: a field's name, a key as text, or an index as text.

    Raises:
      LookupError: `node` has no such part.
    """
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        if name in field_names(node):
            return getattr(node, name)
    elif isinstance(node, dict):
        for key, value in node.items():
            if str(key) == name:
                return value
    elif isinstance(node, list | tuple) and name.isdecimal() and int(name) < len(node):
        return node[int(name)]
    raise LookupError(name)


def field_names(node: Any) -> list[str]:
    """Returns the names of a dataclass's fields, a dict's keys, or a list's indices."""
    if dataclasses.is_dataclass(node):
        return [field.name for field in dataclasses.fields(node)]
    if isinstance(node, dict):
        return [str(key) for key in node]
    if isinstance(node, list | tuple):
        return [str(index) for index in range(len(node))]
    return []


def fields_in_source(kind: type) -> dict[str, FieldInSource]:
    """Returns the fields of a dataclass, inherited ones first."""
    found: dict[str, FieldInSource] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _own_fields(base)
    return found


@cache
def _own_fields(kind: type) -> dict[str, FieldInSource]:
    """Returns the fields that the class itself defines."""
    file = inspect.getsourcefile(kind)
    source = Path(file).read_text(encoding="utf-8") if file else ""
    comment_of_line = _comments_by_line(source)
    lines = source.splitlines()
    found: dict[str, FieldInSource] = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.ClassDef) and node.name == kind.__name__):
            continue
        for statement in node.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(
                statement.target, ast.Name
            ):
                continue
            above: list[str] = []
            line = statement.lineno - 1
            while line >= 1 and lines[line - 1].strip().startswith("#"):
                above.insert(0, comment_of_line[line])
                line -= 1
            comment = comment_of_line.get(statement.lineno, "") or " ".join(above)
            found[statement.target.id] = FieldInSource(ast.unparse(statement.annotation), comment)
    return found


def _comments_by_line(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


class _Row(NamedTuple):
    """One line of the tree, before it is wrapped."""

    field: str
    type: str
    comment: str


def _rows(node: Any, depth: int) -> Iterator[_Row]:
    """Yields a row for each field of a dataclass instance, with those of its parts below it."""
    kind: type = type(node)
    known = fields_in_source(kind)
    for name in field_names(node):
        value = getattr(node, name)
        annotation, comment = known.get(name, FieldInSource("", ""))
        yield from _row(name, value, annotation, comment, depth)


def _row(name: str, value: Any, annotation: str, comment: str, depth: int) -> Iterator[_Row]:
    indent = "  " * depth
    if dataclasses.is_dataclass(value):
        yield _Row(f"{indent}{name}", type(value).__name__, comment or _summary(type(value)))
        yield from _rows(value, depth + 1)
    elif _has_parts(value):
        yield _Row(f"{indent}{name}", annotation, comment)
        yield from _items(value, depth + 1)
    else:
        yield _Row(f"{indent}{name} = {_shown(value)}", _choices(value) or annotation, comment)


def _items(value: Any, depth: int) -> Iterator[_Row]:
    """Yields rows for the elements of a list, or the entries of a dict, that are dataclasses.

    The first element of a class has a row for each field, later ones only for fields whose value
    differs from the default.
    """
    named = value.items() if isinstance(value, dict) else enumerate(value)
    seen: set[type] = set()
    for key, item in named:
        kind: type = type(item)
        if kind not in seen or not dataclasses.is_dataclass(item):
            yield from _row(f"[{key!r}]", item, kind.__name__, "", depth)
        else:
            yield _Row(
                f"{'  ' * depth}[{key!r}]", kind.__name__, "(fields that differ from the default)"
            )
            for name in _changed(item):
                annotation = fields_in_source(kind).get(name, FieldInSource("", "")).annotation
                yield from _row(name, getattr(item, name), annotation, "", depth + 1)
        seen.add(kind)


def _changed(item: Any) -> list[str]:
    """Returns the fields of a dataclass instance whose value differs from the default."""
    names = []
    for field in dataclasses.fields(item):
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or getattr(item, field.name) != default:
            names.append(field.name)
    return names


def _has_parts(value: Any) -> bool:
    """Returns whether a list or dict holds dataclasses, which get rows of their own."""
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list | tuple) and any(map(dataclasses.is_dataclass, parts))


def _wrapped(row: _Row, width: int) -> Iterator[str]:
    """Yields the lines of a row in three columns; a field that is too wide gets its own line."""
    types_ = textwrap.wrap(row.type, _TYPE_COLUMNS - 2, break_long_words=False)
    comment = textwrap.wrap(row.comment, width - _FIELD_COLUMNS - _TYPE_COLUMNS)
    field = row.field
    if len(field) > _FIELD_COLUMNS - 2 and (types_ or comment):
        yield field
        field = ""
    for left, middle, right in itertools.zip_longest([field], types_, comment, fillvalue=""):
        yield f"{left:<{_FIELD_COLUMNS}}{middle:<{_TYPE_COLUMNS}}{right}".rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        inside = ", ".join(map(_shown, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return repr(value)


def _choices(value: Any) -> str:
    if isinstance(value, bool):
        return "true | false"
    if isinstance(value, enum.Enum):
        return " | ".join(member.name.lower() for member in type(value))
    return ""


def _summary(kind: type) -> str:
    """Returns the first line of a class's docstring."""
    lines = (inspect.getdoc(kind) or "").splitlines()
    return "" if not lines or lines[0].startswith(f"{kind.__name__}(") else lines[0]

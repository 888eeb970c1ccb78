"""The problems of a configuration, collected so that one error can list all of them.

>>> @dataclass
... class Dedup:
...     threshold: float = 0.7
...     bands: int = 14
>>> problems = Problems("config.data").at("dedup")
>>> check_share(problems, Dedup(threshold=2.0), "threshold")
>>> check_minimum(problems, 1, Dedup(bands=0), "bands")
>>> print(problems.message())
2 settings cannot be used:
  config.data.dedup.threshold: got 2.0, expected a number from 0 to 1
  config.data.dedup.bands: got 0, expected 1 or more
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import types
import typing
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Problems:
    """Messages about the fields of a configuration or of one of its sections.

    Attributes:
      path: address of the section on the command line: "config.data.dedup".
      messages: shared with the sections below this one.
    """

    path: str
    messages: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Returns True if there is at least one message."""
        return bool(self.messages)

    def at(self, name: str) -> Problems:
        """Returns the same collection for a section or field below this one."""
        return Problems(self._address(name), self.messages)

    def _address(self, name: str) -> str:
        """Returns the address of a field, or of an entry: "['web']"."""
        return f"{self.path}{name}" if name.startswith("[") else f"{self.path}.{name}"

    def add(self, name: str, got: object, expected: str, advice: str = "") -> None:
        """Adds a message about the field `name`.

        Args:
          name: field of this section, perhaps with a key: "weights['web']"; or an entry: "['web']".
          got: value of the field.
          expected: description of the values that are allowed.
          advice: sentence about what to do, if `expected` does not suffice.
        """
        message = f"{self._address(name)}: got {got!r}, expected {expected}"
        self.messages.append(f"{message}. {advice}" if advice else message)

    def message(self) -> str:
        """Returns the text of the error: the only message, or a list of all of them."""
        if len(self.messages) == 1:
            return self.messages[0]
        indented = [message.replace("\n", "\n  ") for message in self.messages]
        return "\n  ".join([f"{len(indented)} settings cannot be used:", *indented])

    def raise_if_any(self) -> None:
        """Raises ValueError with all messages, if there are any."""
        if self.messages:
            raise ValueError(self.message())


def check_minimum(problems: Problems, minimum: float, section: object, *names: str) -> None:
    """Checks that fields are at least `minimum`.

    Args:
      problems: receives a message for each field that is not.
      minimum: the smallest value that is allowed.
      section: the object with the fields.
      *names: names of the fields.
    """
    for name in names:
        value = getattr(section, name)
        if math.isfinite(value) and value < minimum:
            problems.add(name, value, f"{minimum:g} or more")


def check_above(problems: Problems, limit: float, section: object, *names: str) -> None:
    """Checks that fields are above `limit`.

    Args:
      problems: receives a message for each field that is not.
      limit: the largest value that is not allowed.
      section: the object with the fields.
      *names: names of the fields.
    """
    for name in names:
        value = getattr(section, name)
        if math.isfinite(value) and value <= limit:
            problems.add(name, value, f"a number above {limit:g}")


def check_share(
    problems: Problems, section: object, *names: str, zero: bool = True, advice: str = ""
) -> None:
    """Checks that the fields `names` of `section` are numbers from 0 to 1.

    Args:
      problems: receives a message for each field that is not.
      section: the object with the fields.
      *names: names of the fields.
      zero: whether 0 is allowed.
      advice: sentence that ends the message.
    """
    for name in names:
        value = getattr(section, name)
        if math.isfinite(value) and not (0 <= value <= 1 and (zero or value)):
            expected = "a number from 0 to 1" if zero else "a number above 0 and at most 1"
            problems.add(name, value, expected, advice)


def check_order(problems: Problems, section: object, low: str, high: str) -> None:
    """Checks that one field is not above another.

    Args:
      problems: receives a message about the field `low`.
      section: the object with the fields.
      low: name of the field with the smaller value.
      high: name of the field with the larger value.
    """
    least, greatest = getattr(section, low), getattr(section, high)
    if least > greatest:
        problems.add(low, least, f"at most {problems.path}.{high}, which is {greatest!r}")


def check_source_name(problems: Problems, section: object, name: str) -> None:
    """Checks that a field is a name for a source: not empty, and without "/".

    Args:
      problems: receives a message about the field.
      section: the object with the field.
      name: name of the field.
    """
    source = getattr(section, name)
    if not source or "/" in source:
        problems.add(name, source, "a name without '/'")


def check_known(
    problems: Problems,
    name: str,
    values: Iterable[str],
    known: Collection[str],
    what: str,
    advice: str = "",
) -> None:
    """Checks that each of the values is known.

    Args:
      problems: receives one message for each value that is not.
      name: field that holds the values.
      values: names that the user wrote.
      known: all names that are allowed.
      what: what the names stand for, in the singular: "kind of task".
      advice: sentence that ends the message.
    """
    for value in values:
        if value not in known:
            close = difflib.get_close_matches(str(value), known, n=3)
            hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
            expected = f"a {what} ({', '.join(known)})"
            problems.add(name, value, expected, (hint + advice).strip())


def check_types(problems: Problems, section: Any) -> None:
    """Checks the types of all fields of a dataclass and of the sections below it.

    An integer is accepted as a float and a list as a tuple; a number must be finite.

    Args:
      problems: receives one message for each value of a wrong type.
      section: an instance of a dataclass.
    """
    hints = typing.get_type_hints(type(section))
    for one in dataclasses.fields(section):
        _check_type(problems, one.name, getattr(section, one.name), hints[one.name])


def _check_type(problems: Problems, name: str, value: Any, expected: Any) -> None:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            problems.add(name, value, "a tuple", 'On the command line: --config.x="(...)"')
            return
        for k, element in enumerate(value):
            _check_type(problems, f"{name}[{k}]", element, arguments[0])
    elif origin is dict:
        if not isinstance(value, dict):
            problems.add(name, value, "a dict")
            return
        for key, element in value.items():
            if not _is_a(key, arguments[0]):
                problems.add(name, key, f"keys of type {_type_name(arguments[0])}")
            _check_type(problems, f"{name}[{key!r}]", element, arguments[1])
    elif not _is_a(value, expected):
        problems.add(name, value, _type_name(expected))
    elif isinstance(value, float) and not math.isfinite(value):
        problems.add(name, value, "a finite number")
    elif dataclasses.is_dataclass(value):
        check_types(problems.at(name), value)


def _is_a(value: object, expected: Any) -> bool:
    """Returns whether a value has a type that is not a collection."""
    if expected in (object, Any):
        return True
    if isinstance(value, bool):
        return expected is bool
    if isinstance(expected, types.UnionType):
        return any(_is_a(value, one) for one in typing.get_args(expected))
    return isinstance(value, int | float if expected is float else expected)


def _type_name(expected: Any) -> str:
    """Returns a description of a type for error messages.

    >>> _type_name(int), _type_name(int | str)
    ('int', 'int or str')
    """
    if isinstance(expected, types.UnionType):
        names = [one.__name__ for one in typing.get_args(expected)]
        return f"{', '.join(names[:-1])} or {names[-1]}"
    if issubclass(expected, enum.Enum):
        return f"one of {', '.join(f'{expected.__name__}.{one.name}' for one in expected)}"
    return str(expected.__name__)

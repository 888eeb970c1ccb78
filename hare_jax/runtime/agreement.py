"""Whether all processes of a run were given the same: settings, code, libraries, data, start.

Processes that disagree train different models for a while, and then wait for each other forever.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hare_jax.runtime import distributed
from hare_jax.runtime.versions import library_versions

MAX_NAMED = 5  # differences that the error lists


class DisagreementError(ValueError):
    """A process was given something else than process 0."""


def check(facts: Mapping[str, Any]) -> None:
    """Compares the facts of all processes with those of process 0; every process must call it.

    Args:
      facts: by name, values of JSON; nested ones are compared by their parts.

    Raises:
      DisagreementError: on a process that differs from process 0; names what differs.
      OtherProcessError: on the others.
    """
    if not distributed.is_multi_process():
        return
    own = flat(facts)
    of_zero = distributed.on_process_zero(lambda: own)
    distributed.on_all_processes(lambda: compare(of_zero, own))


def compare(of_zero: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raises DisagreementError if the facts of this process are not those of process 0."""
    names = [n for n in {**of_zero, **own} if of_zero.get(n) != own.get(n)]
    if not names:
        return
    listed = "; ".join(
        f"{name}: got {own.get(name)!r}, process 0 has {of_zero.get(name)!r}"
        for name in names[:MAX_NAMED]
    )
    more = f"; and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    raise DisagreementError(f"{listed}{more}. Start all processes with the same command and code")


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dicts and lists by their addresses.

    >>> flat({"a": {"b": 1, "c": [2, {"d": 3}]}})
    {'a.b': 1, 'a.c[0]': 2, 'a.c[1].d': 3}
    """
    if isinstance(value, Mapping) and value:
        parts = [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
    elif isinstance(value, list | tuple) and value:
        parts = [(f"{name}[{number}]", one) for number, one in enumerate(value)]
    else:
        return {name: value}
    return {address: leaf for part, one in parts for address, leaf in flat(one, part).items()}


def software() -> dict[str, str]:
    """Returns the versions of Python and the libraries, and a hash of this package's code."""
    versions = {"python": platform.python_version()}
    versions |= {name: found or "not installed" for name, found in library_versions().items()}
    root = Path(__file__).parents[1]
    code = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return versions | {"code of hare_jax": code.hexdigest()[:12]}

"""Type-checked access to rows of unknown structure: values of other types count as missing."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def first_text(row: Row, keys: tuple[str, ...]) -> str:
    """Returns the first value of `keys` that is a non-empty text or a number, as text; else "".

    >>> first_text({"answer": " ", "ans": 3.0}, ("answer", "ans"))
    '3'
    """
    for key in keys:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:.15g}"
    return ""


def is_text(row: Row, *keys: str) -> bool:
    """Returns whether all keys have a non-empty text."""
    return all(isinstance(row.get(key), str) and row[key].strip() for key in keys)


def dictionaries(value: Any) -> list[Row]:
    """Returns the value if it is a list of dictionaries only, else []."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    return []

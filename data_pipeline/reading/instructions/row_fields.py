"""Looking into rows whose fields nobody promised: a value is taken only where its type fits."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def first_text(row: Row, keys: tuple[str, ...]) -> str:
    """The first of `keys` that holds text or a number, as text; "" where none does.

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
    return all(isinstance(row.get(key), str) and row[key].strip() for key in keys)


def dictionaries(value: Any) -> list[Row]:
    """The list, where it is one of dictionaries and of nothing else; else []."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    return []

"""The items of a benchmark, and the same items told in other words.

A line of a JSONL file, plain or .gz, is an item: GAIR-NLP/benbench's files as they are, or any
others by the names of their fields.

    test_original.jsonl       {"question": "Ann and Bo have 3 pens ...", "answer": "... #### 3"}
    test_rewritten_1.jsonl    {"question": "Ann and Bo have 3 pens ...", "answer": "... #### 3",
                               "rewritten_question": "3 pens belong ...", "rewritten_answer": "..."}

A rewritten line names its original by the same id, or by carrying the original's text.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import LeakageAudit

SUFFIXES = (".jsonl.gz", ".jsonl")
ORIGINAL, REWRITTEN = "_original", "_rewritten"  # of the names of files in a folder of sets


@dataclass(frozen=True, slots=True)
class AuditItem:
    """`key`: the same for an item and its rewritings; "" for a rewriting that names no original.

    `choices`: what `answer` is one of, where it is multiple choice.
    """

    key: str
    question: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What n-grams are taken of: question, a space, answer.

        >>> Item("1", "Which is fast?", "a hare", ("a snail", "a hare")).text
        'Which is fast?\\nA. a snail\\nB. a hare\\nAnswer: B. a hare'
        """
        if not self.choices:
            return f"{self.question} {self.answer}"
        letters = string.ascii_uppercase
        options = [f"{letters[k]}. {choice}" for k, choice in enumerate(self.choices)]
        answer = options[self.choices.index(self.answer)]
        return "\n".join([self.question, *options, f"Answer: {answer}"])


@dataclass(frozen=True, slots=True)
class Pair:
    """A set of items, and its versions in other words. `made_by`: where these come from.

    `unpaired`: why items and rewritings cannot be compared one by one; "" where they can.
    `by_hand`: whether they were read from files, not made by rules.
    """

    name: str
    original: list[AuditItem]
    rewritten: list[list[AuditItem]]
    made_by: str
    unpaired: str = ""
    by_hand: bool = True


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a set; without `rewritten`, it is rewritten by rules."""

    name: str
    original: Path
    rewritten: tuple[Path, ...]

    def sha256(self) -> dict[str, str]:
        paths = (self.original, *self.rewritten)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def files_of(config: LeakageAudit) -> list[Files]:
    """The sets that a config names. Raises ValueError or FileNotFoundError where it names none."""
    if bool(config.folder) == bool(config.original):
        got = "both" if config.folder else "neither"
        raise ValueError(
            f"got {got} of original and folder, expected one: --config.original=FILE with "
            "--config.rewritten=FILE, or --config.folder=DIR of several sets"
        )
    if config.folder:
        return _folder(Path(config.folder))
    return [_files(config.original, config.rewritten, "rewritten")]


def control_of(config: LeakageAudit) -> Files | None:
    """The set that the model cannot have seen, where the config names one."""
    if not config.control:
        return None
    return _files(config.control, config.control_rewritten, "control_rewritten")


def _files(original: str, rewritten: str, field: str) -> Files:
    path = Path(original)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected items, one JSON object a line")
    versions: tuple[Path, ...] = ()
    if rewritten:
        named = Path(rewritten)
        versions = (named,) if named.is_file() else tuple(sorted(named.parent.glob(named.name)))
    if rewritten and not versions:
        raise FileNotFoundError(
            f"{rewritten}: no such file; expected the rewritten items, --config.{field}=FILE, or "
            "no name, and they are rewritten by rules"
        )
    return Files(name_of(path), path, versions)


def _folder(folder: Path) -> list[Files]:
    paths = sorted(path for path in folder.glob("*.jsonl*") if path.name.endswith(SUFFIXES))
    sets = []
    for path in paths:
        if _stem(path).endswith(ORIGINAL):
            name = name_of(path)
            versions = [p for p in paths if _stem(p).startswith(name + REWRITTEN)]
            sets.append(Files(name, path, tuple(versions)))
    if not sets:
        found = ", ".join(path.name for path in paths[:5]) or "no .jsonl or .jsonl.gz file"
        raise FileNotFoundError(
            f"{folder}: got {found}, expected NAME{ORIGINAL}.jsonl with NAME{REWRITTEN}.jsonl "
            "beside it; rename the files, or name them by --config.original and --config.rewritten"
        )
    return sets


def name_of(path: Path) -> str:
    """Of the set: gsm8k of gsm8k_original.jsonl.gz."""
    return _stem(path).removesuffix(ORIGINAL)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(s) for s in SUFFIXES if path.name.endswith(s)), path.stem)


def read_original(path: Path, config: LeakageAudit) -> list[AuditItem]:
    """Raises ValueError for a line that is no item, for a key that comes twice, and for no line."""
    items = [_item(row, where, config, rewritten=False) for where, row in _rows(path)]
    seen: dict[str, AuditItem] = {}
    for item in items:
        if seen.setdefault(item.key, item) != item:
            raise ValueError(
                f"{path}: got two items of the id {item.key!r}, expected one; name the field that "
                "tells them apart by --config.id=NAME"
            )
    return list(seen.values())  # of two that are all the same, one


def read_rewritten(path: Path, config: LeakageAudit) -> list[AuditItem]:
    """Raises ValueError for a line that is no rewritten item, and for a file without lines."""
    return [_item(row, where, config, rewritten=True) for where, row in _rows(path)]


def drawn(items: list[AuditItem], count: int, seed: int) -> list[AuditItem]:
    """`count` of the items in their order, or all of them; 0: all."""
    if not count:
        return items
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[k] for k in sorted(chosen)]


def rows_by_key(path: Path, config: LeakageAudit) -> dict[str, dict[str, Any]]:
    """Key -> the line of the file, as it stands there."""
    return {_key(row, config): row for _, row in _rows(path)}


def rewritten_fields(item: AuditItem) -> dict[str, Any]:
    """A rewritten item as further fields of its original's line: see the head of this file."""
    fields = {"rewritten_question": item.question, "rewritten_answer": item.answer}
    return fields | ({"rewritten_choices": list(item.choices)} if item.choices else {})


def pair(files: Files, config: LeakageAudit) -> Pair:
    """The items of a set and their rewritings, from its files; see `read_original`."""
    original = read_original(files.original, config)
    rewritten = [read_rewritten(path, config) for path in files.rewritten]
    keys = {item.key for item in original}
    lost = sum(item.key not in keys for version in rewritten for item in version)
    total = sum(map(len, rewritten))
    unpaired = f"{lost} of {total} rewritten items name no original" if lost else ""
    return Pair(
        files.name, original, rewritten, ", ".join(p.name for p in files.rewritten), unpaired
    )


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """("FILE, line 3", object) of each line that is not empty."""
    rows = []
    try:
        data = path.read_bytes()
        content = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read to its end ({error}); expected JSONL in UTF-8, whole; copy "
            "the file again"
        ) from error
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where}: got no JSON ({error}), expected one object a line"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: got {line.strip()[:40]!r}, expected a JSON object")
        rows.append((where, row))
    if not rows:
        raise ValueError(f"{path}: got no line, expected items; is it the right file?")
    return rows


def _item(row: dict[str, Any], where: str, config: LeakageAudit, *, rewritten: bool) -> AuditItem:
    prefix = "rewritten_" if rewritten else ""

    def value(role: str) -> Any:
        name = getattr(config, prefix + role)
        found = _field(row, name)
        if found is None:
            raise ValueError(
                f"{where}: got the fields {', '.join(sorted(row))}, expected {name!r}; name what "
                f"holds the {role} by --config.{prefix}{role}=NAME, or NAME.INNER"
            )
        return found

    question, answer = value("question"), value("answer")
    choices: tuple[str, ...] = ()
    if config.choices:
        choices, answer = _choices(value("choices"), answer, where)
    for role, text in (("question", question), ("answer", answer)):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: got {text!r:.40} for {getattr(config, prefix + role)!r}, expected text"
                + ("" if config.choices else "; of multiple choice, --config.choices=NAME as well")
            )
    return AuditItem(_key(row, config), question, answer, choices)


def _field(row: dict[str, Any], name: str) -> Any:
    """None where there is none. A dot leads into an object: question.stem"""
    found: Any = row
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _key(row: dict[str, Any], config: LeakageAudit) -> str:
    """The id, or else a digest of the original's text; "" where neither is there."""
    key = _field(row, config.id)
    if key is not None:
        return str(key)
    names = [config.question, config.answer, *([config.choices] if config.choices else [])]
    original = [_field(row, name) for name in names]
    if None in original:
        return ""
    return hashlib.sha256(json.dumps(original, sort_keys=True).encode()).hexdigest()[:16]


def _choices(value: Any, answer: Any, where: str) -> tuple[tuple[str, ...], str]:
    """Choices and the right one's text: `answer` is its number from 0, its letter, or its text.

    `value`: texts; or, with labels in place of letters, {"text": [...], "label": [...]} or a list
    of {"text": ..., "label": ...}.
    """
    labels: Sequence[str] = string.ascii_uppercase
    try:
        if isinstance(value, dict):
            value, labels = value["text"], value["label"]
        elif value and isinstance(value[0], dict):
            labels, value = [c["label"] for c in value], [c["text"] for c in value]
        valid = isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise ValueError(
            f"{where}: got {value!r:.60} for the choices, expected a list of texts, or of objects "
            "with text and label"
        )
    choices = tuple(value)
    if answer in choices:
        return choices, answer
    number = answer if isinstance(answer, int) else _index(labels, answer)
    if not 0 <= number < len(choices):
        raise ValueError(
            f"{where}: got the answer {answer!r:.40}, expected one of the {len(choices)} choices, "
            "its number from 0 or its letter"
        )
    return choices, choices[number]


def _index(labels: Sequence[str], answer: Any) -> int:
    return list(labels).index(answer) if answer in list(labels) else -1

"""The items of a benchmark and their paraphrases, read from JSON Lines files.

A line of a file, plain or .gz, is an item: the files of GAIR-NLP/benbench as they are, or any
others by the names of their fields. Names of files and fields in benbench say "rewritten":

    test_original.jsonl       {"question": "Ann and Bo have 3 pens ...", "answer": "... #### 3"}
    test_rewritten_1.jsonl    {"question": "Ann and Bo have 3 pens ...", "answer": "... #### 3",
                               "rewritten_question": "3 pens belong ...", "rewritten_answer": "..."}

A paraphrase names its original by the same id, or by the text of the original in its line.
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
ORIGINAL, PARAPHRASED = "_original", "_rewritten"  # parts of the names of files in a folder


@dataclass(frozen=True, slots=True)
class AuditItem:
    """An item, or a paraphrase of one.

    Attributes:
      key: the same for an item and its paraphrases; "" for a paraphrase that names no original.
      question: the question.
      answer: the answer; of multiple choice, one of `choices`.
      choices: of multiple choice.
    """

    key: str
    question: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        r"""The text whose n-grams are measured: question, a space, answer.

        >>> AuditItem("1", "Which is fast?", "a hare", ("a snail", "a hare")).text
        'Which is fast?\nA. a snail\nB. a hare\nAnswer: B. a hare'
        """
        if not self.choices:
            return f"{self.question} {self.answer}"
        letters = string.ascii_uppercase
        options = [f"{letters[k]}. {choice}" for k, choice in enumerate(self.choices)]
        answer = options[self.choices.index(self.answer)]
        return "\n".join([self.question, *options, f"Answer: {answer}"])


@dataclass(frozen=True, slots=True)
class Pair:
    """A set of items and its paraphrased versions.

    Attributes:
      name: of the set.
      original: the items.
      paraphrased: the paraphrases of each version.
      paraphrased_by: the names of their files, or the rules.
      unpaired_because: why items and paraphrases cannot be compared one by one; "" if they can.
      from_files: whether the paraphrases were read from files, not made by rules.
    """

    name: str
    original: list[AuditItem]
    paraphrased: list[list[AuditItem]]
    paraphrased_by: str
    unpaired_because: str = ""
    from_files: bool = True


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a set; without `paraphrased`, paraphrases are made by rules."""

    name: str
    original: Path
    paraphrased: tuple[Path, ...]

    def sha256(self) -> dict[str, str]:
        """Returns name of file -> sha256."""
        paths = (self.original, *self.paraphrased)
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def files_of(config: LeakageAudit) -> list[Files]:
    """Returns the sets that a config names; raises ValueError or FileNotFoundError for none."""
    if bool(config.folder) == bool(config.original):
        got = "both" if config.folder else "neither"
        raise ValueError(
            f"got {got} of original and folder, expected one: --config.original=FILE with "
            "--config.paraphrased=FILE, or --config.folder=DIR of several sets"
        )
    if config.folder:
        return _folder(Path(config.folder))
    return [_files(config.original, config.paraphrased, "paraphrased")]


def control_of(config: LeakageAudit) -> Files | None:
    """Returns the set that the model cannot have seen, or None if the config names none."""
    if not config.control:
        return None
    return _files(config.control, config.control_paraphrased, "control_paraphrased")


def _files(original: str, paraphrased: str, field: str) -> Files:
    """Returns the files of one set; `field`: of the config, named in errors."""
    path = Path(original)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected items, one JSON object per line")
    versions: tuple[Path, ...] = ()
    if paraphrased:
        given = Path(paraphrased)
        versions = (given,) if given.is_file() else tuple(sorted(given.parent.glob(given.name)))
    if paraphrased and not versions:
        raise FileNotFoundError(
            f"{paraphrased}: no such file; expected the paraphrased items, --config.{field}=FILE, "
            "or nothing, and they are paraphrased by rules"
        )
    return Files(name_of(path), path, versions)


def _folder(folder: Path) -> list[Files]:
    """Returns the sets in a folder, by the names of its files."""
    paths = sorted(path for path in folder.glob("*.jsonl*") if path.name.endswith(SUFFIXES))
    sets = []
    for path in paths:
        if _stem(path).endswith(ORIGINAL):
            name = name_of(path)
            versions = [p for p in paths if _stem(p).startswith(name + PARAPHRASED)]
            sets.append(Files(name, path, tuple(versions)))
    if not sets:
        found = ", ".join(path.name for path in paths[:5]) or "no .jsonl or .jsonl.gz file"
        raise FileNotFoundError(
            f"{folder}: got {found}, expected NAME{ORIGINAL}.jsonl with NAME{PARAPHRASED}.jsonl "
            "beside it; rename the files, or name them by --config.original and "
            "--config.paraphrased"
        )
    return sets


def name_of(path: Path) -> str:
    """Returns the name of the set with the originals `path`: gsm8k for gsm8k_original.jsonl.gz."""
    return _stem(path).removesuffix(ORIGINAL)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(s) for s in SUFFIXES if path.name.endswith(s)), path.stem)


def read_original(path: Path, config: LeakageAudit) -> list[AuditItem]:
    """Reads the items of a file; of identical ones, one.

    Raises ValueError if a line is not an item, different items have the same key, or there are no
    lines.
    """
    items = [_item(row, where, config, paraphrased=False) for where, row in _rows(path)]
    seen: dict[str, AuditItem] = {}
    for item in items:
        if seen.setdefault(item.key, item) != item:
            raise ValueError(
                f"{path}: got two items of the id {item.key!r}, expected one; name the field that "
                "distinguishes them by --config.id=NAME"
            )
    return list(seen.values())


def read_paraphrased(path: Path, config: LeakageAudit) -> list[AuditItem]:
    """Reads paraphrases; raises ValueError if a line is not one, or there are no lines."""
    return [_item(row, where, config, paraphrased=True) for where, row in _rows(path)]


def draw(items: list[AuditItem], count: int, seed: int) -> list[AuditItem]:
    """Returns `count` random items in their order, or all of them if `count` is 0 or too large."""
    if not count:
        return items
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[k] for k in sorted(chosen)]


def rows_by_key(path: Path, config: LeakageAudit) -> dict[str, dict[str, Any]]:
    """Returns key -> line of the file, unchanged."""
    return {_key(row, config): row for _, row in _rows(path)}


def paraphrased_fields(item: AuditItem) -> dict[str, Any]:
    """Returns a paraphrase as further fields of its original's line, named as in benbench."""
    fields = {"rewritten_question": item.question, "rewritten_answer": item.answer}
    return fields | ({"rewritten_choices": list(item.choices)} if item.choices else {})


def pair(files: Files, config: LeakageAudit) -> Pair:
    """Reads the items of a set and their paraphrases; raises ValueError as `read_original`."""
    original = read_original(files.original, config)
    paraphrased = [read_paraphrased(path, config) for path in files.paraphrased]
    keys = {item.key for item in original}
    lost = sum(item.key not in keys for version in paraphrased for item in version)
    total = sum(map(len, paraphrased))
    unpaired_because = f"{lost} of {total} paraphrased items name no original" if lost else ""
    paraphrased_by = ", ".join(path.name for path in files.paraphrased)
    return Pair(files.name, original, paraphrased, paraphrased_by, unpaired_because)


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns ("FILE, line 3", object) for each line that is not empty.

    Raises ValueError if the file is damaged or empty, or a line is not a JSON object.
    """
    rows = []
    try:
        data = path.read_bytes()
        content = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read to its end ({error}); expected complete JSON Lines in UTF-8; "
            "copy the file again"
        ) from error
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where}: got no JSON ({error}), expected one object per line"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: got {line.strip()[:40]!r}, expected a JSON object")
        rows.append((where, row))
    if not rows:
        raise ValueError(f"{path}: got no lines, expected items; is it the right file?")
    return rows


def _item(row: dict[str, Any], where: str, config: LeakageAudit, *, paraphrased: bool) -> AuditItem:
    """Returns the item, or the paraphrase, of a line; `where`: its place, named in errors."""
    prefix = "paraphrased_" if paraphrased else ""

    def value(role: str) -> Any:
        name = getattr(config, prefix + role)
        content = _field(row, name)
        if content is None:
            raise ValueError(
                f"{where}: got the fields {', '.join(sorted(row))}, expected {name!r}; name the "
                f"field with the {role} by --config.{prefix}{role}=NAME, or NAME.INNER"
            )
        return content

    question, answer = value("question"), value("answer")
    choices: tuple[str, ...] = ()
    if config.choices:
        choices, answer = _choices(value("choices"), answer, where)
    for role, text in (("question", question), ("answer", answer)):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: got {text!r:.40} for {getattr(config, prefix + role)!r}, expected text"
                + ("" if config.choices else "; for multiple choice, set --config.choices=NAME too")
            )
    return AuditItem(_key(row, config), question, answer, choices)


def _field(row: dict[str, Any], name: str) -> Any:
    """Returns the value of a field, or None. A dot leads into an object: question.stem."""
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _key(row: dict[str, Any], config: LeakageAudit) -> str:
    """Returns the id, else a hash of the original's text; "" if the line has neither."""
    key = _field(row, config.id)
    if key is not None:
        return str(key)
    names = [config.question, config.answer, *([config.choices] if config.choices else [])]
    original = [_field(row, name) for name in names]
    if None in original:
        return ""
    return hashlib.sha256(json.dumps(original, sort_keys=True).encode()).hexdigest()[:16]


def _choices(value: Any, answer: Any, where: str) -> tuple[tuple[str, ...], str]:
    """Returns the choices and the text of the right one.

    Args:
      value: a list of texts; or, with labels in place of letters, {"text": [...], "label": [...]}
        or a list of {"text": ..., "label": ...}.
      answer: the number of the right choice from 0, its letter or label, or its text.
      where: the place of the item, named in errors.
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
    """Returns the index of `answer` in `labels`, or -1."""
    return list(labels).index(answer) if answer in list(labels) else -1

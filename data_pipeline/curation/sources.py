"""The raw input of a source as shards, and a shard as documents: the first step of every document.

Nothing is lost without a word: a row that cannot become a document is yielded as `Bad`, and what
makes it unknown how much is missing raises (see `read`).

    reason             the row or file
    -----------------  ---------------------------------------------------------------------
    invalid_utf8       is not UTF-8, nor in the encoding that an HTML page declares
    invalid_json       does not parse
    not_an_object      is JSON, but no {...}
    missing_text       lacks one of the source's text fields, or has null there
    text_not_a_string  has something else there
    unknown_format     D3 without text fields: fits no format of curation/formats.py
    empty_text         has only white space as its text
    nul_character      holds a NUL
    lone_surrogate     holds half of a surrogate pair, which no UTF-8 can hold
    line_too_long      is longer than reading.max_line_bytes
    empty_file         is a file without rows
    no_main_text       is an HTML page without main text
    invalid_python     is a module of the standard library that does not parse
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.config import Reader, Reading, Source, Tier
from data_pipeline.curation import formats, python_installation, school_math
from data_pipeline.curation.files import COMPRESSIONS, ROWS, TEXTS, Row, kind, read_file
from data_pipeline.document import Bad, Document
from data_pipeline.streams import HEAD_BYTES

LICENCE_FIELDS = ("licence", "license")
# A row's own source names a SeqIO task; anything else in that field (an address, say) is metadata.
_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)
META_CHARACTERS = 300  # a longer licence or address is not copied into meta


@dataclass(slots=True)
class InputShard:
    """What one worker reads: some items of a source, or the generated documents start..stop.

    An item is a file relative to the source's path, or a part of the Python installation.
    `source` is what documents are called whose rows name no source of their own. `fingerprint`
    changes when the input does. `limit`: documents at most, None for all.
    """

    name: str
    source: str
    fingerprint: str
    bytes: int
    items: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    limit: int | None = None


class _Item(NamedTuple):
    name: str
    bytes: int
    version: str  # with name and size: what tells that an item is no longer the same


def partition(source: Source, reading: Reading) -> list[InputShard]:
    """Lists a source without reading it; the same input gives the same list.

    A source without a name is one for each file or folder in its path. Items in the order of
    their names, small ones together up to `reading.shard_bytes`. Of
    `source.max_documents` each shard gets a share by its bytes, so that a small run sees all of
    the source. Raises ValueError for a path that is missing, unreadable or without documents.
    """
    if source.reader is Reader.SCHOOL_MATH:
        return _generated(source, reading)
    groups = _grouped(_items(source), source, reading.shard_bytes)
    sizes = [sum(item.bytes for item in group) for _, group in groups]
    limits = _shares(source.max_documents, sizes)
    numbers = [sum(name == other for other, _ in groups[:k]) for k, (name, _) in enumerate(groups)]
    return [
        InputShard(
            name=f"{name}-{number:05d}",
            source=name,
            fingerprint=_fingerprint(group),
            bytes=size,
            items=tuple(item.name for item in group),
            limit=limit,
        )
        for (name, group), number, size, limit in zip(groups, numbers, sizes, limits, strict=True)
        if limit != 0
    ]


def read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | Bad]:
    """Yields the documents of a shard in their order.

    Ids are `source/id` with the row's own id, or `source/file:line` where it has none, or
    `source/file` for a file that is one document. `meta` says where it is found again: file and
    byte offset in the decompressed content (Parquet: row, from 0).

    Raises TruncatedInput or CorruptInput with the file, and ValueError for a Parquet file without
    the source's text fields or a file that changed after `partition` saw it.
    """
    left = shard.limit
    for document in _read(shard, source, reading):
        if left == 0:
            return
        if left is not None and isinstance(document, Document):
            left -= 1
        yield document


def not_read(source: Source) -> dict[str, int]:
    """How many files of a source's folder are of no kind that is read, by extension."""
    root = Path(source.path).expanduser()
    if source.reader is not Reader.FILES or not source.path or not root.is_dir():
        return {}
    others = (path.suffix.lower() for path in _walk(root, source) if not kind(path))
    return dict(sorted(Counter(others).items()))


def _read(shard: InputShard, source: Source, reading: Reading) -> Iterator[Document | Bad]:
    if source.reader is Reader.SCHOOL_MATH:
        yield from school_math.read(range(shard.start, shard.stop), source)
    elif source.reader is not Reader.FILES:
        yield from python_installation.read(source.reader, shard.items, source)
    else:
        root = Path(source.path).expanduser()
        _check_unchanged(shard, source, root)
        has_formats = source.tier is Tier.D3
        for item in shard.items:
            path = root / item if root.is_dir() else root
            name = _printable(item)
            columns = () if has_formats else source.text_fields
            for row in read_file(path, name, reading.max_line_bytes, columns):
                if isinstance(row, Bad):
                    yield row
                else:
                    yield _document(row, name, _named(source, row, shard), reading)


def _named(source: Source, row: Row, shard: InputShard) -> Source:
    """The source under the name that this row's document gets."""
    own = None if source.name else row.fields.get(source.source_field)
    if not (isinstance(own, str) and _NAME.fullmatch(own)):
        own = shard.source
    return replace(source, name=own)


def _document(row: Row, name: str, source: Source, reading: Reading) -> Document | Bad:
    """The row as a document, or why it is none."""
    fields = row.fields
    text, reason, detail = _text(fields, source)
    if not reason and len(text) > reading.max_line_bytes:
        reason, detail = "line_too_long", f"the text has {len(text):,} characters"
    if not reason:
        document = Document(
            id=f"{source.name}/{_row_id(row, name, source)}",
            text=text,
            source=source.name,
            category=_category(fields, source),
            meta={"file": name} | row.place | _provenance(fields, source),
        )
        reason, detail = _unwritable(document)
    if not reason:
        return document
    raw = row.raw or json.dumps(fields, default=str).encode()
    place = row.place.get("offset", row.place.get("row", 0))
    return Bad(reason, name, place, detail, raw[:HEAD_BYTES])


def _text(fields: dict[str, Any], source: Source) -> tuple[str, str, str]:
    """(text, "", "") or ("", reason, detail)."""
    texts = [fields.get(key) for key in source.text_fields]
    if source.tier is Tier.D3 and None in texts:
        rendered = formats.render(fields)
        if rendered is None:
            return "", "unknown_format", f"no known format has the fields {', '.join(fields)}"
        return rendered[1], "", ""
    for key, text in zip(source.text_fields, texts, strict=True):
        if text is None:
            return "", "missing_text", f"no {key!r} among {', '.join(fields)}"
        if not isinstance(text, str):
            return "", "text_not_a_string", f"{key!r} is {type(text).__name__}: {text!r:.100}"
    if all(not text or text.isspace() for text in texts if isinstance(text, str)):
        return "", "empty_text", f"{' and '.join(source.text_fields)}: nothing but white space"
    return "\n\n".join(text for text in texts if text), "", ""


def _unwritable(document: Document) -> tuple[str, str]:
    """(reason, detail) where a document cannot be handed on as UTF-8 text, else ("", "")."""
    if (at := document.text.find("\0")) >= 0:
        return "nul_character", f"a NUL after {at:,} characters of text"
    try:
        for text in (document.id, document.text, document.category, *document.meta.values()):
            if isinstance(text, str) and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        return "lone_surrogate", str(error)
    return "", ""


def _row_id(row: Row, name: str, source: Source) -> str:
    value = row.fields.get(source.id_field)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    return f"{name}:{row.number}" if row.number else name


def _category(fields: dict[str, Any], source: Source) -> str:
    own = fields.get(source.category_field)
    return source.category or (own if isinstance(own, str) and own else source.name)


def _provenance(fields: dict[str, Any], source: Source) -> dict[str, str]:
    licence = next((fields[key] for key in LICENCE_FIELDS if fields.get(key)), None)
    origin = fields.get(source.source_field)
    found = {
        "licence": licence,
        "url": fields.get("url"),
        "source": None if origin == source.name else origin,
    }
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, str) and 0 < len(value) <= META_CHARACTERS
    }


def _generated(source: Source, reading: Reading) -> list[InputShard]:
    documents = source.max_documents or school_math.DOCUMENTS
    step = max(1, reading.shard_bytes // school_math.BYTES)
    version = school_math.version()
    return [
        InputShard(
            name=f"{source.name}-{number:05d}",
            source=source.name,
            fingerprint=f"{version}-{start}-{min(start + step, documents)}",
            bytes=(min(start + step, documents) - start) * school_math.BYTES,
            start=start,
            stop=min(start + step, documents),
        )
        for number, start in enumerate(range(0, documents, step))
    ]


def _grouped(
    items: Sequence[_Item], source: Source, most_bytes: int
) -> list[tuple[str, list[_Item]]]:
    """Neighbouring items of one name, up to so many bytes; each group with its source's name."""
    groups: list[tuple[str, list[_Item]]] = []
    left = 0
    for item in items:
        name = source.name or _own_name(item.name)
        if not groups or item.bytes > left or name != groups[-1][0]:
            groups.append((name, []))
            left = most_bytes
        groups[-1][1].append(item)
        left -= item.bytes
    return groups


def _own_name(item: str) -> str:
    """The name of a source that was given none: its folder in the path, or its file.

    >>> _own_name("books/a.txt"), _own_name("web.jsonl.gz")
    ('books', 'web')
    """
    name = item.split("/")[0] if "/" in item else item.split(".")[0]
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "text"


def _shares(total: int, weights: list[int]) -> list[int] | list[None]:
    """Splits `total` documents by weight, the largest remainders rounded up; None if 0 (all)."""
    if not total:
        return [None] * len(weights)
    weights = [max(1, weight) for weight in weights]
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _items(source: Source) -> Sequence[_Item]:
    if source.reader is not Reader.FILES:
        return [_Item(*item) for item in python_installation.items(source.reader)]
    if not source.path:
        raise ValueError(f"source {source.name!r} reads files and has no path")
    root = Path(source.path).expanduser()
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError as error:
        raise ValueError(f"source {source.name!r}: there is no {root}") from error
    except OSError as error:
        raise _unreadable(source, error) from error
    if not is_folder:
        if not kind(root):
            raise ValueError(f"source {source.name!r}: {root} is not {_looked_for()}")
        return [_file_item(root, root.parent, source)]
    found = [_file_item(path, root, source) for path in _walk(root, source) if kind(path)]
    if not found:
        raise ValueError(
            f"source {source.name!r}: no documents in {root}; looked for {_looked_for()}"
        )
    return sorted(found)


def _looked_for() -> str:
    return f"{' '.join(ROWS + TEXTS)}, and {' or '.join(COMPRESSIONS)} of them"


def _walk(root: Path, source: Source) -> Iterator[Path]:
    """Every file below `root` whose path has no hidden part, through links, each folder once."""

    def refuse(error: OSError) -> None:
        raise _unreadable(source, error) from error

    seen = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        identity = Path(folder).stat()
        if (identity.st_dev, identity.st_ino) in seen:
            folders.clear()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
        yield from (path for path in paths if not _excluded(path.relative_to(root), source))


def _excluded(path: Path, source: Source) -> bool:
    return any(fnmatch.fnmatch(path.as_posix(), pattern) for pattern in source.exclude)


def _file_item(path: Path, root: Path, source: Source) -> _Item:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"source {source.name!r}: {path} is not a regular file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise _unreadable(source, error) from error
    return _Item(path.relative_to(root).as_posix(), status.st_size, str(status.st_mtime_ns))


def _unreadable(source: Source, error: OSError) -> ValueError:
    what = f"source {source.name!r}: cannot read {error.filename}: {error.strerror}"
    return ValueError(f"{what}. Make it readable, or move it out of the source's folder.")


def _fingerprint(items: Sequence[_Item]) -> str:
    lines = "".join(f"{item.name}\t{item.bytes}\t{item.version}\n" for item in items)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _check_unchanged(shard: InputShard, source: Source, root: Path) -> None:
    folder, files = (root, shard.items) if root.is_dir() else (root.parent, (root.name,))
    now = _fingerprint([_file_item(folder / item, folder, source) for item in files])
    if now != shard.fingerprint:
        raise ValueError(
            f"{shard.name}: a file in {root} changed while the run was reading it "
            f"(fingerprint {now:.12}, was {shard.fingerprint:.12}). Start the run again."
        )


def _printable(item: str) -> str:
    """A file name that is not UTF-8 has its odd bytes written as escapes."""
    return os.fsencode(item).decode("utf-8", "backslashreplace")

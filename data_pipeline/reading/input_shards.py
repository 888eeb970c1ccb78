"""Listing of a source's raw input, and its division into shards, one per worker task."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import cast

from data_pipeline.config import Reader, Reading, Source
from data_pipeline.reading import hub_source, tfds_source
from data_pipeline.reading.demo import python_installation, school_math
from data_pipeline.reading.files import (
    COMPRESSIONS,
    ROW_FORMATS,
    TEXT_FORMATS,
    Piece,
    content_suffix,
    split_into_pieces,
)
from data_pipeline.reading.listing import InputFile, MissingSourceError
from data_pipeline.storage.object_store import ObjectStorePath, is_remote, storage_path
from data_pipeline.storage.shards import numbered

# Modules that list and read the items of datasets by `list_items(source, names)` and
# `read(names, source)`.
DATASETS = {Reader.TFDS: tfds_source, Reader.HUGGING_FACE: hub_source}
MAX_PARALLEL_REQUESTS = 32  # for the footers of large Parquet files


@dataclass(slots=True)
class InputShard:
    """The input of one task: items of a source, a piece of one item, or generated documents.

    Attributes:
      name: the name of the shard.
      source: the source of documents whose rows name no source of their own.
      fingerprint: changes when the input changes.
      bytes: the size of the input.
      items: files relative to the source's path, items of a dataset or parts of the Python
        installation.
      start: index of the first generated document.
      stop: index after the last generated document.
      limit: the maximum number of documents; None for all.
      piece: the part of the only item that is read; None for all of it.
    """

    name: str
    source: str
    fingerprint: str
    bytes: int
    items: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    limit: int | None = None
    piece: Piece | None = None


def list_shards(
    source: Source, reading: Reading, unread: Counter[str] | None = None
) -> list[InputShard]:
    """Lists the shards of a source without reading it; the same input gives the same list.

    A source without a name becomes one source per file or folder in its path. Items are listed in
    the order of their names. Small items are grouped up to `reading.shard_bytes`; large ones are
    split into pieces of about this size if their format allows it. `source.max_documents` is
    divided among the shards by their bytes, so that a small run covers the whole source.

    Args:
      source: the source.
      reading: the size of a shard.
      unread: receives the number of files whose format is not supported, by suffix.

    Raises:
      MissingSourceError: the source does not exist or has no documents.
      ValueError: the source is unreadable.
    """
    if source.reader is Reader.SCHOOL_MATH:
        return _list_generated(source, reading)
    items = _items(source, Counter() if unread is None else unread)
    groups = _group(items, source, reading.shard_bytes)
    limits = _divide(source.max_documents, [group.bytes for group in groups])
    counts = Counter(group.name for group in groups)
    num_seen: Counter[str] = Counter()
    shards = []
    for group, limit in zip(groups, limits, strict=True):
        number = num_seen[group.name]
        num_seen[group.name] += 1
        if limit != 0:
            shards.append(
                InputShard(
                    name=numbered(group.name, number, counts[group.name]),
                    source=group.name,
                    fingerprint=_fingerprint(group.items),
                    bytes=group.bytes,
                    items=tuple(item.name for item in group.items),
                    limit=limit,
                    piece=group.piece,
                )
            )
    return shards


def _list_generated(source: Source, reading: Reading) -> list[InputShard]:
    """Lists the shards of generated word problems."""
    documents = source.max_documents or school_math.DOCUMENTS
    step = max(1, reading.shard_bytes // school_math.BYTES)
    version = school_math.version()
    starts = range(0, documents, step)
    return [
        InputShard(
            name=numbered(source.name, number, len(starts)),
            source=source.name,
            fingerprint=f"{version}-{start}-{min(start + step, documents)}",
            bytes=(min(start + step, documents) - start) * school_math.BYTES,
            start=start,
            stop=min(start + step, documents),
        )
        for number, start in enumerate(starts)
    ]


@dataclass(slots=True)
class _Group:
    """The content of a shard: items of one source name, or a piece of a single item."""

    name: str
    items: list[InputFile]
    bytes: int
    piece: Piece | None = None


def _group(items: Sequence[InputFile], source: Source, max_bytes: int) -> list[_Group]:
    """Groups consecutive items of one name up to `max_bytes`, and splits larger items."""
    pieces_of = _split_large_items(items, source, max_bytes)
    groups: list[_Group] = []
    for item in items:
        name = source.name or _default_name(item.name)
        last = groups[-1] if groups else None
        if pieces := pieces_of.get(item.name):
            groups += [_Group(name, [item], piece.bytes, piece) for piece in pieces]
        elif last and last.name == name and not last.piece and last.bytes + item.bytes <= max_bytes:
            last.items.append(item)
            last.bytes += item.bytes
        else:
            groups.append(_Group(name, [item], item.bytes))
    return groups


def _split_large_items(
    items: Sequence[InputFile], source: Source, max_bytes: int
) -> dict[str, list[Piece]]:
    """Returns the pieces of items larger than `max_bytes` that can be split, by item name.

    Files are examined in parallel, because an object store may be slow to return each footer.
    """
    large = [item for item in items if item.bytes > max_bytes]
    if source.reader is not Reader.FILES or not large:
        return {}
    folder = folder_of(source, large[0].name)

    def split(item: InputFile) -> list[Piece]:
        return split_into_pieces(folder / item.name, item.bytes, max_bytes)

    with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as pool:
        pieces_of = zip(large, pool.map(split, large), strict=True)
        return {item.name: pieces for item, pieces in pieces_of if pieces}


def _default_name(item: str) -> str:
    """Returns the name of an unnamed source: the first folder in the item's path, or its file.

    >>> _default_name("books/a.txt"), _default_name("web.jsonl.gz")
    ('books', 'web')
    """
    name = item.split("/")[0] if "/" in item else item.split(".")[0]
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "text"


def _divide(total: int, weights: Sequence[int]) -> list[int] | list[None]:
    """Divides `total` documents in proportion to the weights; None for each if total is 0 (all).

    >>> _divide(3, [1, 1, 1, 1, 2])
    [0, 1, 0, 1, 1]
    """
    if not total:
        return [None] * len(weights)
    # Cumulative shares are rounded down, so the differences add up to the total.
    edges = list(itertools.accumulate((max(1, weight) for weight in weights), initial=0))
    return [total * b // edges[-1] - total * a // edges[-1] for a, b in itertools.pairwise(edges)]


def _items(source: Source, unread: Counter[str]) -> Sequence[InputFile]:
    """Lists the items of a source in the order of their names; counts files that are not read."""
    if source.reader in DATASETS:
        if not source.name:
            raise ValueError(
                f"the source with path {source.path!r} has no name. Set its `name`: a "
                f"{source.reader.value} dataset needs one."
            )
        return DATASETS[source.reader].list_items(source)
    if source.reader is not Reader.FILES:
        return python_installation.list_items(source.reader)
    if not source.path:
        raise MissingSourceError(
            f"source {source.name!r} has no path. Set its `path` to a file or folder"
        )
    root = storage_path(source.path)
    list_files = _remote_items if is_remote(root) else _local_items
    items = list_files(root, source, unread)
    if items is None:  # a file
        if not content_suffix(root):
            raise ValueError(f"source {source.name!r}: {root} is not one of {_supported_formats()}")
        return [_file_item(root.parent, root.name, source)]
    if not items:
        raise MissingSourceError(
            f"source {source.name!r}: no documents in {root}, expected {_supported_formats()}"
        )
    return sorted(items)


def _local_items(root: Path, source: Source, unread: Counter[str]) -> list[InputFile] | None:
    """Lists the files below a folder, and counts those that are not read.

    Returns None if `root` is a file.
    """
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError as error:
        raise MissingSourceError(f"source {source.name!r}: {root} does not exist") from error
    except OSError as error:
        raise _unreadable(source, error) from error
    if not is_folder:
        return None
    items = []
    for path in _walk(root, source):
        if content_suffix(path):
            items.append(_file_item(root, path.relative_to(root).as_posix(), source))
        else:
            unread[path.suffix.lower()] += 1
    return items


def _remote_items(root: Path, source: Source, unread: Counter[str]) -> list[InputFile] | None:
    """Lists the objects below an address by one request, and counts those that are not read.

    Returns None if the address is that of an object.
    """
    remote = cast(ObjectStorePath, root)
    try:
        items = [InputFile(*astuple(listed)) for listed in remote.walk_files()]
        if not items and remote.is_file():
            return None
    except OSError as error:
        raise _unreadable(source, error) from error
    if not items:
        raise MissingSourceError(f"source {source.name!r}: {root} does not exist")
    supported = []
    for item in items:
        is_hidden = any(part.startswith(".") for part in item.name.split("/"))
        if is_hidden or _excluded(item.name, source):
            continue
        if content_suffix(path := Path(item.name)):
            supported.append(item)
        else:
            unread[path.suffix.lower()] += 1
    return supported


def folder_of(source: Source, item: str) -> Path:
    """Returns the folder of an item: the source's path, or its parent if the path is a file."""
    root = storage_path(source.path)
    return root.parent if root.name == item and not (root / item).exists() else root


def _supported_formats() -> str:
    """Returns the suffixes of the supported formats, for messages."""
    return f"{' '.join(ROW_FORMATS + TEXT_FORMATS)} (plain or {' or '.join(COMPRESSIONS)})"


def _walk(root: Path, source: Source) -> Iterator[Path]:
    """Yields the files below `root`, except hidden and excluded ones, in a fixed order.

    Symbolic links are followed, and each folder is visited once.
    """

    def raise_unreadable(error: OSError) -> None:
        raise _unreadable(source, error) from error

    visited = set()  # device and inode of folders: links can form cycles
    for folder, folders, files in os.walk(root, onerror=raise_unreadable, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(folder, name) for name in sorted(files) if not name.startswith(".")]
        yield from (
            path for path in paths if not _excluded(path.relative_to(root).as_posix(), source)
        )


def _excluded(name: str, source: Source) -> bool:
    """Returns whether a path relative to the source's folder matches a pattern of `exclude`."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in source.exclude)


def _file_item(folder: Path, name: str, source: Source) -> InputFile:
    """Returns name, size and modification time of a readable file."""
    path = folder / name
    try:
        if is_remote(path):
            return InputFile(name, *astuple(cast(ObjectStorePath, path).info())[1:])
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"source {source.name!r}: {path} is not a regular file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise _unreadable(source, error) from error
    return InputFile(name, status.st_size, str(status.st_mtime_ns))


def _unreadable(source: Source, error: OSError) -> ValueError:
    """Returns the error for a file or folder that cannot be read."""
    what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
    advice = "Make it readable, or exclude it with the source's `exclude`."
    return ValueError(f"source {source.name!r}: {what}. {advice}")


def _fingerprint(items: Sequence[InputFile]) -> str:
    """Computes a hash of the names, sizes and versions of items."""
    lines = "".join(f"{item.name}\t{item.bytes}\t{item.version}\n" for item in items)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def check_unchanged(shard: InputShard, source: Source) -> None:
    """Raises ValueError if the input of a shard has changed since it was listed."""
    if source.reader in DATASETS:
        items = DATASETS[source.reader].list_items(source, shard.items)
    else:
        folder = folder_of(source, shard.items[0])
        items = [_file_item(folder, item, source) for item in shard.items]
    if (now := _fingerprint(items)) != shard.fingerprint:
        raise ValueError(
            f"{shard.name}: a file in {source.path} has changed since the run listed it "
            f"(fingerprint {now:.12}, was {shard.fingerprint:.12}). Start the run again."
        )

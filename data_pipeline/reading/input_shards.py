"""The raw input of a source as shards: what there is, and who reads which part of it."""

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
from data_pipeline.reading.files import COMPRESSIONS, ROWS, TEXTS, Piece, kind, pieces
from data_pipeline.reading.listing import InputFile, MissingSourceError
from data_pipeline.storage.object_store import ObjectStorePath, is_remote, storage_path
from data_pipeline.storage.shards import numbered

# Readers of datasets that list and read their own items.
DATASETS = {Reader.TFDS: tfds_source, Reader.HUGGING_FACE: hub_source}
REQUESTS_AT_ONCE = 32  # for the footers of large Parquet files


@dataclass(slots=True)
class InputShard:
    """What one worker reads: items of a source, a piece of one, or generated documents start..stop.

    An item is a file relative to the source's path, or a part of the Python installation. `piece`
    is what of the one item is read, None for all.
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
    piece: Piece | None = None


def partition(source: Source, reading: Reading) -> list[InputShard]:
    """Lists a source without reading it; the same input gives the same list.

    A source without a name is one for each file or folder in its path. Items in the order of
    their names, small ones together up to `reading.shard_bytes`, large ones in pieces of about
    that where their format allows. Of `source.max_documents` each shard gets a share by its bytes,
    so that a small run sees all of the source. Raises ValueError for a path that is missing,
    unreadable or without documents.
    """
    if source.reader is Reader.SCHOOL_MATH:
        return _generated(source, reading)
    groups = _grouped(_items(source), source, reading.shard_bytes)
    limits = _shares(source.max_documents, [group.bytes for group in groups])
    counts = Counter(group.name for group in groups)
    seen: Counter[str] = Counter()
    shards = []
    for group, limit in zip(groups, limits, strict=True):
        number = seen[group.name]
        seen[group.name] += 1
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


def not_read(source: Source) -> dict[str, int]:
    """How many files of a source's folder are of no kind that is read, by extension."""
    if source.reader is not Reader.FILES or not source.path:
        return {}
    root = storage_path(source.path)
    if is_remote(root):
        names = [Path(item.name) for item in _remote_items(root, source) or []]
    else:
        names = list(_walk(root, source)) if root.is_dir() else []
    return dict(sorted(Counter(name.suffix.lower() for name in names if not kind(name)).items()))


def _generated(source: Source, reading: Reading) -> list[InputShard]:
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
    """What becomes a shard: items of one source's name, or a piece of a single one."""

    name: str
    items: list[InputFile]
    bytes: int
    piece: Piece | None = None


def _grouped(items: Sequence[InputFile], source: Source, most_bytes: int) -> list[_Group]:
    """Neighbouring items of one name, up to so many bytes, and the pieces of larger ones."""
    cut = _pieces(items, source, most_bytes)
    groups: list[_Group] = []
    for item in items:
        name = source.name or _own_name(item.name)
        last = groups[-1] if groups else None
        if found := cut.get(item.name):
            groups += [_Group(name, [item], piece.bytes, piece) for piece in found]
        elif (
            last and last.name == name and not last.piece and last.bytes + item.bytes <= most_bytes
        ):
            last.items.append(item)
            last.bytes += item.bytes
        else:
            groups.append(_Group(name, [item], item.bytes))
    return groups


def _pieces(items: Sequence[InputFile], source: Source, most_bytes: int) -> dict[str, list[Piece]]:
    """The pieces of the large files; many at a time, as a store may take long for each footer."""
    large = [item for item in items if item.bytes > most_bytes]
    if source.reader is not Reader.FILES or not large:
        return {}
    folder = folder_of(source, large[0].name)
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        found = pool.map(lambda item: pieces(folder / item.name, item.bytes, most_bytes), large)
        return {item.name: cut for item, cut in zip(large, found, strict=True) if cut}


def _own_name(item: str) -> str:
    """The name of a source that was given none: its folder in the path, or its file.

    >>> _own_name("books/a.txt"), _own_name("web.jsonl.gz")
    ('books', 'web')
    """
    name = item.split("/")[0] if "/" in item else item.split(".")[0]
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "text"


def _shares(total: int, weights: Sequence[int]) -> list[int] | list[None]:
    """Splits `total` documents by weight, evenly from the first to the last; None if 0 (all).

    >>> _shares(3, [1, 1, 1, 1, 2])
    [0, 1, 0, 1, 1]
    """
    if not total:
        return [None] * len(weights)
    until = list(itertools.accumulate((max(1, weight) for weight in weights), initial=0))
    return [total * b // until[-1] - total * a // until[-1] for a, b in itertools.pairwise(until)]


def _items(source: Source) -> Sequence[InputFile]:
    if source.reader in DATASETS:
        if not source.name:
            raise ValueError(f"the source of {source.path!r} has no name; give it one")
        return DATASETS[source.reader].items(source)
    if source.reader is not Reader.FILES:
        return [InputFile(*item) for item in python_installation.items(source.reader)]
    if not source.path:
        raise MissingSourceError(f"source {source.name!r} reads files and has no path")
    root = storage_path(source.path)
    items = _remote_items(root, source) if is_remote(root) else _local_items(root, source)
    if items is None:  # a file
        if not kind(root):
            raise ValueError(f"source {source.name!r}: {root} is not {_looked_for()}")
        return [_file_item(root.parent, root.name, source)]
    found = sorted(item for item in items if kind(Path(item.name)))
    if not found:
        raise MissingSourceError(
            f"source {source.name!r}: no documents in {root}; looked for {_looked_for()}"
        )
    return found


def _local_items(root: Path, source: Source) -> list[InputFile] | None:
    """The files below a folder, as far as they are read; None where `root` is a file."""
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError as error:
        raise MissingSourceError(f"source {source.name!r}: there is no {root}") from error
    except OSError as error:
        raise _unreadable(source, error) from error
    if not is_folder:
        return None
    paths = (path for path in _walk(root, source) if kind(path))
    return [_file_item(root, path.relative_to(root).as_posix(), source) for path in paths]


def _remote_items(root: Path, source: Source) -> list[InputFile] | None:
    """The objects below an address, by one listing; None where it is an object itself."""
    remote = cast(ObjectStorePath, root)
    try:
        items = [InputFile(*astuple(listed)) for listed in remote.walk_files()]
        if not items and remote.is_file():
            return None
    except OSError as error:
        raise _unreadable(source, error) from error
    if not items:
        raise MissingSourceError(f"source {source.name!r}: there is no {root}")
    return [
        item
        for item in items
        if not any(part.startswith(".") for part in item.name.split("/"))
        and not _excluded(item.name, source)
    ]


def folder_of(source: Source, item: str) -> Path:
    """What an item's name is relative to: the source's path, or where that file lies."""
    root = storage_path(source.path)
    return root.parent if root.name == item and not (root / item).exists() else root


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
        yield from (
            path for path in paths if not _excluded(path.relative_to(root).as_posix(), source)
        )


def _excluded(name: str, source: Source) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in source.exclude)


def _file_item(folder: Path, name: str, source: Source) -> InputFile:
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
    what = f"cannot read {error.filename}: {error.strerror}" if error.filename else str(error)
    advice = "Make it readable, or move it out of the source's folder."
    return ValueError(f"source {source.name!r}: {what}. {advice}")


def _fingerprint(items: Sequence[InputFile]) -> str:
    lines = "".join(f"{item.name}\t{item.bytes}\t{item.version}\n" for item in items)
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def check_unchanged(shard: InputShard, source: Source) -> None:
    if source.reader in DATASETS:
        items = DATASETS[source.reader].items(source, shard.items)
    else:
        folder = folder_of(source, shard.items[0])
        items = [_file_item(folder, item, source) for item in shard.items]
    if (now := _fingerprint(items)) != shard.fingerprint:
        raise ValueError(
            f"{shard.name}: a file in {source.path} changed while the run was reading it "
            f"(fingerprint {now:.12}, was {shard.fingerprint:.12}). Start the run again."
        )

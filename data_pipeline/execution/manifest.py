"""Addresses, ledgers and manifests: the content of a stage's directory, and its proof.

A stage's directory is named by the hash of everything that determines its result: the stage's
settings, its source code, library versions and the addresses of its inputs. A changed setting
therefore leads to another directory, and a stale result is never used.

    data/clean-3f2a91c07b55/
        shards/web-00000.jsonl.zst     kept documents
        dropped/web-00000.jsonl.zst    dropped documents with their reasons
        ledger/web-00000.json          counts and hashes of this shard, written after the shard
        manifest.json                  all ledgers, written last

A shard without a ledger and a directory without a manifest are unfinished.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data_pipeline.storage.atomic import list_names, local_copy, write_text
from data_pipeline.storage.object_store import is_remote

SCHEMA = 1
MAX_CONCURRENT_REQUESTS = 32  # to an object store, for small files


class CorruptStageError(ValueError):
    """A file of a finished stage that is missing or differs from its manifest."""


def canonical(value: Any) -> str:
    """Returns the JSON text of a value that is hashed: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Returns the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(config: Any) -> Any:
    """Returns a configuration as JSON values: dataclasses become objects, enums their values.

    >>> plain({"tier": Tier.D1})            # doctest: +SKIP
    {'tier': 'D1'}
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, enum.Enum):
        return config.value
    if isinstance(config, dict):
        return {str(plain(k)): plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [plain(v) for v in config]
    return config


@dataclass(slots=True)
class Counts:
    """Counts of the documents of one source in one shard. Bytes are bytes of text in UTF-8."""

    tier: str = ""
    documents_in: int = 0
    bytes_in: int = 0
    kept: int = 0
    bytes_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # documents by reason
    bad: Counter[str] = field(default_factory=Counter)  # rows that became no document, by reason
    changed: Counter[str] = field(default_factory=Counter)  # changes by kind

    def add(self, other: Counts) -> None:
        """Adds the counts of another shard of the same source."""
        self.tier = self.tier or other.tier
        for name in ("documents_in", "bytes_in", "kept", "bytes_kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "bad", "changed"):
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON values."""
        return {
            f.name: dict(sorted(v.items())) if isinstance(v, Counter) else v
            for f in dataclasses.fields(self)
            for v in [getattr(self, f.name)]
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Counts:
        """Returns the counts that `to_json` was called on."""
        counts = cls()
        for name, count in value.items():
            setattr(counts, name, Counter(count) if isinstance(count, dict) else count)
        return counts


@dataclass(slots=True)
class Ledger:
    """The record of one finished shard."""

    shard: str  # name
    inputs: dict[str, str] = field(default_factory=dict)  # name -> sha256 of the files it read
    files: dict[str, str] = field(default_factory=dict)  # path in the directory -> sha256, written
    sources: dict[str, Counts] = field(default_factory=dict)  # by name
    extra: dict[str, Any] = field(default_factory=dict)  # JSON values of the stage's own

    def of(self, source: str, tier: str = "") -> Counts:
        """Returns the counts of a source, which are created if they do not exist."""
        counts = self.sources.get(source)
        if counts is None:
            counts = self.sources[source] = Counts()
        counts.tier = counts.tier or tier
        return counts

    def to_json(self) -> dict[str, Any]:
        """Returns the ledger as JSON values."""
        return {
            "shard": self.shard,
            "inputs": self.inputs,
            "files": self.files,
            "sources": {name: self.sources[name].to_json() for name in sorted(self.sources)},
            "extra": self.extra,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Ledger:
        """Returns the ledger that `to_json` was called on."""
        sources = {name: Counts.from_json(v) for name, v in value["sources"].items()}
        return cls(value["shard"], value["inputs"], value["files"], sources, value["extra"])

    def write(self, directory: Path) -> None:
        """Writes the ledger into a stage's directory, which makes the shard a finished one."""
        write_text(
            directory / "ledger" / f"{self.shard}.json", json.dumps(self.to_json(), indent=1)
        )


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file that a worker reads: its name, its path, and its sha256 according to the manifest."""

    name: str
    path: Path
    sha256: str

    def verify(self) -> None:
        """Raises CorruptStageError if the file is missing or its hash differs."""
        with self.verified():
            pass

    @contextlib.contextmanager
    def verified(self) -> Iterator[Path]:
        """Yields a local path of the verified file: the file itself, or a copy of an object.

        An object is downloaded once, so that the verified bytes are the ones that are read. Raises
        as `verify`.
        """
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(local_copy(self.path))
                actual = file_sha256(path)
            except FileNotFoundError:
                raise CorruptStageError(
                    f"{self.path} is missing: its manifest lists it with sha256 "
                    f"{self.sha256[:12]}.... Delete {self.path.parent.parent} and run again."
                ) from None
            if actual != self.sha256:
                raise CorruptStageError(
                    f"{self.path} has changed since it was written: got sha256 {actual[:12]}..., "
                    f"expected {self.sha256[:12]}.... Delete {self.path.parent.parent} and run "
                    f"again."
                )
            yield path


@dataclass(frozen=True)
class Directory:
    """A finished stage directory."""

    path: Path
    manifest: dict[str, Any]

    @property
    def address(self) -> str:
        """The hash of everything that determines the stage's result."""
        return str(self.manifest["address"])

    @cached_property
    def _ledgers(self) -> list[Ledger]:
        return [Ledger.from_json(value) for value in self.manifest["shards"]]

    @cached_property
    def _files(self) -> dict[str, str]:
        return {f: s for ledger in self._ledgers for f, s in ledger.files.items()}

    def ledgers(self) -> list[Ledger]:
        """Returns the ledgers of all shards, in the order of the tasks."""
        return list(self._ledgers)

    def counts(self) -> dict[str, Counts]:
        """Returns the total counts of each source over all shards."""
        total = Ledger("all")
        for ledger in self._ledgers:
            for name, counts in ledger.sources.items():
                total.of(name).add(counts)
        return total.sources

    def tiers(self) -> dict[str, str]:
        """Returns the tier of each source."""
        return {name: counts.tier for name, counts in self.counts().items()}

    def files(self, folder: str = "shards") -> list[ShardFile]:
        """Returns the files in a folder of the directory, in the order of the shards."""
        return [
            ShardFile(ledger.shard, self.path / file, sha256)
            for ledger in self._ledgers
            for file, sha256 in sorted(ledger.files.items())
            if file.startswith(folder + "/")
        ]

    def file(self, name: str) -> ShardFile:
        """Returns the file of this relative path; raises CorruptStageError if there is none."""
        if name not in self._files:
            known = ", ".join(sorted(self._files)[:20])
            raise CorruptStageError(
                f"{self.path}: got {name!r}, expected one of its files: {known}"
            )
        return ShardFile(name, self.path / name, self._files[name])


def load(path: Path) -> Directory | None:
    """Returns the finished directory at `path`, or None if it has no manifest yet.

    Raises CorruptStageError if the manifest is unreadable, of another schema, or lists a file that
    is missing.
    """
    file = path / "manifest.json"
    if not file.exists():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptStageError(
            f"{file} is not JSON ({error}). Delete {path} and run again."
        ) from None
    if manifest.get("schema") != SCHEMA:
        raise CorruptStageError(
            f"{file} has schema {manifest.get('schema')!r}, expected {SCHEMA}. "
            f"Delete {path} and run again."
        )
    directory = Directory(path, manifest)
    existing = _Listings(path)
    for ledger in directory.ledgers():
        for name, sha256 in ledger.files.items():
            if name not in existing:
                ShardFile(name, path / name, sha256).verify()
    return directory


class _Listings:
    """The files below a directory, from one listing per folder instead of one request per file."""

    def __init__(self, path: Path):
        self._path = path
        self._folders: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = list_names(self._path / folder)
        return file in self._folders[folder]


def finished_ledgers(path: Path, shards: Iterable[str]) -> dict[str, Ledger]:
    """Returns, by shard, the ledgers of an interrupted run whose files are complete.

    A local file is complete if its hash is right. An object is complete if it exists, since uploads
    are atomic; its hash is verified by those who read it.
    """
    existing = _Listings(path)
    started = [shard for shard in shards if f"ledger/{shard}.json" in existing]
    return {
        shard: ledger
        for shard, ledger in read_ledgers(path, started).items()
        if all(name in existing for name in ledger.files)
        and (is_remote(path) or _verifies(path, ledger))
    }


def read_ledgers(path: Path, shards: Sequence[str]) -> dict[str, Ledger]:
    """Returns the ledgers of those shards that have a readable one."""
    workers = MAX_CONCURRENT_REQUESTS if is_remote(path) else 1
    with ThreadPoolExecutor(workers) as pool:
        ledgers = pool.map(lambda shard: _read_ledger(path, shard), shards)
        return {s: ledger for s, ledger in zip(shards, ledgers, strict=True) if ledger is not None}


def _verifies(path: Path, ledger: Ledger) -> bool:
    """Returns whether all files of a ledger have their hashes."""
    try:
        for name, sha256 in ledger.files.items():
            ShardFile(name, path / name, sha256).verify()
    except CorruptStageError:
        return False
    return True


def _read_ledger(path: Path, shard: str) -> Ledger | None:
    """Returns a ledger; None if it is missing or damaged, so that its shard is made again."""
    try:
        text = (path / "ledger" / f"{shard}.json").read_text(encoding="utf-8")
        return Ledger.from_json(json.loads(text))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None

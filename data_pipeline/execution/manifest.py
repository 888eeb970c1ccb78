"""What a directory of shards holds, and the proof of it: addresses, ledgers, manifests.

A stage's directory is named by the hash of all that made it: the stage's configuration, the source
code and library versions behind it, and the addresses of its inputs. A changed setting therefore
leads to another directory, and nothing is ever served from a stale one.

    data/clean-3f2a91c07b55/
        shards/web-00000.jsonl.zst     what was kept
        dropped/web-00000.jsonl.zst    what was not, with the reason
        ledger/web-00000.json          counts and hashes of this shard, written after the shard
        manifest.json                  all ledgers, written last

A shard without its ledger, or a directory without its manifest, is unfinished work.
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
REQUESTS_AT_ONCE = 32  # to an object store, when many small files are read


class CorruptStageError(ValueError):
    """A file is not what its manifest says it is."""


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces. What is hashed is always this."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(config: Any) -> Any:
    """A configuration as JSON values: dataclasses become objects, enums their values.

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
    """What became of the documents of one source in one shard. Bytes are UTF-8 bytes of text."""

    tier: str = ""
    documents_in: int = 0
    bytes_in: int = 0
    kept: int = 0
    bytes_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        self.tier = self.tier or other.tier
        for name in ("documents_in", "bytes_in", "kept", "bytes_kept"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "bad", "changed"):
            getattr(self, name).update(getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        return {
            f.name: dict(sorted(v.items())) if isinstance(v, Counter) else v
            for f in dataclasses.fields(self)
            for v in [getattr(self, f.name)]
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Counts:
        counts = cls()
        for name, got in value.items():
            setattr(counts, name, Counter(got) if isinstance(got, dict) else got)
        return counts


@dataclass(slots=True)
class Ledger:
    """One shard's account; `files` maps what it wrote, relative to the directory, to sha256."""

    shard: str
    inputs: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sources: dict[str, Counts] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def of(self, source: str, tier: str = "") -> Counts:
        counts = self.sources.get(source)
        if counts is None:
            counts = self.sources[source] = Counts()
        counts.tier = counts.tier or tier
        return counts

    def to_json(self) -> dict[str, Any]:
        return {
            "shard": self.shard,
            "inputs": self.inputs,
            "files": self.files,
            "sources": {name: self.sources[name].to_json() for name in sorted(self.sources)},
            "extra": self.extra,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Ledger:
        sources = {name: Counts.from_json(v) for name, v in value["sources"].items()}
        return cls(value["shard"], value["inputs"], value["files"], sources, value["extra"])

    def write(self, directory: Path) -> None:
        write_text(
            directory / "ledger" / f"{self.shard}.json", json.dumps(self.to_json(), indent=1)
        )


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file that a worker reads: its path, its name, and the sha256 that its manifest promises."""

    name: str
    path: Path
    sha256: str

    def verify(self) -> None:
        """Raises CorruptStageError if the bytes on disk are not the promised ones."""
        with self.verified():
            pass

    @contextlib.contextmanager
    def verified(self) -> Iterator[Path]:
        """A local file with the promised bytes: the file itself, or a copy of an object.

        An object is fetched once, and what is read is what was checked. Raises as `verify`.
        """
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(local_copy(self.path))
                got = file_sha256(path)
            except FileNotFoundError:
                raise CorruptStageError(
                    f"{self.path} is missing: its manifest lists it with sha256 "
                    f"{self.sha256[:12]}.... Delete {self.path.parent.parent} and run again to "
                    f"make it anew."
                ) from None
            if got != self.sha256:
                raise CorruptStageError(
                    f"{self.path} has changed since it was written: got sha256 {got[:12]}..., its "
                    f"manifest says {self.sha256[:12]}.... Delete {self.path.parent.parent} and "
                    f"run again to make it anew."
                )
            yield path


@dataclass(frozen=True)
class Directory:
    """A finished stage directory."""

    path: Path
    manifest: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.manifest["address"])

    @cached_property
    def _ledgers(self) -> list[Ledger]:
        return [Ledger.from_json(value) for value in self.manifest["shards"]]

    @cached_property
    def _files(self) -> dict[str, str]:
        return {f: s for ledger in self._ledgers for f, s in ledger.files.items()}

    def ledgers(self) -> list[Ledger]:
        return list(self._ledgers)

    def counts(self) -> dict[str, Counts]:
        """Totals by source over all shards."""
        total = Ledger("all")
        for ledger in self._ledgers:
            for name, counts in ledger.sources.items():
                total.of(name).add(counts)
        return total.sources

    def tiers(self) -> dict[str, str]:
        """The tier of each source."""
        return {name: counts.tier for name, counts in self.counts().items()}

    def files(self, folder: str = "shards") -> list[ShardFile]:
        """The files under `folder`, in the order of the shards."""
        return [
            ShardFile(ledger.shard, self.path / file, sha256)
            for ledger in self._ledgers
            for file, sha256 in sorted(ledger.files.items())
            if file.startswith(folder + "/")
        ]

    def file(self, name: str) -> ShardFile:
        """The one file of this name (relative to the directory)."""
        if name not in self._files:
            some = ", ".join(sorted(self._files)[:20])
            raise CorruptStageError(f"{self.path} has no file {name!r}: it lists {some}")
        return ShardFile(name, self.path / name, self._files[name])


def load(path: Path) -> Directory | None:
    """The finished directory at `path`, or None where its manifest is not yet written.

    Raises CorruptStageError where the manifest is unreadable, of another schema, or lists a file that
    is not there.
    """
    file = path / "manifest.json"
    if not file.exists():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptStageError(
            f"{file} is no JSON ({error}). Delete {path} and run again."
        ) from None
    if manifest.get("schema") != SCHEMA:
        raise CorruptStageError(
            f"{file} has schema {manifest.get('schema')!r}, this version writes {SCHEMA}. "
            f"Delete {path} and run again."
        )
    directory = Directory(path, manifest)
    there = _Listings(path)
    for ledger in directory.ledgers():
        for name, sha256 in ledger.files.items():
            if name not in there:
                ShardFile(name, path / name, sha256).verify()
    return directory


class _Listings:
    """Which files lie below a directory, from one listing a folder instead of a request a file."""

    def __init__(self, path: Path):
        self._path = path
        self._folders: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = list_names(self._path / folder)
        return file in self._folders[folder]


def finished_ledgers(path: Path, shards: Iterable[str]) -> dict[str, Ledger]:
    """Of these shards, the ledgers that an interrupted run had finished, and whose files are whole.

    A local file is whole if its hash says so. An object is whole if it is there, as its upload
    was all or nothing; whoever reads it checks the hash.
    """
    there = _Listings(path)
    begun = [shard for shard in shards if f"ledger/{shard}.json" in there]
    return {
        shard: ledger
        for shard, ledger in read_ledgers(path, begun).items()
        if all(name in there for name in ledger.files)
        and (is_remote(path) or _verifies(path, ledger))
    }


def read_ledgers(path: Path, shards: Sequence[str]) -> dict[str, Ledger]:
    """The ledgers of those shards that have a readable one."""
    workers = REQUESTS_AT_ONCE if is_remote(path) else 1
    with ThreadPoolExecutor(workers) as pool:
        ledgers = pool.map(lambda shard: _read_ledger(path, shard), shards)
        return {s: ledger for s, ledger in zip(shards, ledgers, strict=True) if ledger is not None}


def _verifies(path: Path, ledger: Ledger) -> bool:
    try:
        for name, sha256 in ledger.files.items():
            ShardFile(name, path / name, sha256).verify()
    except CorruptStageError:
        return False
    return True


def _read_ledger(path: Path, shard: str) -> Ledger | None:
    """A damaged leftover is made again, not trusted."""
    try:
        text = (path / "ledger" / f"{shard}.json").read_text(encoding="utf-8")
        return Ledger.from_json(json.loads(text))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None

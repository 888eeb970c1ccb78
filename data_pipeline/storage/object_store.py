"""Object stores (gs://, s3://) under pathlib's interface, so that a stage need not know of them.

`Path` in this package means a local pathlib.Path or a ObjectStorePath: `storage_path` makes the one
that an address asks for. A ObjectStorePath goes through fsspec and not through etils.epath, which hands
addresses to TensorFlow's file systems wherever TensorFlow is installed: those have no s3, and a
cleaning worker would load TensorFlow to open a file.

An object appears under its name when its upload is complete, and not before; there are no folders.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

SCHEMES = ("gs", "s3")
# What one request asks for: little where a file is looked into, more and more where it is read on.
FIRST_BYTES, MOST_BYTES = 64 << 10, 8 << 20
# What tells that an object is no longer the same, the surest first.
_VERSIONS = ("generation", "ETag", "etag", "md5Hash", "LastModified", "updated", "mtime")


class ObjectStoreError(OSError):
    """An object store did not do what it was asked to."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A file as a folder's listing shows it: its name below the folder, bytes, and version."""

    name: str
    bytes: int
    version: str


def storage_path(address: str | Path) -> Path:
    """The path of an address: s3://bucket/key, gs://bucket/key, or a local one ("~" is home).

    Raises ValueError for another kind of address.

    >>> storage_path("s3://bucket/run/") / "a.txt"
    ObjectStorePath('s3://bucket/run/a.txt')
    """
    if isinstance(address, PurePosixPath):
        return cast(Path, address)
    scheme, separator, _ = str(address).partition("://")
    if not separator:
        return Path(address).expanduser()
    if scheme not in SCHEMES:
        raise ValueError(
            f"{address}: got an address of kind {scheme}://, expected a local path, "
            f"{' or '.join(f'{known}://BUCKET/...' for known in SCHEMES)}"
        )
    return cast(Path, ObjectStorePath(address))


def is_remote(path: Path) -> bool:
    return isinstance(path, ObjectStorePath)


class ObjectStorePath(PurePosixPath):
    """An object, or what begins the names of several: pathlib's methods, as far as they make sense.

    Raises FileNotFoundError and PermissionError as files do, ObjectStoreError for whatever else fails.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":")
        return f"{scheme}://{posixpath.normpath(rest).lstrip('/')}"

    __fspath__ = __str__

    def __repr__(self) -> str:
        return f"ObjectStorePath({str(self)!r})"

    def as_posix(self) -> str:
        return str(self)

    def expanduser(self) -> ObjectStorePath:
        return self

    def resolve(self, strict: bool = False) -> ObjectStorePath:
        return ObjectStorePath(str(self))

    def open(self, mode: str = "r", encoding: str | None = None, **ignored: Any) -> IO[Any]:
        """A file for reading; writing goes through disk.py, which uploads what is whole."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self} is opened with mode {mode!r}, expected 'r' or 'rb'")
        with _explained(self):
            binary = io.BufferedReader(_ObjectFile(self), FIRST_BYTES)
        return binary if mode == "rb" else io.TextIOWrapper(binary, encoding=encoding or "utf-8")

    def read_bytes(self) -> bytes:
        with _explained(self):
            return cast(bytes, _filesystem_of(self).cat_file(str(self)))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def exists(self) -> bool:
        with _explained(self):
            return bool(_filesystem_of(self).exists(str(self)))

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def _kind(self) -> str:
        """ "file", "directory", or "" where nothing is.

        fsspec's isfile and isdir answer no to a store that refuses access or does not answer.
        """
        try:
            with _explained(self):
                return str(_filesystem_of(self).info(str(self))["type"])
        except FileNotFoundError:
            return ""

    def iterdir(self) -> Iterator[ObjectStorePath]:
        with _explained(self):
            found = _filesystem_of(self).ls(str(self), detail=False)
        yield from (self / posixpath.basename(name.rstrip("/")) for name in found)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as something lies in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _explained(self):
                _filesystem_of(self).rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    # What pathlib has not.

    def upload(self, local: Path) -> None:
        """Puts a local file here, whole or not at all, in place of what was here."""
        with _explained(self):
            _filesystem_of(self).put_file(str(local), str(self))

    def download(self, local: Path) -> None:
        with _explained(self):
            _filesystem_of(self).get_file(str(self), str(local))

    def info(self) -> ObjectInfo:
        """This object as a listing shows it, under its own name."""
        with _explained(self):
            return _listed(self.name, _filesystem_of(self).info(str(self)))

    def walk_files(self) -> Iterator[ObjectInfo]:
        """Every object below this name, in no order."""
        with _explained(self):
            store = _filesystem_of(self)
            found = store.find(str(self), detail=True)
        prefix = store._strip_protocol(str(self)).rstrip("/") + "/"
        for name, info in found.items():
            # Not the object of this very name, nor one that stands for an empty folder.
            if name.startswith(prefix) and not name.endswith("/"):
                yield _listed(name.removeprefix(prefix), info)


class _ObjectFile(io.RawIOBase):
    """An object as a raw file, by requests for ranges of its bytes."""

    def __init__(self, path: ObjectStorePath):
        super().__init__()
        self._path = path
        self._size = path.info().bytes
        self._at = 0
        self._window = FIRST_BYTES
        self._held, self._begin = b"", 0  # what the last request brought, and where it begins

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = self._begin + len(self._held)
        if not self._begin <= self._at < end:
            self._fetch(len(buffer), goes_on=bool(self._held) and self._at == end)
        data = memoryview(self._held)[self._at - self._begin :][: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _fetch(self, wanted: int, goes_on: bool) -> None:
        self._window = min(2 * self._window, MOST_BYTES) if goes_on else FIRST_BYTES
        stop = min(self._at + max(wanted, self._window), self._size)
        self._begin, self._held = self._at, b""
        if self._at < stop:
            with _explained(self._path):
                self._held = _filesystem_of(self._path).cat_file(
                    str(self._path), start=self._at, end=stop
                )


def _listed(name: str, info: dict[str, Any]) -> ObjectInfo:
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return ObjectInfo(name, int(info.get("size") or 0), version)


def _filesystem_of(path: ObjectStorePath) -> Any:
    return _file_system(str(path).partition("://")[0])


@cache
def _file_system(scheme: str) -> Any:
    import fsspec

    # Listings are not kept: other processes write into the folders that this one lists.
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextlib.contextmanager
def _explained(path: ObjectStorePath) -> Iterator[None]:
    """Every error becomes one of OSError's kinds that names the address, and can be pickled."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "there is no such object", str(path)) from error
    except ImportError as error:
        raise ObjectStoreError(
            f"{path}: {error}. Addresses of object stores need `pip install hare-jax[remote]`."
        ) from error
    except Exception as error:  # the clients' own errors are of no common kind
        # gcsfs raises a plain OSError where a bucket refuses access.
        if isinstance(error, PermissionError) or str(error).startswith("Forbidden: "):
            raise PermissionError(
                13, f"the object store refuses access ({error}); check the credentials", str(path)
            ) from error
        raise ObjectStoreError(
            f"{path}: the object store does not answer as it should "
            f"({type(error).__name__}: {error}). Check the address, the credentials and the "
            "network; finished shards are kept and the same command goes on from here."
        ) from error

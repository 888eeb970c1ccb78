"""Objects in object stores (gs://, s3://) with the interface of pathlib.

`Path` in this package means a local pathlib.Path or an ObjectStorePath; `storage_path` returns the
one that fits an address. Objects are accessed by fsspec and not by etils.epath: epath passes
addresses to TensorFlow's file systems if TensorFlow is installed, which have no s3, and a cleaning
worker would load TensorFlow to open a file.

An object appears under its name only when its upload is complete. There are no folders.
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
# Bytes per request: the first one, and the limit of sequential reads, which double it.
FIRST_BYTES, MAX_BYTES = 64 << 10, 8 << 20
# Keys of fsspec's info that identify the version of an object, the most reliable first.
_VERSIONS = ("generation", "ETag", "etag", "md5Hash", "LastModified", "updated", "mtime")


class ObjectStoreError(OSError):
    """A request to an object store failed."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An entry of a listing: the name below the folder, the size in bytes, and the version."""

    name: str
    bytes: int
    version: str


def storage_path(address: str | Path) -> Path:
    """Returns the path of an address: s3://bucket/key, gs://bucket/key, or a local path.

    Raises:
      ValueError: the address is of another kind.

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
            f"{address}: got the scheme {scheme}://, expected a local path, "
            f"{' or '.join(f'{known}://BUCKET/...' for known in SCHEMES)}"
        )
    return cast(Path, ObjectStorePath(address))


def is_remote(path: Path) -> bool:
    """Returns whether a path is in an object store."""
    return isinstance(path, ObjectStorePath)


class ObjectStorePath(PurePosixPath):
    """An object or key prefix, with the subset of pathlib's interface that applies.

    Methods raise FileNotFoundError and PermissionError as for files, and ObjectStoreError
    otherwise.
    """

    def __str__(self) -> str:
        """Returns the address."""
        scheme, _, rest = super().__str__().partition(":")
        return f"{scheme}://{posixpath.normpath(rest).lstrip('/')}"

    __fspath__ = __str__

    def __repr__(self) -> str:
        """Returns the call that creates this path."""
        return f"ObjectStorePath({str(self)!r})"

    def as_posix(self) -> str:
        """Returns the address."""
        return str(self)

    def expanduser(self) -> ObjectStorePath:
        """Returns itself."""
        return self

    def resolve(self, strict: bool = False) -> ObjectStorePath:
        """Returns the normalized path."""
        return ObjectStorePath(str(self))

    def open(self, mode: str = "r", encoding: str | None = None, **ignored: Any) -> IO[Any]:
        """Opens an object for reading.

        Objects are written by atomic.py, which uploads complete files.
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: got mode {mode!r}, expected 'r' or 'rb'")
        with _explain_errors(self):
            binary = io.BufferedReader(_ObjectFile(self), FIRST_BYTES)
        return binary if mode == "rb" else io.TextIOWrapper(binary, encoding=encoding or "utf-8")

    def read_bytes(self) -> bytes:
        """Returns the content."""
        with _explain_errors(self):
            return cast(bytes, _filesystem_of(self).cat_file(str(self)))

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Returns the content as text."""
        return self.read_bytes().decode(encoding, errors)

    def exists(self) -> bool:
        """Returns whether there is an object, or a prefix of objects, with this name."""
        with _explain_errors(self):
            return bool(_filesystem_of(self).exists(str(self)))

    def is_file(self) -> bool:
        """Returns whether there is an object with this name."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Returns whether this name is a prefix of objects."""
        return self._kind() == "directory"

    def _kind(self) -> str:
        """Returns "file", "directory", or "" if nothing has this name.

        fsspec's isfile and isdir return False also if the store refuses access or does not answer.
        """
        try:
            with _explain_errors(self):
                return str(_filesystem_of(self).info(str(self))["type"])
        except FileNotFoundError:
            return ""

    def iterdir(self) -> Iterator[ObjectStorePath]:
        """Yields the objects and prefixes directly below this name."""
        with _explain_errors(self):
            found = _filesystem_of(self).ls(str(self), detail=False)
        yield from (self / posixpath.basename(name.rstrip("/")) for name in found)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder exists as soon as it contains an object."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes the object."""
        try:
            with _explain_errors(self):
                _filesystem_of(self).rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    # Methods beyond pathlib.

    def upload(self, local: Path) -> None:
        """Replaces the object by a local file, completely or not at all."""
        with _explain_errors(self):
            _filesystem_of(self).put_file(str(local), str(self))

    def download(self, local: Path) -> None:
        """Copies the object to a local file."""
        with _explain_errors(self):
            _filesystem_of(self).get_file(str(self), str(local))

    def info(self) -> ObjectInfo:
        """Returns the entry of this object in a listing, with its own name."""
        with _explain_errors(self):
            return _object_info(self.name, _filesystem_of(self).info(str(self)))

    def walk_files(self) -> Iterator[ObjectInfo]:
        """Yields every object below this name, in no particular order."""
        with _explain_errors(self):
            store = _filesystem_of(self)
            found = store.find(str(self), detail=True)
        prefix = store._strip_protocol(str(self)).rstrip("/") + "/"
        for name, info in found.items():
            # Skips the object of this very name, and placeholders for empty folders.
            if name.startswith(prefix) and not name.endswith("/"):
                yield _object_info(name.removeprefix(prefix), info)


class _ObjectFile(io.RawIOBase):
    """An object as a raw file, read by requests for byte ranges."""

    def __init__(self, path: ObjectStorePath):
        """Requests the size."""
        super().__init__()
        self._path = path
        self._size = path.info().bytes
        self._position = 0
        self._window = FIRST_BYTES
        self._buffer, self._buffer_start = b"", 0  # bytes of the last request, and their offset

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position."""
        self._position = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        )
        return self._position

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; returns the number of bytes."""
        end = self._buffer_start + len(self._buffer)
        if not self._buffer_start <= self._position < end:
            self._fetch(len(buffer), continues=bool(self._buffer) and self._position == end)
        data = memoryview(self._buffer)[self._position - self._buffer_start :][: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch(self, wanted: int, continues: bool) -> None:
        """Requests the next bytes, at least `wanted`.

        Each request that continues the one before doubles the range, so that sequential reads need
        few requests and random reads transfer few bytes.
        """
        self._window = min(2 * self._window, MAX_BYTES) if continues else FIRST_BYTES
        stop = min(self._position + max(wanted, self._window), self._size)
        self._buffer_start, self._buffer = self._position, b""
        if self._position < stop:
            with _explain_errors(self._path):
                self._buffer = _filesystem_of(self._path).cat_file(
                    str(self._path), start=self._position, end=stop
                )


def _object_info(name: str, info: dict[str, Any]) -> ObjectInfo:
    """Returns an entry from the dictionary of fsspec."""
    version = next((str(info[key]) for key in _VERSIONS if info.get(key)), "")
    return ObjectInfo(name, int(info.get("size") or 0), version)


def _filesystem_of(path: ObjectStorePath) -> Any:
    """Returns the file system of a path."""
    return _file_system(str(path).partition("://")[0])


@cache
def _file_system(scheme: str) -> Any:
    """Returns the file system of a scheme, one per process."""
    import fsspec

    # Listings are not cached: other processes write into the folders that this one lists.
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextlib.contextmanager
def _explain_errors(path: ObjectStorePath) -> Iterator[None]:
    """Converts every error into an OSError that names the address and can be pickled."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "there is no such object", str(path)) from error
    except ImportError as error:
        raise ObjectStoreError(
            f"{path}: {error}. Object stores need the extra: pip install -e '.[remote]'."
        ) from error
    except Exception as error:  # the clients' errors have no common base class
        # gcsfs raises a plain OSError if a bucket refuses access.
        if isinstance(error, PermissionError) or str(error).startswith("Forbidden: "):
            raise PermissionError(
                13, f"the object store refuses access ({error}); check the credentials", str(path)
            ) from error
        raise ObjectStoreError(
            f"{path}: the object store failed ({type(error).__name__}: {error}). Check the "
            "address, the credentials and the network; finished shards are kept, and the same "
            "command continues from here."
        ) from error

"""Verification of files against the hashes in their manifest; every byte is hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from hare_jax.data.retries import retried

PROGRESS_SECONDS = 5
RECORD_SECONDS = 10  # of hashing that a kill can lose
STAT_THREADS = 16  # a network file system answers many questions at once
Stamp = tuple[str, str, int, int]  # path, sha256, size in bytes, mtime_ns


def verify(
    expected: Mapping[Path, str],
    cache_dir: Path | None = None,
    share: tuple[int, int] = (0, 1),
    also: Callable[[Path], object] = lambda path: None,
) -> None:
    """Compares the sha256 of each file with the expected one.

    A file whose hash was verified before is hashed again only if its size or modification time has
    changed since: a resumed run starts in seconds instead of hours, and an interrupted verification
    continues where it was. Inode numbers do not count, since those of network file systems and
    mounted buckets may be others at each mount. Damage that changes neither size nor time, such as
    that of a failing disk, is then not detected; delete verified-*.json to hash all bytes again.

    Args:
      expected: the sha256 of each file, in hexadecimal digits.
      cache_dir: the folder of verified-*.json; None: hash every file.
      share: (i, n) means the i-th of n processes that verify the same files. Each process looks at
        every n-th file only, and writes a file of its own.
      also: called with each file that is hashed; raises if the file is wrong otherwise.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file has another hash; the message has both values.
    """
    part = list(expected)[share[0] :: share[1]]
    # Taken before the bytes are read, since a file may change meanwhile.
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        stamps = dict(
            zip(part, pool.map(_stamp, part, (expected[path] for path in part)), strict=True)
        )
    known = _read_verified(cache_dir.glob("verified-*.json")) if cache_dir is not None else set()
    new = {path: stamp for path, stamp in stamps.items() if stamp not in known}
    verified: list[Stamp] = []
    written = time.monotonic()

    def write() -> None:
        if cache_dir is not None and verified:
            _write_verified(cache_dir / f"verified-{share[0]}.json", verified)

    try:
        for path in _hash_all(new, also):
            verified.append(new[path])
            if time.monotonic() - written >= RECORD_SECONDS:
                write()
                written = time.monotonic()
    finally:
        write()


def _hash_all(stamps: Mapping[Path, Stamp], also: Callable[[Path], object]) -> Iterator[Path]:
    """Hashes files in threads and yields each when it is verified; prints the progress."""
    total = sum(size for _, _, size, _ in stamps.values())
    started = printed = time.monotonic()
    done = 0

    def check(path: Path) -> None:
        _check(path, stamps[path][1])
        also(path)

    pool = ThreadPoolExecutor()  # hashing releases the global interpreter lock
    try:
        running = {pool.submit(check, path): path for path in stamps}
        for future in as_completed(running):
            future.result()
            yield running[future]
            done += stamps[running[future]][2]
            now = time.monotonic()
            if now - printed >= PROGRESS_SECONDS:
                printed = now
                print(
                    f"  hashed {done / 1e9:,.1f} of {total / 1e9:,.1f} GB of baked "
                    f"data, {done / 1e6 / (now - started):,.0f} MB/s",
                    flush=True,
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after the first mismatch, hash no further files


def _check(path: Path, expected: str) -> None:
    """Raises ValueError if a file does not have the expected sha256."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    got = retried(digest, str(path))
    if got != expected:
        raise ValueError(
            f"{path}: got sha256 {got}, expected {expected} (mixture.json); copy or bake the data "
            "again"
        )


def _stamp(path: Path, sha256: str) -> Stamp:
    """Returns what identifies the verified content of a file; raises if the file is missing."""
    try:
        status = retried(path.stat, str(path))
    except FileNotFoundError:
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(
            f"{path}: no such file, but mixture.json lists it; bake the data again"
        )
    return (str(path.absolute()), sha256, status.st_size, status.st_mtime_ns)


def _read_verified(files: Iterable[Path]) -> set[Stamp]:
    """Returns the stamps in these files; a damaged file is ignored."""
    stamps: set[Stamp] = set()
    for path in files:
        with suppress(OSError, ValueError, TypeError):
            read = {_as_stamp(*fields) for fields in json.loads(path.read_text("utf-8"))}
            stamps |= read
    return stamps


def _as_stamp(path: str, sha256: str, size: int, mtime_ns: int) -> Stamp:
    """Returns the fields of an entry as a stamp; raises TypeError if their number is another."""
    return (path, sha256, size, mtime_ns)


def _write_verified(file: Path, verified: Sequence[Stamp]) -> None:
    """Adds stamps to the file of this process, which no other process of the run writes.

    It has one stamp of a path, and none of files that are gone, so that it does not grow with the
    number of starts.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    names = {stamp[0] for stamp in verified}
    before = (stamp for stamp in _read_verified([file]) if stamp[0] not in names)
    stamps = [*verified, *(stamp for stamp in before if Path(stamp[0]).exists())]
    # A name of its own, since two runs may share the folder.
    handle, part = tempfile.mkstemp(".part", file.name, file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(sorted(stamps), indent=0) + "\n")
        Path(part).replace(file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise

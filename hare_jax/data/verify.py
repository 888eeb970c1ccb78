"""Verification of files against the hashes in their manifest; every byte is hashed once."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

from hare_jax.files import write_text

PROGRESS_SECONDS = 5
Stamp = tuple[str, str, int, int, int]  # path, sha256, size in bytes, mtime_ns, inode


def verify(
    expected: Mapping[Path, str], cache_dir: Path | None = None, share: tuple[int, int] = (0, 1)
) -> None:
    """Compares the sha256 of each file with the expected one.

    A file whose hash was verified before is hashed again only if its size, modification time or
    inode has changed since: a resumed run starts in seconds instead of hours. Damage that changes
    none of the three, such as that of a failing disk, is then not detected; delete verified-*.json
    to hash all bytes again.

    Args:
      expected: the sha256 of each file, in hexadecimal digits.
      cache_dir: the folder of verified-*.json; None: hash every file.
      share: (i, n) means the i-th of n processes that verify the same files. Each process hashes
        every n-th file; all of them check that every file exists.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file has another hash; the message has both values.
    """
    # Taken before the bytes are read, since a file may change meanwhile.
    stamps = {path: _stamp(path, sha256) for path, sha256 in expected.items()}
    verified = _read_verified(cache_dir) if cache_dir is not None else set()
    part = list(expected)[share[0] :: share[1]]
    new = [path for path in part if stamps[path] not in verified]
    _hash_all({path: expected[path] for path in new})
    if cache_dir is not None and new:
        _write_verified(cache_dir, share[0], verified | {stamps[path] for path in new})


def _hash_all(expected: Mapping[Path, str]) -> None:
    """Hashes files in threads and prints the progress every PROGRESS_SECONDS."""
    sizes = {path: path.stat().st_size for path in expected}
    started = printed = time.monotonic()
    done = 0
    pool = ThreadPoolExecutor()  # hashing releases the global interpreter lock
    try:
        running = {pool.submit(_check, path, sha256): path for path, sha256 in expected.items()}
        for future in as_completed(running):
            future.result()
            done += sizes[running[future]]
            now = time.monotonic()
            if now - printed >= PROGRESS_SECONDS:
                printed = now
                print(
                    f"  hashed {done / 1e9:,.1f} of {sum(sizes.values()) / 1e9:,.1f} GB of baked "
                    f"data, {done / 1e6 / (now - started):,.0f} MB/s",
                    flush=True,
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after the first mismatch, hash no further files


def _check(path: Path, expected: str) -> None:
    """Raises ValueError if a file does not have the expected sha256."""
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise ValueError(
            f"{path}: got sha256 {got}, expected {expected} (mixture.json); copy or bake the data "
            "again"
        )


def _stamp(path: Path, sha256: str) -> Stamp:
    """Returns what identifies the verified content of a file; raises if the file is missing."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file, but mixture.json lists it; bake the data again"
        )
    stat = path.stat()
    return (str(path.absolute()), sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _read_verified(cache_dir: Path) -> set[Stamp]:
    """Returns the stamps of all files that were verified; a damaged cache file is ignored."""
    stamps = set()
    for path in cache_dir.glob("verified-*.json"):
        with suppress(OSError, ValueError, TypeError):
            stamps |= {tuple(stamp) for stamp in json.loads(path.read_text("utf-8"))}
    return stamps


def _write_verified(cache_dir: Path, process: int, stamps: Iterable[Stamp]) -> None:
    """Writes the stamps to the cache file of this process, which no other process writes."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / f"verified-{socket.gethostname()}-{process}.json"
    write_text(path, json.dumps(sorted(stamps), indent=0) + "\n")

"""Whether files are what their manifest says: every byte is hashed, once."""

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
Stamp = tuple[str, str, int, int, int]  # path, sha256, size, mtime_ns, inode


def verify(
    expected: Mapping[Path, str], memory: Path | None = None, share: tuple[int, int] = (0, 1)
) -> None:
    """Compares the sha256 of each file with the one expected.

    `memory`: the folder of verified-*.json. A file is hashed again only when its size, its time of
    modification or its inode is not what it was when its bytes were found right: seconds instead of
    hours for a run that goes on. What changes none of the three, such as a failing disk, is not
    seen then; delete those files to have all bytes read again.

    `share`: (i, n) is the i-th of n processes that look at the same files, of which each hashes its
    part. All see that the files are there.

    Raises FileNotFoundError or ValueError, naming a file and both values.
    """
    found = {path: _stamp(path, sha256) for path, sha256 in expected.items()}
    known = _known(memory) if memory is not None else set()
    part = list(expected)[share[0] :: share[1]]
    new = [path for path in part if found[path] not in known]
    _hash_all({path: expected[path] for path in new})
    if memory is not None and new:
        _remember(memory, share[0], known | {found[path] for path in new})


def _hash_all(expected: Mapping[Path, str]) -> None:
    sizes = {path: path.stat().st_size for path in expected}
    started = said = time.monotonic()
    done = 0
    pool = ThreadPoolExecutor()  # hashing leaves the interpreter to the other threads
    try:
        running = {pool.submit(_check, path, sha256): path for path, sha256 in expected.items()}
        for future in as_completed(running):
            future.result()
            done += sizes[running[future]]
            now = time.monotonic()
            if now - said >= PROGRESS_SECONDS:
                said = now
                print(
                    f"  checked {done / 1e9:,.1f} of {sum(sizes.values()) / 1e9:,.1f} GB of baked "
                    f"data, {done / 1e6 / (now - started):,.0f} MB/s",
                    flush=True,
                )
    finally:
        pool.shutdown(cancel_futures=True)  # after the first mismatch the others do not matter


def _check(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise ValueError(f"{path}: sha256 {got}, mixture.json says {expected}; bake the data again")


def _stamp(path: Path, sha256: str) -> Stamp:
    """What a file is known by; taken before its bytes are read, since it may change meanwhile."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but mixture.json names it; bake again")
    stat = path.stat()
    return (str(path.absolute()), sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _known(memory: Path) -> set[Stamp]:
    """The stamps of all files that were found right; a lost or damaged memory costs time only."""
    known = set()
    for path in memory.glob("verified-*.json"):
        with suppress(OSError, ValueError, TypeError):
            known |= {tuple(stamp) for stamp in json.loads(path.read_text("utf-8"))}
    return known


def _remember(memory: Path, process: int, stamps: Iterable[Stamp]) -> None:
    """Each process of each machine has a file of its own: none writes over another's."""
    memory.mkdir(parents=True, exist_ok=True)
    path = memory / f"verified-{socket.gethostname()}-{process}.json"
    write_text(path, json.dumps(sorted(stamps), indent=0) + "\n")

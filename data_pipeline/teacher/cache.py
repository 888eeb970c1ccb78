"""Answers that came, kept for good: what has been paid for is never asked again.

One SQLite file, `answers.sqlite`: a million answers are one file, a lookup is one index, a process
that is killed at any moment leaves a transaction that the next reader takes back, and several
processes may read and write at once. A row holds a key (teacher/wire.py), the compressed answer,
and a checksum of both; a row whose checksum does not fit counts as absent.

The file has a write-ahead log, synced at each commit; commits take many answers at once. Such a log
needs memory that all processes share, so the folder belongs on a local disk, or on a network file
system with locks (NFS 4, Lustre with flock) where one machine at a time uses it: machine.py sees to
that. A mounted bucket has no locks: keep the folder on a local disk and copy it after the run.
"""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from data_pipeline.storage.atomic import DiskFullError
from data_pipeline.teacher import machine

FILE = "answers.sqlite"
FORMAT = 1
APPLICATION = 0x48415245  # "HARE", in the header of the file
LOCK_S = 60.0  # how long to wait for another process to finish its commit

_TABLES = f"""
CREATE TABLE IF NOT EXISTS answers (
  key BLOB PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS spent (
  model TEXT PRIMARY KEY, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""
# The first answer to a key stays, so that two processes that asked at once agree ever after.
_PUT = """
INSERT INTO answers VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE
SET value = excluded.value, crc = excluded.crc WHERE NOT sound(key, value, crc)
"""
_SPEND = """
INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (model) DO UPDATE
SET prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens
"""


class CorruptCacheError(ValueError):
    """The file is no cache of answers, or not one that can be read."""


def _crc(key: bytes, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(key))


class TeacherCache:
    """The answers in a folder, by key. May be used from several threads and processes.

    Raises CorruptCacheError, DiskFullError, OSError.

    >>> with Cache(folder) as cache:           # doctest: +SKIP
    ...     cache.put({key: b"answer"}, model="m", prompt_tokens=10, completion_tokens=5)
    ...     cache.get([key])
    {key: b'answer'}
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._stack = ExitStack()
        with ExitStack() as stack, self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(machine.claim(folder))
            # One connection reads while the other one waits for the disk.
            self._writing = stack.enter_context(closing(self._connect()))
            self._prepare()
            self._reading = stack.enter_context(closing(self._connect()))
            self._stack = stack.pop_all()
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> TeacherCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What is known of these keys."""
        with self._read_lock, self._explained():
            return _select(self._reading, keys)

    def put(
        self,
        values: dict[bytes, bytes],
        *,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> dict[bytes, bytes]:
        """Keeps answers, and the tokens that they took, in one commit; all of it or none.

        Returns the value that is kept under each key: another process may have been first.
        """
        packed = {key: zlib.compress(value) for key, value in values.items()}
        with self._write_lock, self._explained():
            with self._transaction() as base:
                base.executemany(_PUT, [(k, v, _crc(k, v)) for k, v in packed.items()])
                base.execute(_SPEND, (model, prompt_tokens, completion_tokens))
            return _select(self._writing, list(values))

    def spent(self, model: str) -> tuple[int, int]:
        """(prompt tokens, completion tokens) of all requests to a model, failed ones included."""
        query = "SELECT prompt_tokens, completion_tokens FROM spent WHERE model = ?"
        with self._read_lock, self._explained():
            row = self._reading.execute(query, (model,)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def __len__(self) -> int:
        with self._read_lock, self._explained():
            return int(self._reading.execute("SELECT count(*) FROM answers").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(
            self.path, timeout=LOCK_S, isolation_level=None, check_same_thread=False
        )
        base.create_function(
            "sound", 3, lambda key, packed, crc: crc == _crc(key, packed), deterministic=True
        )
        return base

    def _prepare(self) -> None:
        """Makes the tables of a new file; refuses a file of something else."""
        application, version = (
            self._writing.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if (application, version) not in ((APPLICATION, FORMAT), (0, 0)):
            raise CorruptCacheError(
                f"{self.path}: expected answers of a teacher in format {FORMAT}, got an SQLite "
                f"file of application {application:#x} and format {version}. Move it away, or "
                "set teacher.cache to another folder."
            )
        self._writing.execute("PRAGMA journal_mode = WAL")
        self._writing.execute("PRAGMA synchronous = FULL")
        if not version:
            with self._transaction() as base:
                for statement in _TABLES.split(";"):
                    base.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writing.execute("BEGIN IMMEDIATE")
        try:
            yield self._writing
            self._writing.execute("COMMIT")
        except BaseException:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of SQLite in our own words."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise DiskFullError(
                    28,
                    "No space left on device. All answers so far are kept: free some space and "
                    "the same command goes on from here. It was writing",
                    str(self.path),
                ) from None
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise CorruptCacheError(
                    f"{self.path} is damaged ({error}). Save what can be saved with "
                    f"`sqlite3 {FILE} .recover`, or move the file away; then what it held is "
                    "asked for anew."
                ) from None
            raise OSError(
                f"{self.path}: {error}. Answers are kept on a local disk, or a network file system "
                "with locks, where this user may write: set teacher.cache to such a folder."
            ) from None


def _select(base: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    marks = ",".join("?" * len(keys))
    rows = base.execute(f"SELECT key, value, crc FROM answers WHERE key IN ({marks})", list(keys))
    return {key: zlib.decompress(packed) for key, packed, crc in rows if crc == _crc(key, packed)}

"""A cache of answers on disk: what was paid for is never requested again.

One SQLite file, `answers.sqlite`. A lookup is one index; a process that is killed leaves a
transaction that the next reader rolls back; several processes may read and write at once. A row
contains a key (teacher/wire.py), the compressed answer, and a checksum of both; a row with a wrong
checksum counts as missing.

The file has a write-ahead log that is synced at each commit; commits write many answers at once.
The log needs memory that all processes share, so the folder must be on a local disk, or on a
network file system with locks (NFS 4, Lustre with flock) that one machine at a time uses
(machine.py checks this). A mounted bucket has no locks: keep the folder on a local disk and copy it
after the run.
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
LOCK_S = 60.0  # wait for the commit of another process

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
# The first answer to a key is kept, so that two processes that requested it at once agree.
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
    """The file is not a cache of answers, or is damaged."""


def _crc(key: bytes, packed: bytes) -> int:
    """Returns the checksum of a row."""
    return zlib.crc32(packed, zlib.crc32(key))


class TeacherCache:
    """The answers in a folder, by key, for several threads and processes.

    >>> with TeacherCache(folder) as cache:           # doctest: +SKIP
    ...     cache.put({key: b"answer"}, model="m", prompt_tokens=10, completion_tokens=5)
    ...     cache.get([key])
    {key: b'answer'}
    """

    def __init__(self, folder: Path) -> None:
        """Opens or creates the cache.

        Raises:
          CorruptCacheError: the file is something else, or damaged.
          DiskFullError: there is no space left.
          OSError: the folder cannot be used, or another machine uses it.
        """
        self.path = folder / FILE
        self._stack = ExitStack()
        with ExitStack() as stack, self._explain_errors():
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(machine.claim(folder))
            # One connection reads while the other waits for the disk.
            self._writing = stack.enter_context(closing(self._connect()))
            self._prepare()
            self._reading = stack.enter_context(closing(self._connect()))
            self._stack = stack.pop_all()
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> TeacherCache:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._stack.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns the answers that are stored under these keys."""
        with self._read_lock, self._explain_errors():
            return _select(self._reading, keys)

    def put(
        self,
        values: dict[bytes, bytes],
        *,
        model: str,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> dict[bytes, bytes]:
        """Stores answers, and the tokens that they took, in one commit.

        Args:
          values: answers by key.
          model: the model that wrote them.
          prompt_tokens: tokens of all their prompts.
          completion_tokens: tokens of all answers.

        Returns:
          The value stored under each key: another process may have stored one first.
        """
        packed = {key: zlib.compress(value) for key, value in values.items()}
        with self._write_lock, self._explain_errors():
            with self._transaction() as base:
                base.executemany(_PUT, [(k, v, _crc(k, v)) for k, v in packed.items()])
                base.execute(_SPEND, (model, prompt_tokens, completion_tokens))
            return _select(self._writing, list(values))

    def spent(self, model: str) -> tuple[int, int]:
        """Returns (prompt, completion) tokens of all requests to a model, also of failed ones."""
        query = "SELECT prompt_tokens, completion_tokens FROM spent WHERE model = ?"
        with self._read_lock, self._explain_errors():
            row = self._reading.execute(query, (model,)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def __len__(self) -> int:
        """Returns the number of answers."""
        with self._read_lock, self._explain_errors():
            return int(self._reading.execute("SELECT count(*) FROM answers").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        """Opens a connection that knows the checksum."""
        base = sqlite3.connect(
            self.path, timeout=LOCK_S, isolation_level=None, check_same_thread=False
        )
        base.create_function(
            "sound", 3, lambda key, packed, crc: crc == _crc(key, packed), deterministic=True
        )
        return base

    def _prepare(self) -> None:
        """Creates the tables of a new file; refuses a file of something else."""
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
        """Commits at the end of the context, or rolls back after an exception."""
        self._writing.execute("BEGIN IMMEDIATE")
        try:
            yield self._writing
            self._writing.execute("COMMIT")
        except BaseException:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
            raise

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Converts errors of SQLite into errors with advice."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise DiskFullError(
                    28,
                    "No space left on device. All answers so far are kept: free some space and "
                    "the same command continues from here. File",
                    str(self.path),
                ) from None
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise CorruptCacheError(
                    f"{self.path} is damaged ({error}). Save what can be saved with "
                    f"`sqlite3 {FILE} .recover`, or move the file away; its "
                    "answers are then requested again."
                ) from None
            raise OSError(
                f"{self.path}: {error}. Answers need a local disk, or a network file system "
                "with locks, with write permission: set teacher.cache to such a folder."
            ) from None


def _select(base: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Returns the stored answers of some keys."""
    marks = ",".join("?" * len(keys))
    rows = base.execute(f"SELECT key, value, crc FROM answers WHERE key IN ({marks})", list(keys))
    return {key: zlib.decompress(packed) for key, packed, crc in rows if crc == _crc(key, packed)}

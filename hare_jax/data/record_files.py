"""Random access to the records of many ArrayRecord files, of which a bounded number is open.

The numbers of records are known from mixture.json, so that a file is opened only when one of its
records is read. To open a file is to read its index, eight bytes for each record.
"""

from __future__ import annotations

import math
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from hare_jax.data.retries import is_damage, retried

MAX_INDEX_BYTES = 256 << 20  # of the files of a pool that are open
INDEX_BYTES = 8  # for each record of an open file
OTHER_FILES = 512  # that a process has open besides: checkpoints, logs, connections, libraries
LEAST_READERS = 16  # one for each thread that reads, and some

# No readahead, as records are read in random order. Without the last option, opening a file reads a
# megabyte instead of its index.
OPTIONS = "readahead_buffer_size:0,max_parallelism:0,footer_prefetch_bytes:0"
BUFFER_BYTES = 4096  # a longer record is read by itself, without the bytes behind it


class RecordFile(NamedTuple):
    """A file of records."""

    path: str
    records: int


class ReaderPool:
    """The open readers of any number of files; those that were not used for longest are closed.

    Its methods may be called from several threads.
    """

    def __init__(self, max_files: int):
        """Makes a pool of at most `max_files` readers, and of at most MAX_INDEX_BYTES of indices.

        One reader is kept in any case.
        """
        self.max_files = max_files
        self._open: OrderedDict[str, tuple[ArrayRecordReader, int]] = OrderedDict()
        self._records = 0  # of all open files
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns the number of open files."""
        return len(self._open)

    def read(self, file: RecordFile, position: int) -> bytes:
        """Reads a record, and again after an error.

        Raises:
          ValueError: the record is damaged, or the file has another number of records.
          OSError: it could not be read in any attempt.
        """
        what = f"record {position} of {file.path}"
        try:
            return retried(lambda: self._read(file, position), what)
        except RuntimeError as error:
            if is_damage(error):
                raise ValueError(
                    f"{what} is damaged: {error}; copy or bake the data again"
                ) from error
            raise OSError(
                f"{what} could not be read, however often it was tried: {error}; the data may be "
                "good: check the disk or the network, then start the same command again"
            ) from error

    def check(self, file: RecordFile) -> None:
        """Opens a file and closes it; raises as `read` does if it has another number of records."""
        retried(lambda: _open(file), file.path)

    def _read(self, file: RecordFile, position: int) -> bytes:
        """Reads a record once; after an error the file is opened anew."""
        try:
            return self._reader(file).read([position])[0]
        except RuntimeError as error:
            with self._lock:
                self._close(file.path)
                if "Too many open files" in str(error):  # somebody else has opened some
                    self.max_files = max(1, len(self._open) // 2)
                    self._close_oldest()
            raise

    def _reader(self, file: RecordFile) -> ArrayRecordReader:
        """Returns the reader of a file, which is opened if it is not yet."""
        with self._lock:
            if file.path in self._open:
                self._open.move_to_end(file.path)
                return self._open[file.path][0]
        reader = _open(file)  # without the lock, since a slow file system may take long
        with self._lock:
            if file.path not in self._open:  # another thread may have opened it
                self._open[file.path] = (reader, file.records)
                self._records += file.records
                self._close_oldest()
        return reader

    def _close_oldest(self) -> None:
        """Closes readers beyond the limits; a thread that still reads keeps its own open."""
        while len(self._open) > 1 and (
            len(self._open) > self.max_files or self._records * INDEX_BYTES > MAX_INDEX_BYTES
        ):
            self._close(next(iter(self._open)))

    def _close(self, path: str) -> None:
        """Forgets a reader, which closes its file with the last thread that reads from it."""
        _, records = self._open.pop(path, (None, 0))
        self._records -= records


class Records:
    """The records of several files, numbered through; no file is opened before it is read."""

    def __init__(self, files: Sequence[RecordFile], pool: ReaderPool):
        """Numbers the records of `files`, which `pool` reads."""
        self._files = files
        self._pool = pool
        self._ends = np.cumsum([file.records for file in files], dtype=np.int64)

    def __len__(self) -> int:
        """Returns the number of records of all files."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> bytes:
        """Reads a record; raises IndexError if there is none, else as `ReaderPool.read`."""
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        index = int(np.searchsorted(self._ends, number, side="right"))
        file = self._files[index]
        return self._pool.read(file, number - int(self._ends[index]) + file.records)


def _open(file: RecordFile) -> ArrayRecordReader:
    """Opens a file; raises ValueError if it has another number of records than is listed."""
    reader = ArrayRecordReader(file.path, options=OPTIONS, file_reader_buffer_size=BUFFER_BYTES)
    if not reader.ok():
        reader.read([0])  # raises the error of the opening
        raise RuntimeError(f"{file.path} cannot be opened")
    if reader.num_records() != file.records:
        raise ValueError(
            f"{file.path}: got {reader.num_records()} records, expected {file.records} "
            "(mixture.json)"
        )
    return reader


def plan_pool(files: Sequence[RecordFile]) -> tuple[int, str]:
    """Raises this process's soft limit of open files as far as the pool of `files` needs.

    Returns:
      (max_files, note): the size of the pool; a line that says what more open files would change,
      "" if nothing.

    Raises:
      ValueError: the limit is too low for any run.
    """
    mean = sum(file.records for file in files) / max(1, len(files))
    useful = min(len(files), math.ceil(MAX_INDEX_BYTES / INDEX_BYTES / max(1.0, mean)))
    useful = max(LEAST_READERS, useful)
    # Evaluation opens two mixtures.
    limit = raise_limit(OTHER_FILES + 2 * useful)
    if limit < 4 * LEAST_READERS:
        raise ValueError(
            f"this process may open {limit} files, expected at least {OTHER_FILES + 2 * useful}: "
            f"raise the limit (ulimit -n {OTHER_FILES + 2 * useful}, or LimitNOFILE= of a service)"
        )
    possible = max(LEAST_READERS, (limit - OTHER_FILES) // 2)
    if possible >= useful:
        return useful, ""
    return possible, (
        f"  the mixture has {len(files):,} files, of which {possible:,} are kept open, since this "
        f"process may open {limit:,} files; ulimit -n {OTHER_FILES + 2 * useful} would let it keep "
        f"{useful:,} open and open files less often"
    )


def raise_limit(wanted: int) -> int:
    """Raises the soft limit of open files to `wanted`, or as far as allowed; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < wanted:
        new = wanted if hard == infinite else min(wanted, hard)
        with suppress(ValueError, OSError):  # the system allows less than the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
            soft = new
    return wanted if soft == infinite else soft


def listed(directory: Path, entries: Sequence[dict[str, object]], key: str) -> list[RecordFile]:
    """Returns the files that entries of mixture.json list under `key`, "file" or "spans"."""
    return [RecordFile(f"{directory}/{e[key]}", int(str(e["records"]))) for e in entries]

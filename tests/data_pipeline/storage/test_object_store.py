"""Objects behave like files: written whole or not at all, with plain errors.

Against servers of S3 and of Google Cloud Storage.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import pickle
import tempfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_pipeline.config import Reading, Source
from data_pipeline.execution.manifest import (
    CorruptStageError,
    Ledger,
    ShardFile,
    file_sha256,
    finished_ledgers,
)
from data_pipeline.reading import sources
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.storage import atomic, object_store
from data_pipeline.storage.compressed import CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput, Document
from data_pipeline.storage.object_store import ObjectStoreError, ObjectStorePath, storage_path
from data_pipeline.storage.shards import ShardWriter, TruncatedShardError, read_shard
from tests.builders import jsonl
from tests.data_pipeline.builders import start_shard_and_die


def put(path: Path, content: bytes) -> Path:
    atomic.write_bytes(path, content)
    return path


def test_addresses() -> None:
    path = storage_path("s3://bucket/run/")
    assert str(path / "a" / "b.txt") == "s3://bucket/run/a/b.txt"
    assert (path / "a.jsonl.gz").suffix == ".gz"
    assert str(path.parent) == "s3://bucket"
    assert str((path / "mixture" / "../bake/x").resolve()) == "s3://bucket/run/bake/x"
    assert f"{path.with_name('other')}" == "s3://bucket/other"
    assert storage_path(path) is path
    assert pickle.loads(pickle.dumps(path)) == path
    assert hash(storage_path("s3://bucket/run")) == hash(path)
    assert isinstance(storage_path("gs://bucket/x"), ObjectStorePath)
    assert not isinstance(storage_path("a/b"), ObjectStorePath)
    assert storage_path("~/x") == Path.home() / "x"
    with pytest.raises(ValueError, match=r"got the scheme http://, expected .*s3://BUCKET"):
        storage_path("http://example.org/a.jsonl")


def test_what_is_written_is_read(bucket: Path) -> None:
    atomic.write_text(bucket / "a" / "text.txt", "häsin")
    sha256 = atomic.write_arrays(bucket / "a" / "x.npz", n=np.arange(5))
    assert sha256 == file_sha256(bucket / "a" / "x.npz")
    assert (bucket / "a" / "text.txt").read_text() == "häsin"
    with (bucket / "a" / "text.txt").open() as file:
        assert file.read() == "häsin"
    assert atomic.read_arrays(bucket / "a" / "x.npz")["n"].tolist() == [0, 1, 2, 3, 4]
    assert atomic.list_names(bucket / "a") == {"text.txt", "x.npz"}
    assert atomic.list_names(bucket / "none") == set()
    assert (bucket / "a").is_dir() and (bucket / "a" / "x.npz").is_file()
    assert not (bucket / "b").exists()
    (bucket / "a" / "x.npz").unlink()
    (bucket / "a" / "x.npz").unlink(missing_ok=True)
    assert atomic.list_names(bucket / "a") == {"text.txt"}
    with pytest.raises(FileNotFoundError, match=rf"{bucket}/none"):
        (bucket / "none").read_bytes()
    with pytest.raises(FileNotFoundError, match=rf"{bucket}/none"):
        (bucket / "none").open("rb")
    with pytest.raises(ValueError, match="expected 'r' or 'rb'"):
        (bucket / "a").open("w")


def test_what_others_write_is_seen(bucket: Path) -> None:
    """Workers write into the folders that the driver lists."""
    put(bucket / "ledger" / "a.json", b"{}")
    assert atomic.list_names(bucket / "ledger") == {"a.json"}
    assert not (bucket / "ledger" / "b.json").exists()
    import fsspec

    other = fsspec.filesystem(str(bucket).partition("://")[0], skip_instance_cache=True)
    list((bucket / "ledger").iterdir())
    other.pipe_file(f"{bucket}/ledger/b.json", b"{}")
    assert atomic.list_names(bucket / "ledger") == {"a.json", "b.json"}
    assert {path.name for path in (bucket / "ledger").iterdir()} == {"a.json", "b.json"}
    assert (bucket / "ledger" / "b.json").exists()


# gcsfs uploads chunks of 50 MB in one request each, against aiohttp's advice.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_a_file_is_read_from_anywhere_by_no_more_than_is_needed(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).bytes(20 << 20)
    path = put(bucket / "large", content)
    fetched = []
    store = object_store._filesystem_of(path)
    cat_file = store.cat_file

    def counting(path: str, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return bytes(cat_file(path, start=start, end=end))

    monkeypatch.setattr(store, "cat_file", counting)
    with path.open("rb") as file:
        assert file.read(10) == content[:10]
        file.seek(-7, 2)
        assert file.read() == content[-7:]
        file.seek(10 << 20)
        assert file.read(1000) == content[10 << 20 :][:1000]
        assert sum(fetched) <= 3 * object_store.FIRST_BYTES
        file.seek(0)
        fetched.clear()
        assert b"".join(iter(lambda: file.read(100_000), b"")) == content
    assert sum(fetched) == len(content)
    assert len(fetched) < 20  # more and more at a time


def test_a_shard_appears_whole_or_not_at_all(bucket: Path) -> None:
    path = bucket / "shards" / "a.jsonl.zst"
    documents = [Document(f"a/{i}", f"{i * 7919} " * 50, "a", "a") for i in range(3000)]
    with ShardWriter(path) as writer:
        for document in documents:
            writer.write(document)
        assert not path.exists()
    assert list(read_shard(path)) == documents
    assert writer.sha256 == file_sha256(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), ShardWriter(path) as writer:
        writer.write(documents[0])
        raise RuntimeError("stop")
    assert path.read_bytes() == before
    put(path, before[:-10])
    with pytest.raises(TruncatedShardError, match=rf"{bucket}/.*a\.jsonl\.zst ends inside"):
        list(read_shard(path))
    put(path, b"")
    with pytest.raises(TruncatedShardError, match="is empty"):
        list(read_shard(path))
    left = Path(tempfile.gettempdir()).glob(".a.jsonl.zst.*.partial")
    assert list(left) == []


def test_an_upload_that_is_killed_leaves_nothing(bucket: Path) -> None:
    path = bucket / "a.jsonl.zst"
    start_shard_and_die(path)
    assert atomic.list_names(bucket) == set()
    for left in Path(tempfile.gettempdir()).glob(".a.jsonl.zst.*.partial"):
        left.unlink()


def test_verified_reads_what_was_checked(bucket: Path) -> None:
    path = put(bucket / "shards" / "x", b"hare")
    file = ShardFile("x", path, file_sha256(path))
    with file.verified() as copy:
        assert copy.read_bytes() == b"hare"
    assert not copy.exists()
    put(path, b"hase")
    with pytest.raises(CorruptStageError, match=rf"{bucket}/shards/x has changed since"):
        file.verify()
    path.unlink()
    with pytest.raises(CorruptStageError, match=rf"{bucket}/shards/x is missing"):
        file.verify()


def test_a_finished_shard_is_one_whose_files_are_there(bucket: Path) -> None:
    put(bucket / "shards" / "a", b"hare")
    for name in ("a", "b"):
        Ledger(name, files={f"shards/{name}": file_sha256(bucket / "shards" / "a")}).write(bucket)
    put(bucket / "ledger" / "c.json", b'{"shard": "c"')
    assert set(finished_ledgers(bucket, ["a", "b", "c", "d"])) == {"a"}


# --- sources


def read_all(path: Path, shard_bytes: int = 4 << 20) -> list[Document | BadInput]:
    source = Source("web", path=str(path))
    reading = Reading(shard_bytes=shard_bytes, max_line_bytes=2000)
    shards = list_shards(source, reading)
    return [d for shard in shards for d in sources.read(shard, source, reading)]


def parquet(*texts: object) -> bytes:
    buffer = pa.BufferOutputStream()
    table = pa.table({"text": pa.array(texts)})
    pq.write_table(table, buffer, row_group_size=3)
    return bytes(buffer.getvalue())


ROWS = [{"text": f"häsin {i * 7919}"} for i in range(50)]
GOOD = jsonl(*ROWS)
FILES = {
    "a.jsonl": GOOD + b'{"text": "caf\xff"}\n{no json\n' + b"x" * 3000 + b"\n",
    "b.jsonl.gz": gzip.compress(GOOD) + gzip.compress(GOOD),
    "c.jsonl.zst": zstandard.compress(GOOD) + zstandard.compress(GOOD),
    "d.json": json.dumps(ROWS).encode(),
    "e/f.parquet": parquet(*[row["text"] for row in ROWS]),
    "e/g.txt": b"a text",
    "e/h.md.gz": gzip.compress(b"# a text"),
    "e/i.html": b"<html><body><p>a text</p></body></html>",
    "e/j.txt": b"text \xff",
    "k.jsonl": b"",
    "l.jsonl": b"\xef\xbb\xbf" + GOOD,
    "picture.png": b"",
    ".hidden/a.txt": b"hidden",
}


@pytest.mark.parametrize("shard_bytes", [100, 4 << 20])
def test_a_folder_reads_as_its_local_copy(bucket: Path, tmp_path: Path, shard_bytes: int) -> None:
    """Documents, ids, places and bad rows are the same; one file of a folder too."""
    for name, content in FILES.items():
        put(bucket / "raw" / name, content)
        put(tmp_path / name, content)
    here = read_all(tmp_path)
    there = read_all(bucket / "raw", shard_bytes)
    # A piece without rows is no empty file, so the rows of a folder are those of any partition.
    assert there == here
    assert sum(isinstance(row, BadInput) for row in here) == 5
    assert read_all(bucket / "raw" / "a.jsonl", shard_bytes) == read_all(tmp_path / "a.jsonl")
    source = Source("web", path=str(bucket / "raw"), exclude=("e/*", "a.jsonl"))
    unread: Counter[str] = Counter()
    names = {name for shard in list_shards(source, Reading(), unread) for name in shard.items}
    assert unread == {".png": 1}
    assert names == {"b.jsonl.gz", "c.jsonl.zst", "d.json", "k.jsonl", "l.jsonl"}


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("a.jsonl.gz", gzip.compress(GOOD)[:-20], TruncatedInputError, "ends inside a gzip member"),
        (
            "a.jsonl.zst",
            zstandard.compress(GOOD)[:-20],
            TruncatedInputError,
            "ends inside the zstd",
        ),
        ("a.jsonl.zst", zstandard.compress(GOOD) + b"more", CorruptInputError, "is not valid zstd"),
        ("a.parquet", parquet("a", "b")[:-9], CorruptInputError, "is no complete Parquet file"),
        (
            "a.json",
            json.dumps(ROWS).encode()[:-9],
            TruncatedInputError,
            "ends inside its JSON array",
        ),
    ],
)
def test_damaged_objects_raise(
    bucket: Path, name: str, content: bytes, kind: type[Exception], said: str
) -> None:
    put(bucket / name, content)
    with pytest.raises(kind, match=rf"{name} {said}"):
        read_all(bucket / name)


def test_an_object_that_changes_under_way_is_refused(bucket: Path) -> None:
    put(bucket / "a.jsonl", GOOD)
    source = Source("web", path=str(bucket))
    (shard,) = list_shards(source, Reading())
    put(bucket / "a.jsonl", GOOD.replace(b"0", b"1"))  # of the same length
    with pytest.raises(ValueError, match=rf"web-00000: a file in {bucket}.* changed"):
        list(sources.read(shard, source, Reading()))


# --- what is said


def test_what_is_missing_is_named(bucket: Path) -> None:
    with pytest.raises(ValueError, match=rf"source 'web': {bucket}.*/nowhere does not exist"):
        read_all(bucket / "nowhere")
    put(bucket / "a.pdf", b"x")
    with pytest.raises(ValueError, match=rf"no documents in {bucket}.*expected \.jsonl"):
        read_all(bucket)
    with pytest.raises(ValueError, match=r"a\.pdf is not one of \.jsonl"):
        read_all(bucket / "a.pdf")
    elsewhere = storage_path(f"{bucket}-that-is-not-there") / "a"
    with pytest.raises(OSError, match=str(elsewhere)):
        atomic.write_text(elsewhere, "text")


def test_a_missing_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(object_store, "_file_system", missing)
    with pytest.raises(
        ObjectStoreError, match=r"s3://b/a: Install s3fs.*pip install -e '\.\[remote\]'"
    ):
        storage_path("s3://b/a").exists()


def test_whatever_a_client_raises_becomes_an_error_of_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Errors of clients are of no common kind, and some cannot be sent to another process."""

    class OddError(Exception):
        def __init__(self, a: int, b: int):
            super().__init__("no credentials")

    class Store:
        def exists(self, path: str) -> bool:
            raise OddError(1, 2)

        def put_file(self, local: str, path: str) -> None:
            raise PermissionError("Access Denied")

    monkeypatch.setattr(object_store, "_file_system", lambda scheme: Store())
    path = storage_path("gs://b/a")
    with pytest.raises(
        ObjectStoreError, match=r"gs://b/a: .*OddError: no credentials.*Check the"
    ) as error:
        path.exists()
    assert isinstance(pickle.loads(pickle.dumps(error.value)), OSError)
    with pytest.raises(PermissionError, match=r"Access Denied.*check the credentials"):
        atomic.write_text(path, "text")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_refusal_is_no_missing_file(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that answers 403 to everything is not taken for an empty one."""

    class Refusing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # s3fs waits for "100 Continue"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *args: object) -> None:
            pass

    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[scheme])
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.devnull)  # Google is not asked
        options: dict[str, str] = {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        options |= {"key": "key", "secret": "secret"} if scheme == "s3" else {}
        store = fsspec.filesystem(scheme, skip_instance_cache=True, **options)
        monkeypatch.setattr(object_store, "_file_system", lambda scheme: store)
        path = storage_path(f"{scheme}://bucket/a")
        upload = functools.partial(atomic.write_text, path, "text")
        for ask in (
            path.exists,
            path.is_file,
            path.is_dir,
            path.read_bytes,
            path.open,
            path.info,
            path.unlink,
            upload,
            lambda: list(path.iterdir()),
            lambda: list(path.walk_files()),
        ):
            with pytest.raises(PermissionError, match="check the credentials") as error:
                ask()
            assert error.value.filename == str(path)
        server.shutdown()

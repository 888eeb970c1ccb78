"""What is written is what is read, byte for byte the same, whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import zstandard

from data_pipeline.storage import shards
from data_pipeline.storage.atomic import DiskFullError, remove_temporary_files
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.storage.shards import DroppedWriter, ShardWriter, TruncatedShardError, read_shard
from tests.data_pipeline.builders import start_shard_and_die

DOCUMENTS = [
    Document("web/1", "Hares are fast.", "web", "web"),
    Document("web/2", 'Häsin "läuft"\u2028\r\n\tweit \U0001f407\x7f', "web", "web", {"offset": 7}),
    Document("web/2", "the same id again", "web", "code", {"file": "a/b.jsonl", "line": None}),
]


def write(path, documents=DOCUMENTS) -> ShardWriter:
    with ShardWriter(path) as writer:
        for document in documents:
            writer.write(document)
    return writer


def many(count=3000):
    return [Document(f"a/{i}", f"{i} " + str(i * 7919) * 50, "a", "a") for i in range(count)]


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    writer = write(path)
    assert list(read_shard(path)) == DOCUMENTS
    assert writer.rows == 3
    assert writer.sha256 == sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_the_line_is_as_documented(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path, DOCUMENTS[:2])
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    first, second, rest = lines.split(b"\n")
    assert first == (
        b'{"id":"web/1","text":"Hares are fast.","source":"web","category":"web","meta":{}}'
    )
    assert "Häsin".encode() in second  # not escaped
    assert rest == b""


def test_the_same_documents_give_the_same_bytes(tmp_path):
    documents = many()  # several blocks
    write(tmp_path / "a.jsonl.zst", documents)
    write(tmp_path / "b.jsonl.zst", documents)
    assert (tmp_path / "a.jsonl.zst").read_bytes() == (tmp_path / "b.jsonl.zst").read_bytes()
    assert list(read_shard(tmp_path / "a.jsonl.zst")) == documents


def test_a_shard_without_documents_is_a_shard(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    assert write(path, []).rows == 0
    assert path.stat().st_size > 0
    assert list(read_shard(path)) == []


def test_an_exception_leaves_nothing_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), ShardWriter(path) as writer:
        for document in many():
            writer.write(document)
        raise RuntimeError("stop")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert writer.sha256 == ""


def test_the_name_appears_only_when_the_shard_is_whole(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    with ShardWriter(path) as writer:
        for document in many():
            writer.write(document)
        assert not path.exists()
    assert path.exists()


def test_two_writers_of_one_shard_do_not_mix(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    with ShardWriter(path) as one, ShardWriter(path) as two:
        for document in many():
            one.write(document)
            two.write(document)
    assert list(read_shard(path)) == many()
    assert one.sha256 == two.sha256 == sha256(path.read_bytes()).hexdigest()


def test_a_killed_writer_leaves_no_shard_and_its_rest_can_be_removed(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    start_shard_and_die(path)
    assert not path.exists()
    write(path)
    left = remove_temporary_files(tmp_path)
    assert len(left) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path)
    data = path.read_bytes()
    for kept in range(len(data)):
        path.write_bytes(data[:kept])
        with pytest.raises(TruncatedShardError, match=r"a\.jsonl\.zst"):
            list(read_shard(path))


def test_a_long_shard_cut_between_blocks_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path, many())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TruncatedShardError):
        list(read_shard(path))


def test_a_changed_byte_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path)
    data = bytearray(path.read_bytes())
    assert zstandard.get_frame_parameters(bytes(data)).has_checksum
    data[-1] ^= 1  # the checksum of the content
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not valid zstd"):
        list(read_shard(path))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nonsense", "Expecting value"),
        ("[1]", "expected an object, got list"),
        ('{"id":"b","text":"t","source":"s"}', "category"),
        ('{"id":"b","text":"t","source":"s","category":"c","meta":{},"more":1}', "more"),
        ('{"id":"b","text":7,"source":"s","category":"c","meta":{}}', "must be strings"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, complaint):
    good = '{"id":"a","text":"t","source":"s","category":"c","meta":{}}'
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(f"{good}\n{line}\n".encode()))
    with pytest.raises(ValueError, match=rf"a\.jsonl\.zst, line 2: .*{complaint}"):
        list(read_shard(path))


@pytest.mark.parametrize("text", ["\ud800", "half of a pair \udc00"])
def test_what_is_not_text_is_refused_by_id(tmp_path, text):
    with (
        pytest.raises(ValueError, match="'web/9' cannot be written"),
        ShardWriter(tmp_path / "a") as writer,
    ):
        writer.write(Document("web/9", text, "web", "web"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_without_json_is_refused_by_id(tmp_path, number):
    with (
        pytest.raises(ValueError, match="'web/9' cannot be written"),
        ShardWriter(tmp_path / "a") as writer,
    ):
        writer.write(Document("web/9", "t", "s", "c", {"scores": [{"a": number}]}))


def test_a_date_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"), ShardWriter(tmp_path / "a") as w:
        w.write(Document("web/9", "t", "s", "c", {"at": datetime(2020, 1, 2, tzinfo=UTC)}))


def test_dropped_documents_are_written_with_stage_and_reason(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    dropped = Dropped(DOCUMENTS[1], "too_short", {"words": 2})
    with DroppedWriter(path) as writer:
        writer.write("clean", dropped)
    assert list(shards.read_dropped(path)) == [("clean", dropped)]
    (row,) = shards.read_rows(path)
    assert " ".join(row) == "stage reason evidence id text source category meta"
    write(path)
    with pytest.raises(ValueError, match="line 1: missing key 'stage'"):
        list(shards.read_dropped(path))


def test_a_full_disk_names_the_file_and_what_to_do(tmp_path):
    """The writer's open file is replaced by /dev/full, which the kernel answers with ENOSPC."""
    path = tmp_path / "a.jsonl.zst"
    with pytest.raises(DiskFullError) as error, ShardWriter(path) as writer:
        for entry in Path("/proc/self/fd").iterdir():
            if entry.is_symlink() and str(entry.readlink()).endswith(".partial"):
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, int(entry.name))
                os.close(full)
        for document in many():
            writer.write(document)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(path)
    assert "No space left on device" in str(error.value)
    assert "Finished shards are kept" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_size_limit_is_a_full_disk_too(tmp_path):
    code = (
        "import os, resource, sys; from data_pipeline.storage.atomic import DiskFullError;"
        "from data_pipeline.storage.shards import ShardWriter;"
        "from data_pipeline.storage.document import Document\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    with ShardWriter(sys.argv[1]) as writer:\n"
        "        for _ in range(3000):\n"
        "            writer.write(Document('a', os.urandom(999).hex(), 's', 's'))\n"
        "except DiskFullError as error: print(error)"
    )
    path = tmp_path / "a.jsonl.zst"
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert "File too large" in said.stdout
    assert str(path) in said.stdout
    assert list(tmp_path.iterdir()) == []


def test_meta_keeps_json_types(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    meta = {"offset": 2**40, "score": 0.1, "list": [1, "a", None, True], "nested": {"b": {}}}
    write(path, [Document("a", "t", "s", "c", meta)])
    (document,) = read_shard(path)
    assert json.dumps(document.meta) == json.dumps(meta)


NESTED: list = []
for _ in range(300):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "value",
    [
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        10**40,
        [{"a": 2**70}],
        1e300,
        -(2.0**63),
        5e-324,
        -0.0,
        NESTED,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_numbers_of_any_size_and_deep_lists_are_read_as_they_were(tmp_path, value):
    path = tmp_path / "a.jsonl.zst"
    write(path, [Document("a", "null", "s", "c", {"value": value})])
    write(tmp_path / "b.jsonl.zst", [Document("a", "t", "s", "c", {"value": value})])
    for written in (path, tmp_path / "b.jsonl.zst"):
        (document,) = read_shard(written)
        assert repr(document.meta) == repr({"value": value})


@pytest.mark.slow
def test_keys_that_are_no_strings_become_strings_as_json_has_it(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    write(path, [Document("a", "t", "s", "c", {"counts": {1: 2, False: 3, None: 4}})])
    (document,) = read_shard(path)
    assert document.meta == {"counts": {"1": 2, "false": 3, "null": 4}}

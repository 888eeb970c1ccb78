"""Every kind of raw file, whole and damaged: what is bad is named and the rest survives."""

import doctest
import gzip
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_pipeline.reading import files
from data_pipeline.reading.files import RawRow, content_suffix, read_file, split_array
from data_pipeline.storage import compressed
from data_pipeline.storage.compressed import CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput

LIMIT = 1 << 20
GOOD = [{"text": f"document {i} ü\u2028"} for i in range(4)]


def lines(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read(path, content=None, max_bytes=LIMIT, columns=()):
    if content is not None:
        path.write_bytes(content)
    return list(read_file(path, path.name, max_bytes, columns))


def split(rows):
    """The fields of the good rows, and the bad ones."""
    return [r.fields for r in rows if isinstance(r, RawRow)], [
        r for r in rows if isinstance(r, BadInput)
    ]


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".zst", zst), (".GZ", gzip.compress)],
)
def test_json_lines_with_their_places(tmp_path, suffix, compress):
    content = lines(GOOD).removesuffix(b"\n")  # the last newline is optional
    rows = read(tmp_path / f"a.jsonl{suffix}", compress(content))
    assert [row.fields for row in rows] == GOOD
    assert [row.number for row in rows] == [row.location["offset"] for row in rows]
    for row, fields in zip(rows, GOOD, strict=True):  # a place finds its line in the content
        end = row.location["offset"] + len(row.raw)
        assert json.loads(content[row.location["offset"] : end]) == fields


def test_concatenated_members_are_read_to_the_end(tmp_path):
    half, rest = lines(GOOD[:2]), lines(GOOD[2:])
    for suffix, compress in ((".gz", gzip.compress), (".zst", zst)):
        rows = read(tmp_path / f"a.jsonl{suffix}", compress(half) + compress(rest))
        assert split(rows) == (GOOD, [])


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
def test_a_truncated_file_gives_its_rows_and_then_raises(tmp_path, suffix, compress):
    path = tmp_path / f"a.jsonl{suffix}"
    content = compress(lines({"text": f"{i * 7919} " * 20} for i in range(30_000)))
    path.write_bytes(content[: len(content) * 2 // 3])
    got = []
    with pytest.raises(
        TruncatedInputError, match=rf"a\.jsonl{suffix} ends inside .* bytes of content"
    ):
        got.extend(read_file(path, path.name, LIMIT))
    assert 0 < len(got) < 30_000
    assert all(isinstance(row, RawRow) for row in got)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
def test_garbage_after_a_compressed_file_raises(tmp_path, suffix, compress):
    with pytest.raises(CorruptInputError, match=r"a\.jsonl"):
        read(tmp_path / f"a.jsonl{suffix}", compress(lines(GOOD)) + b"garbage")


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "caf\xe9"}', "invalid_utf8", "byte 0xe9, 13 bytes in"),
        (b'{"text": "cut', "invalid_json", "Unterminated string"),
        (b"no json", "invalid_json", "Expecting value"),
        (b'{"text": "a\tb"}', "invalid_json", "control character"),
        (b"[" * 100_000, "invalid_json", "recursion"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid_json", "integer string conversion"),
        (b'["text"]', "not_an_object", "got list"),
        (b'"text"', "not_an_object", "got str"),
        (b"null", "not_an_object", "got NoneType"),
        (b'{"text": "a\0b"}', "nul_character", "a NUL at byte"),
        (
            b'{"text": "' + b"x" * LIMIT + b'"}',
            "line_too_long",
            "reading.max_line_bytes is 1,048,576",
        ),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_a_bad_line_is_named_and_the_others_survive(tmp_path, line, reason, detail, array):
    if array and line in (b'{"text": "cut', b"[" * 100_000):
        return  # these leave the array open: see below
    good = [json.dumps(row, ensure_ascii=False).encode() for row in GOOD]
    all_lines = [*good[:2], line, *good[2:]]
    if array:
        content = b"[" + b",\n".join(all_lines) + b"]"
        rows = read(tmp_path / "a.json", content)
    else:
        content = b"\n".join(all_lines)
        rows = read(tmp_path / "a.jsonl", content)
    fields, (bad,) = split(rows)
    assert fields == GOOD
    assert bad.reason == reason
    assert detail in bad.detail
    assert bad.file == ("a.json" if array else "a.jsonl")
    assert bad.raw == line[:4096]
    assert content[bad.offset :].startswith(line[:4096])


def test_blank_lines_and_carriage_returns_are_no_rows(tmp_path):
    content = b"\n  \n" + lines(GOOD).replace(b"\n", b"\r\n") + b"\r\n"
    assert split(read(tmp_path / "a.jsonl", content)) == (GOOD, [])


def test_a_byte_order_mark_is_taken_off_and_noted(tmp_path):
    one, two = lines(GOOD[:2]), lines(GOOD[2:])
    rows = read(tmp_path / "a.jsonl", files.BOM + one + files.BOM + two)  # cat a b > c
    assert [row.fields for row in rows] == GOOD
    assert [row.location.get("byte_order_mark", False) for row in rows] == [
        True,
        False,
        True,
        False,
    ]
    (row,) = read(tmp_path / "a.txt", files.BOM + b"text")
    assert (row.fields, row.location) == ({"text": "text"}, {"offset": 0, "byte_order_mark": True})
    rows = read(tmp_path / "a.json", files.BOM + b"[" + one[:-1].replace(b"\n", b",") + b"]")
    assert [row.fields for row in rows] == GOOD[:2]


def test_a_page_with_a_byte_order_mark_is_utf8_whatever_it_declares(tmp_path):
    page = f"<meta charset=windows-1252><p>{'Häsinnen laufen schnell. ' * 9}</p>"
    (row,) = read(tmp_path / "a.html", files.BOM + page.encode())
    assert row.fields["text"].startswith("Häsinnen laufen")
    assert row.location == {"offset": 0, "byte_order_mark": True}
    (bad,) = read(tmp_path / "b.txt", files.BOM + b"caf\xe9")
    assert (bad.reason, bad.raw) == ("invalid_utf8", b"caf\xe9")
    assert "byte 0xe9, 3 bytes in" in bad.detail


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.md", "a.html"])
@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n", files.BOM, files.BOM + b"\r\n"])
def test_an_empty_file_is_named(tmp_path, name, content):
    (bad,) = read(tmp_path / name, content)
    assert (bad.reason, bad.file, bad.offset) == ("empty_file", name, 0)


def test_an_empty_compressed_file_is_named(tmp_path):
    for name, content in {
        "a.jsonl.gz": gzip.compress(b""),
        "a.txt.zst": zst(b""),
        "b.md.gz": b"",
    }.items():
        (bad,) = read(tmp_path / name, content)
        assert bad.reason == "empty_file"


def test_a_long_line_is_not_held_in_memory(tmp_path):
    """In a process that may not have more than 40 MB above what it starts with."""
    path = tmp_path / "a.jsonl.zst"
    long = b'{"text": "' + b"x" * (50 << 20) + b'"}\n'
    path.write_bytes(zst(lines(GOOD[:1]) + long + lines(GOOD[1:])))
    code = """
import resource, sys
from pathlib import Path
from data_pipeline.reading.files import read_file
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20),) * 2)
for row in read_file(Path(sys.argv[1]), "a", 1 << 20):
    print(getattr(row, "reason", "row"))
"""
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["row", "line_too_long", "row", "row", "row"]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.json"])
def test_a_text_longer_than_the_limit_is_named(tmp_path, name):
    (bad,) = read(tmp_path / name, b"{ word " * 100, max_bytes=600)
    assert (bad.reason, bad.detail) == ("line_too_long", "700 bytes, reading.max_line_bytes is 600")
    assert bad.raw == b"{ word " * 100


def test_a_json_file_may_be_an_array_an_object_or_lines(tmp_path):
    path = tmp_path / "a.json"
    assert split(read(path, json.dumps(GOOD, indent=2).encode())) == (GOOD, [])
    assert split(read(path, b" [ ] ")) == (
        [],
        [BadInput("empty_file", "a.json", 0, "no rows in it", b"")],
    )
    assert split(read(path, json.dumps(GOOD[0], indent=2).encode())) == (GOOD[:1], [])
    assert split(read(path, lines(GOOD))) == (GOOD, [])


def test_an_array_is_split_the_same_whatever_the_chunks():
    content = b' [ {"a": "]},\\"[\\\\"} ,\n[1, {"b": [2]}], "x,]", 3.5,null ] \n'
    whole = list(split_array([content], LIMIT, "a.json"))
    assert [json.loads(element) for _, element, _ in whole] == json.loads(content)
    for offset, element, length in whole:
        assert content[offset : offset + length] == element
    for size in range(1, len(content)):
        chunks = [content[i : i + size] for i in range(0, len(content), size)]
        assert list(split_array(chunks, LIMIT, "a.json")) == whole


def test_an_unclosed_array_or_content_after_it_raises(tmp_path):
    content = json.dumps(GOOD).encode()
    for kept in range(1, len(content)):
        with pytest.raises(TruncatedInputError, match=r"a\.json ends inside its JSON array"):
            read(tmp_path / "a.json", content[:kept])
    with pytest.raises(CorruptInputError, match="has content after its JSON array: b'and more'"):
        read(tmp_path / "a.json", content + b" and more")


def test_an_array_element_too_long_is_not_held(tmp_path):
    content = b"[" + b'{"text": "' + b"x" * 5000 + b'"}, {"text": "short"}]'
    fields, (bad,) = split(read(tmp_path / "a.json", content, max_bytes=100))
    assert fields == [{"text": "short"}]
    assert (bad.reason, bad.offset, len(bad.raw)) == ("line_too_long", 1, 4096)


def test_texts_are_one_row_each(tmp_path):
    for name, compress in {"a.txt": bytes, "b.MD": bytes, "c.md.zst": zst}.items():
        (row,) = read(tmp_path / name, compress("# Häsin\r\n\n läuft\n".encode()))
        assert row.fields == {"text": "# Häsin\r\n\n läuft\n"}
        assert row.number is None
    (bad,) = read(tmp_path / "a.txt", b"text \xff text")
    assert (bad.reason, bad.detail) == ("invalid_utf8", "byte 0xff, 5 bytes in: invalid start byte")


def test_html_is_reduced_to_its_main_text(tmp_path):
    page = "<html><head><title>No</title></head><body><p>Häsin rennt.</p></body></html>"
    (row,) = read(tmp_path / "a.html", page.encode())
    assert row.fields == {"text": "Häsin rennt."}
    (bad,) = read(tmp_path / "a.htm", b"<html><body></body></html>")
    assert bad.reason == "no_main_text"
    (row,) = read(tmp_path / "a.html", b"<p>a\0b</p>")  # for the document's own check to find
    assert "\0" in row.fields["text"]


def table(**columns) -> pa.Table:
    return pa.table(columns)


def test_parquet_rows_with_their_places(tmp_path):
    count = files.PARQUET_BATCH_ROWS * 2 + 3
    path = tmp_path / "a.parquet"
    texts = [f"text {i}" for i in range(count)]
    pq.write_table(table(text=texts, id=range(count)), path, row_group_size=100)
    rows = read(path, columns=("text",))
    assert [row.fields["text"] for row in rows] == texts
    assert [row.location for row in rows] == [{"row": i} for i in range(count)]
    assert [row.number for row in rows] == list(range(count))


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_strings_of_every_kind(tmp_path, kind):
    column = pa.array(["a", "b", None]).cast(kind)
    pq.write_table(table(text=column), tmp_path / "a.parquet")
    rows = read(tmp_path / "a.parquet", columns=("text",))
    assert [row.fields["text"] for row in rows] == ["a", "b", None]


def test_a_parquet_file_without_the_text_column_raises(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(body=["a"], n=[1]), path)
    with pytest.raises(
        ValueError, match=r"a\.parquet has no column 'text', only body, n\. .*text_fields"
    ):
        read(path, columns=("text",))
    with pytest.raises(ValueError, match="column 'n' holds int64, expected string"):
        read(path, columns=("n",))


def test_damaged_parquet_raises(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(text=[f"{i * 7919}" for i in range(5000)]), path)
    content = path.read_bytes()
    for damaged in (content[:-100], b"", b"PAR1 not really"):
        with pytest.raises(CorruptInputError, match=r"a\.parquet is no complete Parquet file"):
            read(path, damaged)
    middle = bytearray(content)
    middle[4:200] = bytes(196)  # the first page, which the footer still promises
    with pytest.raises(
        CorruptInputError, match=r"a\.parquet cannot be read beyond 0 of 5,000 rows"
    ):
        read(path, bytes(middle))


def test_invalid_utf8_in_parquet_affects_one_row_only(tmp_path):
    data = pa.array([b"good", b"caf\xe9", b"also good"]).view(pa.string())
    pq.write_table(table(text=data), tmp_path / "a.parquet")
    fields, (bad,) = split(read(tmp_path / "a.parquet", columns=("text",)))
    assert [row["text"] for row in fields] == ["good", "also good"]
    assert (bad.reason, bad.offset, bad.raw) == ("invalid_utf8", 1, b"caf\xe9")


def test_parquet_without_rows_is_an_empty_file(tmp_path):
    pq.write_table(table(text=pa.array([], pa.string())), tmp_path / "a.parquet")
    (bad,) = read(tmp_path / "a.parquet", columns=("text",))
    assert bad.reason == "empty_file"


def test_supported_suffixes(tmp_path):
    for name in ("a.jsonl", "A.JSON.GZ", "a.b.txt.zst", "a.parquet", "a.html", "a.htm", "a.md"):
        assert content_suffix(tmp_path / name), name
    for name in ("a", "a.gz", "a.pdf", "a.parquet.gz", "jsonl", "a.jsonl.bz2", ".jsonl.gz"):
        assert not content_suffix(tmp_path / name), name


def test_examples_in_docstrings():
    assert doctest.testmod(files).failed == 0
    assert doctest.testmod(compressed).failed == 0


# --- what tools pass over without a word, for every kind of file and compression

CONTENTS = {
    ".jsonl": lines(GOOD),
    ".json": json.dumps(GOOD).encode(),
    ".txt": b"a text " * 30,
    ".md": b"# a text " * 30,
    ".html": b"<html><body><p>" + b"a text " * 30 + b"</p></body></html>",
}
COMPRESSED = {".gz": gzip.compress, ".zst": zst}


@pytest.mark.parametrize("suffix", COMPRESSED)
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_cut_file_of_any_kind_is_refused_wherever_it_is_cut(tmp_path, kind, suffix):
    whole = COMPRESSED[suffix](CONTENTS[kind])
    path = tmp_path / f"a{kind}{suffix}"
    assert not [row for row in read(path, whole) if isinstance(row, BadInput)]
    for kept in (2, len(whole) // 2, len(whole) - 1):
        with pytest.raises(TruncatedInputError, match=rf"^a\{kind}\{suffix} ends inside"):
            read(path, whole[:kept])


@pytest.mark.parametrize("suffix", ["", *COMPRESSED])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_of_any_kind_that_is_empty_or_too_long_or_no_utf8_is_named(tmp_path, kind, suffix):
    compress = COMPRESSED.get(suffix, bytes)
    path = tmp_path / f"a{kind}{suffix}"
    for empty in (b"", b" \n"):
        (bad,) = read(path, compress(empty))
        assert (bad.reason, bad.file) == ("empty_file", path.name)
    long = CONTENTS[kind].replace(b"document 1", b"x" * 3000).replace(b"a text", b"a text" * 99)
    rows = read(path, compress(long), max_bytes=1000)
    assert [row.reason for row in rows if isinstance(row, BadInput)] == ["line_too_long"]
    wrong = CONTENTS[kind].replace(b"document 1", b"caf\xff").replace(b"a text", b"\xff", 1)
    rows = read(path, compress(wrong))
    assert [row.reason for row in rows if isinstance(row, BadInput)] == ["invalid_utf8"]
    assert len(rows) == len(read(path, compress(CONTENTS[kind])))  # and the other rows survive

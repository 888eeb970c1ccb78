"""From a source to its shards, from a shard to its documents; nothing is lost without a word."""

import gzip
import json
import os
import pickle
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_pipeline.config import Reader, Reading, Source, Tier
from data_pipeline.reading import sources
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.storage.compressed import CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput, Document
from tests.builders import jsonl, write_jsonl
from tests.data_pipeline.builders import read_source


def read(path, content=None, **source):
    """Documents and bad rows of one source, here called "web"."""
    if content is not None:
        path.write_bytes(content)
    rows = read_source(Source("web", path=str(path), **source))
    return [r for r in rows if isinstance(r, Document)], [
        r for r in rows if isinstance(r, BadInput)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder named as nobody should, with a file of every kind and some that are none."""
    root = tmp_path / "some text.jsonl"
    root.mkdir()
    (root / "b.jsonl").write_bytes(jsonl({"text": "b one", "id": "x"}, {"text": "b two"}))
    (root / "a.json").write_text('[{"text": "a one"}]')
    (root / "sub.parquet").mkdir()
    pq.write_table(pa.table({"text": ["p one", "p two"]}), root / "sub.parquet" / "part-0.parquet")
    (root / "z.txt").write_text("z text")
    (root / "m.md.gz").write_bytes(gzip.compress(b"# m text"))
    (root / "h.html").write_text("<html><body><p>h text</p></body></html>")
    (root / "picture.PNG").write_bytes(b"\0")
    (root / "Makefile").write_text("all:")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.txt").write_text("hidden")
    (root / ".a.jsonl.swp.txt").write_text("hidden")
    return root


def test_a_folder_of_every_kind(folder):
    documents, bad = read(folder)
    assert bad == []
    assert {document.id: document.text for document in documents} == {
        "web/a.json:1": "a one",
        "web/x": "b one",
        "web/b.jsonl:29": "b two",
        "web/h.html": "h text",
        "web/m.md.gz": "# m text",
        "web/sub.parquet/part-0.parquet:0": "p one",
        "web/sub.parquet/part-0.parquet:1": "p two",
        "web/z.txt": "z text",
    }
    assert {document.source for document in documents} == {"web"}
    by_id = {document.id: document.meta for document in documents}
    assert by_id["web/b.jsonl:29"] == {
        "file": "b.jsonl",
        "offset": len(jsonl({"text": "b one", "id": "x"})),
    }
    assert by_id["web/sub.parquet/part-0.parquet:1"] == {
        "file": "sub.parquet/part-0.parquet",
        "row": 1,
    }


def test_files_that_are_not_read_are_counted(folder):
    unread = Counter()
    list_shards(Source("web", path=str(folder)), Reading(), unread)
    assert unread == {"": 1, ".png": 1}


def test_shards_are_named_grouped_and_picklable(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text("x" * 100)
    (tmp_path / "5.txt").write_text("x" * 1000)
    source = Source("web", path=str(tmp_path))
    shards = list_shards(source, Reading(shard_bytes=300))
    assert [shard.items for shard in shards] == [
        ("0.txt", "1.txt", "2.txt"),
        ("3.txt", "4.txt"),
        ("5.txt",),
        ("6.txt", "7.txt", "8.txt"),
        ("9.txt",),
    ]
    assert [shard.name for shard in shards] == [f"web-{i:05d}" for i in range(5)]
    assert [shard.bytes for shard in shards] == [300, 200, 1000, 300, 100]
    assert (
        pickle.loads(pickle.dumps(shards))
        == shards
        == list_shards(source, Reading(shard_bytes=300))
    )


def test_documents_do_not_depend_on_the_shards(folder):
    source = Source("web", path=str(folder))
    whole = read_source(source, Reading())
    for shard_bytes in (1, 7, 25, 40, 1000):
        assert read_source(source, Reading(shard_bytes=shard_bytes)) == whole
    assert len(list_shards(source, Reading(shard_bytes=7))) > 6


def test_a_fingerprint_changes_with_the_input_only(folder, tmp_path):
    def prints():
        shards = list_shards(source, Reading(shard_bytes=70))
        return {shard.items: shard.fingerprint for shard in shards}

    source = Source("web", path=str(folder))
    before = prints()
    assert prints() == before
    path = folder / "z.txt"
    status = path.stat()
    path.write_text("Z text")  # the same size and, set below, another time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = prints()
    assert {items for items in before if before[items] != after[items]} == {("z.txt",)}
    folder.rename(tmp_path / "moved")
    source.path = str(tmp_path / "moved")
    assert prints() == after


def test_a_file_that_changes_under_way_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl({"text": "one"}))
    source = Source("web", path=str(path))
    (shard,) = list_shards(source, Reading())
    path.write_bytes(jsonl({"text": "one"}, {"text": "two"}))
    with pytest.raises(ValueError, match=r"web-00000: a file in .* changed .* Start the run again"):
        list(sources.read(shard, source, Reading()))


@pytest.mark.parametrize("most", [1, 3, 7, 10, 25, 100])
def test_max_documents_is_shared_among_the_shards(tmp_path, most):
    for i in range(5):
        (tmp_path / f"{i}.jsonl").write_bytes(jsonl(*[{"text": f"{i} {j}"} for j in range(10)]))
    source = Source("web", path=str(tmp_path), max_documents=most)
    documents = read_source(source, Reading(shard_bytes=60))
    assert len(documents) == min(most, 50)
    files = {document.meta["file"] for document in documents}
    assert len(files) == min(most, 5)


def test_links_are_followed_once(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("a")
    (root / "to_elsewhere").symlink_to(tmp_path / "elsewhere")
    (root / "to_itself").symlink_to(root)
    documents, _ = read(root)
    assert [document.id for document in documents] == ["web/to_elsewhere/a.txt"]


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    ((document,), _) = read(tmp_path)
    assert document.id == "web/caf\\xe9.txt"
    assert document.meta["file"] == "caf\\xe9.txt"


# --- what is refused before anything is read


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"source 'web': .*/nowhere does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="source 'web' has no path"):
        list_shards(Source("web"), Reading())


def test_a_folder_without_documents_is_reported(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=r"no documents in .*expected \.jsonl .*\.html.* \(plain or \.gz or \.zst\)",
    ):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"a\.pdf is not one of \.jsonl"):
        read(tmp_path / "a.pdf")


def test_a_dangling_link_is_named(tmp_path):
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "bad.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(ValueError, match=r"cannot read .*/bad\.txt: No such file"):
        read(tmp_path)


@pytest.mark.timeout(20)  # opening a pipe that nobody writes to waits for ever
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match=r"a\.jsonl is not a regular file"):
        read(tmp_path)


@pytest.fixture
def unprivileged():
    """A folder that everybody may enter, and root, who may read everything, is somebody else."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "folder").mkdir()
        (folder / "folder" / "a.txt").write_text("text")
        (folder / "file.txt").write_text("text")
        os.seteuid(user or 65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            (folder / "folder").chmod(0o755)


@pytest.mark.parametrize(
    ("closed", "path"),
    [("file.txt", "."), ("folder", "."), ("file.txt", "file.txt"), ("folder", "folder/a.txt")],
)
def test_unreadable_files_are_reported(unprivileged, closed, path):
    user = os.geteuid()
    os.seteuid(os.getuid())
    (unprivileged / closed).chmod(0)
    os.seteuid(user)
    with pytest.raises(
        ValueError, match=rf"cannot read .*/{closed}.*: Permission denied\. Make it"
    ):
        read(unprivileged / path)


# --- what is quarantined, with the rest surviving


GOOD = [{"text": "the first document", "id": 1}, {"text": "the last document", "id": 2}]


BAD_ROWS = [
    (b'{"text": "caf\xe9"}', "invalid_utf8", "0xe9"),
    (b"{text: 1}", "invalid_json", "property name"),
    (b"[1, 2]", "not_an_object", "list"),
    (b'{"body": "no text", "n": 1}', "missing_text", "no 'text' among body, n"),
    (b'{"text": null}', "missing_text", "no 'text'"),
    (b'{"text": 7}', "text_not_a_string", "'text' is int: 7"),
    (b'{"text": ["a", "b"]}', "text_not_a_string", "'text' is list"),
    (b'{"text": ""}', "empty_text", "nothing but white space"),
    (b'{"text": " \\n\\u00a0\\t"}', "empty_text", "nothing but white space"),
    (b'{"text": "a\\u0000b"}', "nul_character", "after 1 characters"),
    (b'{"text": "a\0b"}', "nul_character", "at byte"),
    (b'{"text": "half \\ud83d"}', "lone_surrogate", "surrogates not allowed"),
    (b'{"text": "a", "id": "\\udc00"}', "lone_surrogate", "surrogates not allowed"),
    (b'{"text": "a", "url": "\\udc00"}', "lone_surrogate", "surrogates not allowed"),
    (b'{"text": "' + b"x" * 1000 + b'"}', "line_too_long", "max_line_bytes is 500"),
]


@pytest.mark.parametrize(("line", "reason", "detail"), BAD_ROWS)
def test_a_bad_row_is_named_and_the_others_survive(tmp_path, line, reason, detail):
    path = tmp_path / "a.jsonl"
    content = jsonl(GOOD[0]) + line + b"\n" + jsonl(GOOD[1])
    path.write_bytes(content)
    first, bad, last = read_source(Source("web", path=str(path)), Reading(max_line_bytes=500))
    assert [first.text, last.text] == [row["text"] for row in GOOD]
    assert isinstance(bad, BadInput)
    assert bad.reason == reason
    assert detail in bad.detail
    assert (bad.file, bad.offset) == ("a.jsonl", len(jsonl(GOOD[0])))
    assert content[bad.offset :].startswith(bad.raw)
    assert bad.raw


def test_every_reason_is_in_the_table():
    assert sources.__doc__
    for reason in {reason for _, reason, _ in BAD_ROWS} | {"empty_file", "no_main_text"}:
        assert f"\n    {reason} " in sources.__doc__


def test_an_empty_file_among_others_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "b.jsonl").write_bytes(b"")
    documents, (bad,) = read(tmp_path)
    assert [document.text for document in documents] == ["a text"]
    assert (bad.reason, bad.file) == ("empty_file", "b.jsonl")


def test_a_text_file_with_a_nul_is_named(tmp_path):
    for name in ("a.txt", "a.html"):
        documents, (bad,) = read(tmp_path / name, b"<p>te\0xt</p>")
        assert documents == []
        assert (bad.reason, bad.offset, bad.raw) == ("nul_character", 0, b"<p>te\0xt</p>")


def test_duplicate_ids_both_come_out(tmp_path):
    documents, bad = read(
        tmp_path / "a.jsonl", jsonl({"text": "a", "id": 7}, {"text": "b", "id": 7})
    )
    assert [(document.id, document.text) for document in documents] == [
        ("web/7", "a"),
        ("web/7", "b"),
    ]
    assert bad == []


def test_a_byte_order_mark_is_noted_in_meta(tmp_path):
    documents, bad = read(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + jsonl(*GOOD))
    assert bad == []
    assert [document.text for document in documents] == [row["text"] for row in GOOD]
    assert documents[0].meta == {"file": "a.jsonl", "offset": 0, "byte_order_mark": True}
    assert "byte_order_mark" not in documents[1].meta


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_raises(tmp_path, suffix):
    content = jsonl(*[{"text": f"{i * 7919} " * 9} for i in range(3000)])
    compress = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    with pytest.raises(TruncatedInputError, match=rf"^a\.jsonl{suffix} ends inside"):
        read(tmp_path / f"a.jsonl{suffix}", compress(content)[:-2000])
    assert issubclass(TruncatedInputError, ValueError)
    with pytest.raises(CorruptInputError, match=rf"^a\.jsonl{suffix} is not valid"):
        read(tmp_path / f"a.jsonl{suffix}", compress(content) + b"garbage")


# --- what a row becomes


def test_ids_of_rows(tmp_path):
    values = ["own", 12, "", None, 1.5, True, ["a"], "mit Umlaut ü"]
    content = jsonl(*[{"text": "t", "id": v} for v in values])
    documents, _ = read(tmp_path / "a.jsonl", content)
    assert [document.id.removeprefix("web/") for document in documents] == [
        "own",
        "12",
        *(f"a.jsonl:{sum(map(len, content.splitlines(True)[:k]))}" for k in range(2, 7)),
        "mit Umlaut ü",
    ]
    ((document,), _) = read(tmp_path / "a.jsonl", jsonl({"text": "t", "key": 3}), id_field="key")
    assert document.id == "web/3"


def test_categories(tmp_path):
    content = jsonl({"text": "t", "category": "law"}, {"text": "t"}, {"text": "t", "category": 3})
    documents, _ = read(tmp_path / "a.jsonl", content)
    assert [document.category for document in documents] == ["law", "web", "web"]
    documents, _ = read(tmp_path / "a.jsonl", content, category="books")
    assert {document.category for document in documents} == {"books"}
    documents, _ = read(
        tmp_path / "a.jsonl", jsonl({"text": "t", "kind": "a"}), category_field="kind"
    )
    assert documents[0].category == "a"


def test_license_address_and_origin_are_kept(tmp_path):
    rows = [
        {"text": "t", "license": "MIT", "url": "http://a.b", "source": "elsewhere", "other": 1},
        {"text": "t", "licence": "x" * 1000, "url": 3, "source": "web"},
        {"text": "t", "licence": "CC0"},
    ]
    documents, _ = read(tmp_path / "a.jsonl", jsonl(*rows))
    kept = {"license": "MIT", "url": "http://a.b", "source": "elsewhere"}
    assert documents[0].meta == {"file": "a.jsonl", "offset": 0} | kept
    assert documents[1].meta == {"file": "a.jsonl", "offset": len(jsonl(rows[0]))}
    assert documents[2].meta["license"] == "CC0"


def test_several_text_fields_are_joined_by_a_blank_line(tmp_path):
    rows = [
        {"title": "T", "body": "B"},
        {"title": "", "body": "B"},
        {"title": "T"},
        {"title": 1, "body": "B"},
    ]
    documents, bad = read(tmp_path / "a.jsonl", jsonl(*rows), text_fields=("title", "body"))
    assert [document.text for document in documents] == ["T\n\nB", "B"]
    assert [(b.reason, b.detail[:10]) for b in bad] == [
        ("missing_text", "no 'body' "),
        ("text_not_a_string", "'title' is"),
    ]


def test_instruction_formats_are_for_d3_rows_without_text(tmp_path):
    rows = [{"prompt": "P", "completion": "C"}, {"text": "own text", "prompt": "P"}, {"body": "b"}]
    documents, (bad,) = read(tmp_path / "a.jsonl", jsonl(*rows), tier=Tier.D3)
    assert [document.text for document in documents] == ["P\nC", "own text"]
    assert (bad.reason, bad.detail) == ("unknown_format", "no known format has the fields body")
    documents, bad = read(tmp_path / "a.jsonl", jsonl(*rows), tier=Tier.D1)
    assert [document.text for document in documents] == ["own text"]
    assert {b.reason for b in bad} == {"missing_text"}


def test_parquet_instructions_need_no_text_column(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"question": ["Q?"], "choices": [["a", "b"]], "answer": [1]}), path)
    ((document,), _) = read(path, tier=Tier.D3)
    assert document.text == "Question: Q?\nA. a\nB. b\nAnswer: B. b"
    with pytest.raises(ValueError, match=r"a\.parquet has no column 'text'"):
        read(path)


def test_parquet_rows_that_are_bad_are_named_by_number(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["good", None, "", "a\0b"], "n": [1, 2, 3, 4]}), path)
    documents, bad = read(path)
    assert [document.text for document in documents] == ["good"]
    assert [(b.reason, b.offset) for b in bad] == [
        ("missing_text", 1),
        ("empty_text", 2),
        ("nul_character", 3),
    ]
    assert json.loads(bad[1].raw) == {"text": "", "n": 3}


def test_a_parquet_text_too_long_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 1000, "short"]}), path)
    bad, good = read_source(Source("web", path=str(path)), Reading(max_line_bytes=999))
    assert (bad.reason, bad.detail) == ("line_too_long", "the text has 1,000 characters")
    assert good.text == "short"


# --- sources that are no files


def test_generated_problems_are_the_same_in_any_shards():
    source = Source("math", reader=Reader.SCHOOL_MATH, max_documents=25)
    one = read_source(source)
    assert [document.id for document in one] == [f"math/{i}" for i in range(25)]
    assert read_source(source, Reading(shard_bytes=2000)) == one
    assert len(list_shards(source, Reading(shard_bytes=2000))) > 2
    everything = list_shards(replace(source, max_documents=0), Reading())
    assert everything[-1].stop == 4000
    prints = {shard.fingerprint for shard in list_shards(source, Reading(shard_bytes=2000))}
    assert len(prints) == len(list_shards(source, Reading(shard_bytes=2000)))


@pytest.mark.parametrize("reader", [r for r in Reader if r.value.startswith("python_")])
def test_the_installation_in_shards(reader):
    source = Source("here", reader=reader, category="c", max_documents=30)
    shards = list_shards(source, Reading(shard_bytes=100_000))
    assert shards == list_shards(source, Reading(shard_bytes=100_000))
    documents = read_source(source, Reading(shard_bytes=100_000))
    assert 10 < len(documents) <= 30
    assert len({document.id for document in documents}) == len(documents)
    assert {(document.source, document.category) for document in documents} == {("here", "c")}
    other = Source("here", reader=reader, category="d", max_documents=30)
    assert [d.text for d in read_source(other, Reading(shard_bytes=100_000))] == [
        d.text for d in documents
    ]


def test_a_source_without_a_name_is_one_for_each_entry(tmp_path: Path) -> None:
    """Files and folders name their sources; a row may name its own, an address does not count."""
    rows = [
        {"text": "one"},
        {"text": "two", "source": "press"},
        {"text": "three", "source": "https://example.org/x"},
    ]
    write_jsonl(tmp_path / "web.jsonl", rows)
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text("four")
    (tmp_path / "books" / "b.txt").write_text("five")
    source = Source(path=str(tmp_path))
    shards = list_shards(source, Reading())
    assert [shard.name for shard in shards] == ["books-00000", "web-00000"]
    documents = [d for shard in shards for d in sources.read(shard, source, Reading())]
    assert [(d.id, d.source, d.category) for d in documents if isinstance(d, Document)] == [
        ("books/books/a.txt", "books", "books"),
        ("books/books/b.txt", "books", "books"),
        ("web/web.jsonl:0", "web", "web"),
        ("press/web.jsonl:16", "press", "press"),
        ("web/web.jsonl:51", "web", "web"),
    ]
    assert documents[-1].meta["source"] == "https://example.org/x"


def test_excluded_files_are_not_read(tmp_path: Path) -> None:
    for name in ("a.txt", "drafts/b.txt", "c.log.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    source = Source("s", path=str(tmp_path), exclude=("drafts/*", "*.log.txt"))
    (shard,) = list_shards(source, Reading())
    assert shard.items == ("a.txt",)

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from data_pipeline.config import Baking, Source, Tier
from data_pipeline.mixture import bake
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.storage.document import Document

T = 32
CONFIG = Baking(sequence_length=T)


def documents(count: int = 60, source: str = "web") -> list[Document]:
    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["hares", "run", "über", "x=1;\n", "  and", "2026"], size))
        for size in rng.integers(0, 60, count)
    ]
    texts[3], texts[4], texts[5] = "", "NUL \x00 in it", "long " * 500
    return [Document(f"{source}/é {i}", text, source, source) for i, text in enumerate(texts)]


def records(path: Path) -> list[bytes]:
    reader = ArrayRecordReader(str(path))
    count = reader.num_records()
    found = reader.read_all() if count else []
    reader.close()
    return found


def hashes(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bake.BakedPart]:
    directory = tmp_path_factory.mktemp("baked data")
    return directory, bake.bake_part("web-00000", "web", documents(), directory, CONFIG)


# -- records and spans -------------------------------------------------------------------------


def read_rows(directory: Path, part: bake.BakedPart) -> Iterator[tuple[list[int], str, int, int]]:
    """(tokens, document id, offset, length) of every segment, in order; checks the layout."""
    rows, spans = records(directory / part.file), records(directory / part.spans)
    assert len(rows) == len(spans) == part.records
    for row, of_row in zip(rows, map(json.loads, spans), strict=True):
        tokens = np.frombuffer(row[: 2 * (T + 1)], "<u2")
        lengths = np.frombuffer(row[2 * (T + 1) :], "<u4").tolist()
        assert [length for _, _, length in of_row] == lengths
        ends = np.cumsum(lengths)
        assert ends[-1] <= T + 1
        assert not tokens[ends[-1] :].any()
        for end, (name, offset, length) in zip(ends, of_row, strict=True):
            yield tokens[end - length : end].tolist(), name, offset, length


@pytest.mark.slow
def test_spans_lead_back_to_the_tokens_of_the_documents(baked: tuple[Path, bake.BakedPart]) -> None:
    tokenizer = MixtureTokenizer()
    whole = {d.id: [1, *tokenizer.encode(d.text), 2] for d in documents()}
    predicted = {name: np.zeros(len(tokens), int) for name, tokens in whole.items()}
    for tokens, name, offset, length in read_rows(*baked):
        assert tokens == whole[name][offset : offset + length]
        predicted[name][offset + 1 : offset + length] += 1
    for counts in predicted.values():
        assert counts[0] == 0
        assert (counts[1:] == 1).all()


def test_counts(baked: tuple[Path, bake.BakedPart]) -> None:
    directory, part = baked
    tokenizer = MixtureTokenizer()
    assert part.documents == 60
    assert part.tokens == sum(len(tokenizer.encode(d.text)) + 1 for d in documents())
    assert part.text_bytes == sum(len(d.text.encode()) for d in documents())
    held = sum(length for *_, length in read_rows(directory, part))
    assert part.padding == pytest.approx(1 - held / (part.records * (T + 1)))
    assert part.sha256 == hashes(directory)[part.file]
    assert part.spans_sha256 == hashes(directory)[part.spans]
    assert part.tfrecord_sha256 == hashes(directory)[part.tfrecord]
    assert part.tfrecord_bytes == (directory / part.tfrecord).stat().st_size


def test_the_same_documents_give_the_same_bytes(
    baked: tuple[Path, bake.BakedPart], tmp_path: Path
) -> None:
    again = bake.bake_part("web-00000", "web", iter(documents()), tmp_path, CONFIG)
    assert asdict(again) == asdict(baked[1])
    assert hashes(tmp_path) == hashes(baked[0])


def test_documents_are_packed_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds a window of them, however many there are; nothing is lost at its edges."""
    seen = []

    def pack(lengths: np.ndarray, capacity: int) -> list[bake.Row]:
        seen.append(len(lengths))
        return kept(lengths, capacity)

    kept = bake.pack
    monkeypatch.setattr(bake, "pack", pack)
    monkeypatch.setattr(bake, "WINDOW_TOKENS", 300)
    monkeypatch.setattr(bake, "CHARACTERS_PER_BATCH", 200)
    part = bake.bake_part("web-00000", "web", documents(), tmp_path, CONFIG)
    assert len(seen) > 3
    assert max(seen) < 30
    got = [(name, offset, length) for _, name, offset, length in read_rows(tmp_path, part)]
    assert len(set(got)) == len(got)
    assert sum(length - 1 for *_, length in got) == part.tokens
    assert {name for name, *_ in got} == {d.id for d in documents()}


def test_token_dtype() -> None:
    assert bake.token_dtype(32_000).name == "uint16"
    assert bake.token_dtype(65_536).name == "uint16"
    assert bake.token_dtype(65_537).name == "uint32"
    tokens = np.array([1, 65_536, 2], bake.token_dtype(65_537))
    got = bake.record([(0, 0, 3)], tokens, np.array([0]), capacity=4)
    assert np.frombuffer(got, "<u4").tolist() == [1, 65_536, 2, 0, 3]


def test_group() -> None:
    assert bake.group([50, 50, 1, 200, 10, 90], 100) == [
        range(i, j) for i, j in [(0, 2), (2, 3), (3, 4), (4, 6)]
    ]
    assert bake.group([], 100) == []


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_part_without_documents(tmp_path: Path) -> None:
    part = bake.bake_part("web-00000", "web", [], tmp_path, CONFIG)
    assert (part.documents, part.tokens, part.records, part.padding) == (0, 0, 0, 0)
    assert records(tmp_path / part.file) == records(tmp_path / part.spans) == []


def test_refuses_documents_of_another_source(tmp_path: Path) -> None:
    mixed = [*documents(6), *documents(6, source="code")]
    with pytest.raises(ValueError, match="'code/é 0' has source 'code'"):
        bake.bake_part("web-00000", "web", mixed, tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[Document]:
        yield from documents(10)
        raise ValueError("the shard is truncated")

    with pytest.raises(ValueError, match="the shard is truncated"):
        bake.bake_part("web-00000", "web", broken(), tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_wrong_tokenizer(tmp_path: Path) -> None:
    model = tmp_path / "wrong.model"
    model.write_bytes(b"not a model")
    directory = tmp_path / "baked"
    with pytest.raises(ValueError, match=r"wrong\.model is not a SentencePiece model"):
        bake.bake_part("p", "web", documents(), directory, Baking(tokenizer=str(model)))
    assert not directory.exists()


@pytest.mark.slow
def test_a_full_disk_and_a_kill_leave_nothing_that_looks_done(
    baked: tuple[Path, bake.BakedPart], tmp_path: Path
) -> None:
    directory, part = baked
    assert 5_000 < part.tfrecord_bytes < 50_000 < (directory / part.file).stat().st_size
    program = f"""
import os, resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.data_pipeline.mixture.test_bake import CONFIG, bake, documents
from data_pipeline.storage.atomic import DiskFullError
bake.import_tensorflow()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (5_000, 50_000):  # within the TFRecord, which is written first; within the rows
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        bake.bake_part("web-00000", "web", documents(), {str(tmp_path)!r}, CONFIG)
    except DiskFullError as error:
        print(error.filename)
    print(sorted(os.listdir({str(tmp_path)!r})))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
bake.pack = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.stdout.flush()
bake.bake_part("web-00000", "web", documents(), {str(tmp_path)!r}, CONFIG)
"""
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert got.returncode == -9, got.stderr
    file = str(tmp_path / "web-00000.array_record")
    assert got.stdout.splitlines() == [file, "[]", file, "[]"]
    left = [path.name for path in tmp_path.iterdir()]
    assert left
    assert all(name.startswith(".web-00000.") and name.endswith(".partial") for name in left)
    bake.bake_part("web-00000", "web", documents(), tmp_path, CONFIG)
    whole = hashes(tmp_path)
    assert {name: whole[name] for name in whole if name not in left} == hashes(baked[0])


# -- the manifest ------------------------------------------------------------------------------


def parts_of(*sources: str, count: int = 2) -> Iterable[bake.BakedPart]:
    for source in sources:
        for i in range(count):
            name = f"{source}-{i}"
            yield bake.BakedPart(
                source,
                f"{name}.array_record",
                f"{name}.spans.array_record",
                f"{name}.tfrecord",
                documents=2,
                text_bytes=20,
                tokens=10,
                records=3,
            )


def with_files(directory: Path, parts: Iterable[bake.BakedPart]) -> list[bake.BakedPart]:
    parts = list(parts)
    for part in parts:
        for file in (part.file, part.spans, part.tfrecord):
            (directory / file).touch()
    return parts


SOURCES = [Source("web", category="web"), Source("code", tier=Tier.D3), Source("none")]


def test_manifest(tmp_path: Path) -> None:
    parts = with_files(tmp_path, parts_of("code", "web"))
    empty = with_files(tmp_path, parts_of("none", count=1))
    empty[0].documents = empty[0].tokens = empty[0].records = 0
    mixtures = {"stage1": {"D1": 3.0, "code": 1.0}}
    path = bake.write_manifest(tmp_path, SOURCES, [*parts, *empty], mixtures, CONFIG)
    manifest = json.loads(path.read_text("utf-8"))
    fingerprint = manifest.pop("fingerprint")
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert [s["name"] for s in manifest["sources"]] == ["web", "code", "none"]
    web, code, none = manifest["sources"]
    assert (web["category"], web["tier"]) == ("web", "D1")
    assert (code["category"], code["tier"]) == ("code", "D3")
    assert (web["documents"], web["tokens"], web["records"]) == (4, 20, 6)
    assert [f["file"] for f in web["files"]] == ["web-0.array_record", "web-1.array_record"]
    assert (none["tokens"], none["files"]) == (0, [])
    assert manifest["mixtures"] == {"stage1": {"web": 0.75, "code": 0.25}}
    assert (manifest["sequence_length"], manifest["tokens_per_record"]) == (T, T + 1)
    assert manifest["dtype"] == "uint16"
    copy = (tmp_path / manifest["tokenizer"]["file"]).read_bytes()
    assert hashlib.sha256(copy).hexdigest() == manifest["tokenizer"]["sha256"]


def test_held_out_data_has_no_mixture(tmp_path: Path) -> None:
    parts = with_files(tmp_path, parts_of("web"))
    path = bake.write_manifest(tmp_path, SOURCES, parts, {}, CONFIG)
    assert json.loads(path.read_text("utf-8"))["mixtures"] == {}


def test_refuses_a_manifest_of_what_is_not_there(tmp_path: Path) -> None:
    parts = with_files(tmp_path, parts_of("web"))
    with pytest.raises(ValueError, match=r"has source 'web'; the sources are \['code'\]"):
        bake.write_manifest(tmp_path, [Source("code")], parts, {}, CONFIG)
    with pytest.raises(ValueError, match="two sources have the same name"):
        bake.write_manifest(tmp_path, [Source("web"), Source("web")], parts, {}, CONFIG)
    (tmp_path / parts[1].spans).unlink()
    with pytest.raises(ValueError, match=r"web-1\.spans\.array_record is missing"):
        bake.write_manifest(tmp_path, SOURCES, parts, {}, CONFIG)
    assert not (tmp_path / "mixture.json").exists()

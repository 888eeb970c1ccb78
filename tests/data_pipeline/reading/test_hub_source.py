"""Hugging Face datasets, written here: every row once, however it is shared out; no network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import Reader, Reading, Source, Tier
from data_pipeline.reading import hub_source, sources
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.reading.listing import MissingSourceError
from data_pipeline.storage.compressed import CorruptInputError
from data_pipeline.storage.document import BadInput, Document
from tests.data_pipeline.builders import read_source

datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
ROWS = 25
README = """---
configs:
- config_name: english
  data_files:
  - split: train
    path: english/*.parquet
- config_name: other
  data_files:
  - split: train
    path: other/*.jsonl
---
A dataset.
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as on the hub, and two folders of `save_to_disk`."""
    root: Path = tmp_path_factory.mktemp("hub")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict(
        {
            "text": [f"Hare number {i}." for i in range(ROWS)],
            "kind": [i % 2 for i in range(ROWS)],
            "meta": [{"title": f"Title {i}"} for i in range(ROWS)],
            "messages": [[{"role": "user", "content": f"Hi {i}"}] for i in range(ROWS)],
        }
    ).cast_column("kind", datasets.ClassLabel(names=["web", "law"]))
    repository = root / "repository"
    (repository / "english").mkdir(parents=True)
    (repository / "other").mkdir()
    (repository / "README.md").write_text(README)
    for k in range(3):
        rows.shard(3, k).to_parquet(repository / "english" / f"train-{k:05d}-of-00003.parquet")
    (repository / "other" / "rows.jsonl").write_text('{"body": "No text."}\n')
    rows.save_to_disk(root / "saved", num_shards=2)
    datasets.DatasetDict({"train": rows, "test": rows.select(range(4))}).save_to_disk(root / "dict")
    return root


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    import huggingface_hub.constants

    cache = tmp_path_factory.getbasetemp() / "hub cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def source(folder: Path) -> Source:
    path = str(folder / "repository")
    return Source("hares", reader=Reader.HUGGING_FACE, path=path, subset="english")


def texts(source: Source) -> list[str]:
    return [row.text for row in read_source(source) if isinstance(row, Document)]


EVERY = [f"Hare number {i}." for i in range(ROWS)]


@pytest.mark.parametrize("streaming", [False, True])
def test_every_document_is_read_once_for_any_shard_size(
    source: Source, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    source = replace(source, streaming=streaming)
    whole = read_source(source)
    assert [row.text for row in whole if isinstance(row, Document)] == EVERY
    monkeypatch.setattr(hub_source, "ITEM_BYTES", 500)
    alone = Reading(shard_bytes=1)
    assert len(list_shards(source, alone)) == (3 if streaming else 4)
    assert read_source(source, alone) == whole
    assert len({row.id for row in whole if isinstance(row, Document)}) == ROWS


@pytest.mark.parametrize(
    ("path", "split", "expected"),
    [
        ("saved", "train", EVERY),
        ("saved", "train[:20%]", EVERY[:5]),
        ("dict", "train", EVERY),
        ("dict", "test", EVERY[:4]),
        ("dict", "train[20:]+test", EVERY[20:] + EVERY[:4]),
        ("repository", "train[20:]", EVERY[20:]),
    ],
)
def test_saved_datasets_and_slices(
    source: Source, folder: Path, path: str, split: str, expected: list[str]
) -> None:
    assert texts(replace(source, path=str(folder / path), split=split)) == expected


def test_documents_have_their_location_in_meta(source: Source) -> None:
    rows = read_source(source)
    assert [row.id for row in rows if isinstance(row, Document)][3] == "hares/train:3"
    assert [row.meta for row in rows if isinstance(row, Document)][3] == {"file": "train", "row": 3}


def test_nested_fields_and_labels(source: Source) -> None:
    source = replace(source, text_fields=("meta/title", "text"), category_field="kind")
    rows = [row for row in read_source(source) if isinstance(row, Document)]
    assert rows[1].text == "Title 1\n\nHare number 1."
    assert [row.category for row in rows[:2]] == ["web", "law"]


@pytest.mark.parametrize("streaming", [False, True])
def test_d3_sees_all_fields(source: Source, streaming: bool) -> None:
    source = replace(source, tier=Tier.D3, text_fields=("no_such",), streaming=streaming)
    assert texts(source) == [f"User: Hi {i}" for i in range(ROWS)]


@pytest.mark.parametrize("streaming", [False, True])
def test_invalid_utf8_is_quarantined_with_its_place(
    source: Source, tmp_path: Path, streaming: bool
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    ends, content = pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")
    column = pa.StringArray.from_buffers(2, ends, content)
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    good, bad = read_source(replace(source, path=str(tmp_path), subset="", streaming=streaming))
    assert isinstance(good, Document) and good.text == "ok"
    assert isinstance(bad, BadInput) and (bad.reason, bad.offset) == ("invalid_utf8", 1)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"path": "no-such/thing"},
            MissingSourceError,
            "the dataset 'no-such/thing' is not on this",
        ),
        ({"path": "/no/where"}, MissingSourceError, "the dataset '/no/where' is not on"),
        ({"path": ""}, MissingSourceError, "has no path. Set its `path` to a hub id or a folder"),
        ({"subset": "german"}, ValueError, r"'german' not found.*\['english', 'other'\]"),
        ({"split": "tost"}, ValueError, "source 'hares'.*Unknown split \"tost\""),
        ({"split": "tost", "streaming": True}, ValueError, "source 'hares'.*Bad split: tost"),
        ({"split": "train[:0]"}, ValueError, "corresponds to no data"),
        ({"text_fields": ("body",)}, ValueError, "no field 'body', only text, kind, meta"),
        ({"text_fields": ("kind",)}, ValueError, "'kind' of .* is ClassLabel.*expected text"),
        ({"text_fields": ("meta/no",)}, ValueError, "no field 'meta/no'"),
        ({"name": ""}, ValueError, "has no name. Set its `name`"),
    ],
)
def test_missing_datasets_are_reported(
    source: Source, change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        list_shards(replace(source, **change), Reading())


def test_missing_splits_of_saved_datasets_are_reported(source: Source, folder: Path) -> None:
    saved = replace(source, path=str(folder / "dict"))
    with pytest.raises(ValueError, match="no split 'dev'; there are train, test"):
        list_shards(replace(saved, split="dev"), Reading())
    with pytest.raises(ValueError, match="read in place; set `streaming` to False"):
        list_shards(replace(saved, streaming=True), Reading())


def test_a_missing_library_is_reported(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingSourceError, match=r"not installed: pip install 'hare-jax\[hub\]'"):
        list_shards(source, Reading())


def truncate(file: Path, keep: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])


@pytest.mark.parametrize("streaming", [False, True])
def test_a_truncated_file_is_an_error(
    source: Source, folder: Path, tmp_path: Path, streaming: bool
) -> None:
    for file in (folder / "repository" / "english").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    truncate(sorted(tmp_path.iterdir())[2], 0.8)
    source = replace(source, path=str(tmp_path), subset="", streaming=streaming)
    with pytest.raises(CorruptInputError, match=r"source 'hares': .*cannot be read"):
        read_source(source)


def test_a_truncated_saved_dataset_is_an_error(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    for file in (folder / "saved").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    truncate(sorted(tmp_path.glob("*.arrow"))[1], 0.5)
    with pytest.raises(CorruptInputError, match=r"cannot be read\. Download or create it again"):
        read_source(replace(source, path=str(tmp_path)))


def test_a_dataset_that_changed_has_another_fingerprint(source: Source, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "one"}\n')
    source = replace(source, path=str(tmp_path), subset="")
    (before,) = list_shards(source, Reading())
    file.write_text('{"text": "one"}\n{"text": "two"}\n')
    (after,) = list_shards(source, Reading())
    assert before.fingerprint != after.fingerprint
    with pytest.raises(ValueError, match="has changed since the run listed it"):
        list(sources.read(before, source, Reading()))
    assert texts(source) == ["one", "two"]


def test_the_commit_is_part_of_the_fingerprint(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library gives the commit of a hub id as the builder's hash.

    No hub is needed to see that it is in the fingerprint and that `revision` is passed on.
    """
    asked: list[str | None] = []
    load = datasets.load_dataset_builder

    def builder_of(path: str, *arguments: Any, revision: str | None = None) -> Any:
        asked.append(revision)
        builder = load(path, *arguments)
        builder.hash = revision or "newest"
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", builder_of)
    prints = [
        list_shards(replace(source, revision=revision), Reading())[0].fingerprint
        for revision in ("", "c0ffee", "decade")
    ]
    assert asked == [None, "c0ffee", "decade"]
    assert len(set(prints)) == 3

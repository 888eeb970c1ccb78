"""TFDS: a dataset that a real builder wrote gives every document once, whole or in slices."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import Reader, Reading, Source, Tier
from data_pipeline.execution.silence_stderr import silence_stderr
from data_pipeline.reading import sources, tfds_source
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.reading.listing import MissingSourceError
from data_pipeline.storage.compressed import CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput, Document
from tests.data_pipeline.builders import read_source

# TFDS calls what protobuf has deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
ROWS = 23
SHARDS = 4


def example(i: int) -> dict[str, Any]:
    return {
        "text": f"Häre number {i}.",
        "raw": b"\xff\xfe" if i == 5 else b"fine",
        "meta": {"title": f"Title {i}", "kind": "law" if i % 2 else "web"},
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"{i}"}],
        "tags": ["a"] * (i % 3),
        "picture": [[[0, 0, 0]]],
    }


@cache
def builder_class() -> Any:
    import numpy as np

    with silence_stderr():
        import tensorflow_datasets as tfds

    class Animals(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")
        code_path = None  # else TFDS looks for files beside this one
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain")]  # noqa: RUF012 (TFDS's interface)

        def _info(self) -> Any:
            features = {
                "text": tfds.features.Text(),
                "raw": tfds.features.Tensor(shape=(), dtype=np.object_),
                "meta": {
                    "title": tfds.features.Text(),
                    "kind": tfds.features.ClassLabel(names=["web", "law"]),
                },
                "messages": tfds.features.Sequence(
                    {"role": tfds.features.Text(), "content": tfds.features.Text()}
                ),
                "tags": tfds.features.Sequence(tfds.features.Text()),
                "picture": tfds.features.Image(shape=(1, 1, 3)),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {"train": self._generate_examples(ROWS), "test": self._generate_examples(SHARDS)}

        def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
            for i in range(count):
                yield i, example(i) | {"picture": np.zeros((1, 1, 3), np.uint8)}

    return Animals


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def data_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with silence_stderr():
        import tensorflow_datasets as tfds

    folder: Path = tmp_path_factory.mktemp("tfds")
    options = {"data_dir": str(folder), "file_format": request.param, "config": "plain"}
    logging.disable(logging.WARNING)
    try:
        with silence_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what TFDS imports to write
            builder_class()(**options).download_and_prepare(
                download_config=tfds.download.DownloadConfig(num_shards=SHARDS)
            )
    finally:
        logging.disable(logging.NOTSET)
    return folder


@pytest.fixture
def source(data_dir: Path) -> Source:
    return Source("animals_text", reader=Reader.TFDS, path="animals/plain", data_dir=str(data_dir))


def texts(source: Source) -> list[str]:
    return sorted(row.text for row in read_source(source) if isinstance(row, Document))


EVERY = sorted(example(i)["text"] for i in range(ROWS))


@pytest.mark.slow
def test_every_document_is_read_once_for_any_shard_size(source: Source) -> None:
    assert texts(source) == EVERY
    assert len(list_shards(source, Reading())) == 1
    alone = Reading(shard_bytes=1)
    assert len(list_shards(source, alone)) == SHARDS
    assert read_source(source, alone) == read_source(source)
    assert len({row.id for row in read_source(source) if isinstance(row, Document)}) == ROWS


def test_slices_are_parts_of_files_with_the_same_ids(source: Source) -> None:
    halves = [replace(source, split=f"train[{s}]") for s in ("10:", ":10")]
    first, second = (read_source(half) for half in halves)
    assert len(second) == 10
    key = {row.id: row for row in read_source(source) if isinstance(row, Document)}
    got = {row.id: row for row in [*first, *second] if isinstance(row, Document)}
    assert got == key
    assert len(read_source(replace(source, split="train+test"))) == ROWS + SHARDS
    assert len(read_source(replace(source, split="train[:2]+train[4:6]"))) == 4


def test_documents_have_their_location_in_meta(source: Source) -> None:
    source = replace(source, id_field="meta", category_field="nothing")
    for row in read_source(source):
        assert isinstance(row, Document)
        file, number = row.meta["file"], row.meta["row"]
        assert row.id == f"animals_text/{file}:{number}"
        (again,) = [
            r
            for f, r in tfds_source.read([file], source)
            if not isinstance(r, BadInput) and r.location["row"] == number
        ]
        assert again.fields["text"] == row.text


def test_nested_fields_and_labels(source: Source) -> None:
    rows = read_source(replace(source, text_fields=("meta/title", "text")))
    assert sorted(row.text for row in rows if isinstance(row, Document))[0] == (
        "Title 0\n\nHäre number 0."
    )
    names = [item.name for item in tfds_source.list_items(source)]
    rows = [r for _, r in tfds_source.read(names, replace(source, category_field="meta"))]
    assert {r.fields["meta"]["kind"] for r in rows if not isinstance(r, BadInput)} == {"web", "law"}


def test_d3_sees_a_conversation_as_json_would_have_it(source: Source) -> None:
    source = replace(source, tier=Tier.D3, text_fields=("no_such",))
    rows = read_source(source)
    assert {row.text for row in rows if isinstance(row, Document)} == {
        f"User: Hi\nAssistant: {i}" for i in range(ROWS) if i != 5
    }
    (bad,) = [row for row in rows if isinstance(row, BadInput)]
    assert (bad.reason, bad.raw) == ("invalid_utf8", b"\xff\xfe")


def test_invalid_utf8_is_quarantined_with_its_place(source: Source) -> None:
    rows = read_source(replace(source, text_fields=("raw",)))
    (bad,) = [row for row in rows if isinstance(row, BadInput)]
    assert bad.reason == "invalid_utf8" and "byte 0xff" in bad.detail
    assert len(rows) == ROWS


def test_the_folder_of_a_version_is_read_in_place(source: Source, data_dir: Path) -> None:
    folder = data_dir / "animals" / "plain" / "1.2.0"
    assert texts(replace(source, path=str(folder), data_dir="")) == EVERY


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            {"path": "fish"},
            MissingSourceError,
            "no prepared TFDS dataset 'fish' .* `tfds build fish",
        ),
        ({"path": "animals/odd"}, MissingSourceError, "no prepared TFDS dataset 'animals/odd'"),
        ({"path": "animals:9.0.0"}, MissingSourceError, "no prepared TFDS dataset 'animals:9.0.0'"),
        ({"path": "a b!"}, ValueError, "source 'animals_text': Parsing builder name"),
        ({"path": ""}, MissingSourceError, "has no path. Set its `path` to the name of a TFDS"),
        ({"data_dir": "/no/where"}, MissingSourceError, "in /no/where"),
        ({"split": "tost"}, ValueError, "has no split 'tost'; expected one of train, test"),
        ({"split": "train[:9z]"}, ValueError, r"has no split 'train\[:9z\]'"),
        ({"split": "train[:0]"}, MissingSourceError, "is empty"),
        (
            {"split": "train[:9]+train[8:]"},
            ValueError,
            "overlap, so some examples would be read tw",
        ),
        ({"text_fields": ("body",)}, ValueError, "no field 'body', only messages, meta/kind, meta"),
        ({"text_fields": ("meta/kind",)}, ValueError, "'meta/kind' of .* is ClassLabel, expected"),
        ({"text_fields": ("tags",)}, ValueError, "'tags' of .* is Sequence, expected text"),
        ({"name": ""}, ValueError, "the source with path 'animals/plain' has no name"),
    ],
)
def test_missing_datasets_are_reported(
    source: Source, change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        list_shards(replace(source, **change), Reading())


def test_a_missing_library_is_reported(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets.core", None)
    with pytest.raises(MissingSourceError, match=r"not installed: pip install 'hare-jax\[data\]'"):
        list_shards(source, Reading())


def damaged(source: Source, to: Path, keep: float) -> tuple[Source, Path]:
    """A copy of the dataset, the second of its files cut short."""
    shutil.copytree(source.data_dir, to, dirs_exist_ok=True)
    folder = to / "animals" / "plain" / "1.2.0"
    file = sorted(folder.glob("animals-train*"))[1]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    return replace(source, data_dir=str(to)), file


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_a_truncated_file_is_an_error(source: Source, tmp_path: Path, keep: float) -> None:
    source, file = damaged(source, tmp_path, keep)
    kind = CorruptInputError if ".array_record" in file.name else TruncatedInputError
    with pytest.raises(kind, match=f"{file.name}.* Copy, download or prepare it again"):
        read_source(source)


@pytest.mark.parametrize("data_dir", ["tfrecord"], indirect=True)  # ArrayRecord has an index
def test_a_file_cut_between_two_records_is_an_error_too(source: Source, tmp_path: Path) -> None:
    """TensorFlow reads such a file to its end without a word."""
    source, file = damaged(source, tmp_path, 1.0)
    content = file.read_bytes()
    first = 8 + 4 + int.from_bytes(content[:8], "little") + 4
    file.write_bytes(content[:first])
    with pytest.raises(
        TruncatedInputError, match=r"ends after 1 examples, expected \d by dataset_info\.json"
    ):
        read_source(source)


def test_damaged_bytes_are_an_error(source: Source, tmp_path: Path) -> None:
    source, file = damaged(source, tmp_path, 1.0)
    content = bytearray(file.read_bytes())
    content[130] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptInputError, match=file.name):
        read_source(source)


def test_a_missing_file_and_a_changed_one(source: Source, tmp_path: Path) -> None:
    source, file = damaged(source, tmp_path, 1.0)
    (shard,) = list_shards(source, Reading())
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ValueError, match="has changed since the run listed it"):
        list(sources.read(shard, source, Reading()))
    file.unlink()
    with pytest.raises(MissingSourceError, match=f"{file.name} is missing, but dataset_info"):
        list_shards(source, Reading())

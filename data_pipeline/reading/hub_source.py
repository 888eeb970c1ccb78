"""Reader of Hugging Face datasets: a hub id, a folder of data files, or a folder of `save_to_disk`.

By default the library converts a dataset of the hub or of data files to Arrow files in its cache.
An item is then a range of rows, so that any number of workers can share a dataset:

    train[0:2500]

With `streaming`, the files of the dataset are read directly, without a copy. An item is then a
shard as defined by the library, usually one file, with a name such as "train-00003-of-00128". The
extra `hub` installs the library.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config import Source, Tier
from data_pipeline.reading.files import PARQUET_BATCH_ROWS, RawRow, table_rows
from data_pipeline.reading.listing import META_FIELDS, InputFile, MissingSourceError
from data_pipeline.storage.compressed import CorruptInputError
from data_pipeline.storage.document import BadInput

INSTALL = "pip install 'hare-jax[hub]'"
ITEM_BYTES = 4 << 20  # Arrow bytes of a range of rows; consecutive ranges share a worker
STRINGS = ("string", "large_string", "string_view")


def list_items(source: Source, names: Collection[str] | None = None) -> list[InputFile]:
    """Lists the ranges of rows or the shards of the source's split, or those named in `names`.

    The version of an item contains the hub's commit, or the sizes and dates of local files.

    Raises:
      MissingSourceError: the library or the dataset is missing, or the network for a hub id.
      ValueError: the dataset lacks the subset, the split or a text field.
    """
    dataset, version = _open(source)
    _features_to_read(dataset, source)  # raises if a text field is missing
    sizes = _shards(dataset, source) if source.streaming else _ranges(dataset, source)
    if not sizes:
        raise MissingSourceError(
            f"source {source.name!r}: split {source.split!r} of {source.path} has no rows"
        )
    return [
        InputFile(name, size, version)
        for name, size in sizes.items()
        if names is None or name in names
    ]


def read(names: Sequence[str], source: Source) -> Iterator[tuple[str, RawRow | BadInput]]:
    """Yields (split or shard, row) for the named items.

    The location of a row is its index in the split or shard, from 0. Class labels are converted to
    their names.

    Raises:
      CorruptInputError: the library cannot continue to read.
    """
    dataset, _ = _open(source)
    features = _features_to_read(dataset, source)
    labels = {key: _label_names(feature) for key, feature in features.items()}
    dataset = dataset.select_columns(list(features)).with_format("arrow")
    for name in names:
        part, location, number = _item(dataset, name, source)
        with _as_corrupt_input(source, location):
            for table in part.iter(PARQUET_BATCH_ROWS):
                for row in table_rows(table, number, location):
                    if isinstance(row, RawRow):
                        _complete(row.fields, labels, source)
                    yield location, row
                number += table.num_rows


def _open(source: Source) -> tuple[Any, str]:
    """Opens the split of a source.

    Returns:
      The split as datasets.Dataset or IterableDataset, and a version that changes with its data.
    """
    if not source.path:
        raise MissingSourceError(
            f"source {source.name!r} has no path. Set its `path` to a hub id or a folder of a "
            "Hugging Face dataset"
        )
    try:
        import datasets
    except ImportError as error:
        raise MissingSourceError(
            f"source {source.name!r} is a Hugging Face dataset, and the library `datasets` is not "
            f"installed: {INSTALL} ({error})"
        ) from error
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # by default it logs each retry
    folder = Path(source.path).expanduser()
    is_saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        with _as_corrupt_input(source, f"split {source.split!r}"):
            return _from_disk(folder, source) if is_saved else _prepared(source)
    except (FileNotFoundError, ConnectionError) as error:
        raise MissingSourceError(
            f"source {source.name!r}: the dataset {source.path!r} is not on this machine, and it "
            f"was not found on the hub ({_first_line(error)}). Check the name and the network, or "
            "set `path` to a folder"
        ) from error
    except CorruptInputError:
        raise
    except ValueError as error:
        raise ValueError(f"source {source.name!r}, {source.path}: {_first_line(error)}") from error


def _from_disk(folder: Path, source: Source) -> tuple[Any, str]:
    """Opens a split of a dataset written by `save_to_disk`; returns it and its version."""
    import datasets

    if source.streaming:
        raise ValueError("a folder of save_to_disk is read in place; set `streaming` to False")
    saved = datasets.load_from_disk(str(folder))
    if not isinstance(saved, dict):
        saved = {str(saved.split or "train"): saved}
    rows = {name: len(dataset) for name, dataset in saved.items()}
    try:
        parts = datasets.ReadInstruction.from_spec(source.split).to_absolute(rows)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"no split {source.split!r}; there are {', '.join(rows)}") from error
    dataset = datasets.concatenate_datasets(
        [saved[part.splitname].select(range(part.from_, part.to)) for part in parts]
    )
    files = [Path(file["filename"]) for file in dataset.cache_files]
    states = [
        (file.parent.name, file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
    ]
    return dataset, repr(states)


def _prepared(source: Source) -> tuple[Any, str]:
    """Returns a split and its version; a dataset that is not streamed is downloaded if needed."""
    import datasets

    path = str(Path(source.path).expanduser()) if source.path.startswith("~") else source.path
    builder = datasets.load_dataset_builder(
        path, source.subset or None, revision=source.revision or None
    )
    version = f"{builder.config.name} {builder.hash}"  # hash of the hub's commit or local files
    if source.streaming:
        return builder.as_streaming_dataset(split=source.split), version
    builder.download_and_prepare()
    return builder.as_dataset(split=source.split), version


@contextlib.contextmanager
def _as_corrupt_input(source: Source, location: str) -> Iterator[None]:
    """Converts errors of the library, Arrow or the network to CorruptInputError with a location."""
    import pyarrow as pa
    from datasets import exceptions

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, exceptions.DatasetsError, EOFError) as error:
        cause = error.__cause__ or error
        raise CorruptInputError(
            f"source {source.name!r}: {location} of {source.path} cannot be read. Download or "
            f"create it again ({type(cause).__name__}: {_first_line(cause)})"
        ) from error


def _ranges(dataset: Any, source: Source) -> dict[str, int]:
    """Returns the name and the approximate size in bytes of each range of rows."""
    num_rows = len(dataset)
    row_bytes = max(1, dataset.data.nbytes // max(1, dataset.data.num_rows))
    step = max(1, ITEM_BYTES // row_bytes)
    ranges = [(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]
    return {f"{source.split}[{start}:{stop}]": (stop - start) * row_bytes for start, stop in ranges}


def _shards(dataset: Any, source: Source) -> dict[str, int]:
    """Returns the name and the approximate size in bytes of each shard of a streamed dataset."""
    count = dataset.num_shards
    size = dataset.info.dataset_size or dataset.info.size_in_bytes or 0
    return {
        f"{source.split}-{number:05d}-of-{count:05d}": size // count or ITEM_BYTES
        for number in range(count)
    }


def _item(dataset: Any, name: str, source: Source) -> tuple[Any, str, int]:
    """Returns the rows of an item, the split or shard they are in, and the index of the first."""
    if source.streaming:
        number, _, count = name.removeprefix(f"{source.split}-").partition("-of-")
        return dataset.shard(int(count), int(number)), name, 0
    split, _, rows = name.removesuffix("]").rpartition("[")
    start, stop = map(int, rows.split(":"))
    return dataset.select(range(start, stop)), split, start


def _features_to_read(dataset: Any, source: Source) -> dict[str, Any]:
    """Returns the columns that are read, with their features (None if a feature is not known).

    These are the fields of the source. For D3 without text fields they are all columns except
    images and audio.
    """
    features = dataset.features
    if features is None:  # a streamed dataset without a declaration of its features
        with _as_corrupt_input(source, "the first row"):
            features = dict.fromkeys(next(iter(dataset), {}))
    missing = [field for field in source.text_fields if not _has(features, field)]
    if not missing:
        for field in source.text_fields:
            _check_is_text(features, field, source)
        fields = [*source.text_fields, source.id_field, source.source_field]
        fields += [source.category_field, *META_FIELDS]
    elif source.tier is Tier.D3:
        fields = list(features)
    else:
        raise ValueError(
            f"source {source.name!r}: {source.path} has no field {missing[0]!r}, only "
            f"{', '.join(features)}. Name the fields that make the text in the source's text_fields"
        )
    tops = {field.partition("/")[0] for field in fields}
    return {
        key: feature
        for key, feature in features.items()
        if key in tops and not hasattr(feature, "decode_example")
    }


def _has(features: Any, field: str) -> bool:
    """Returns whether features have the field "a/b", or may have it because they are not known."""
    for key in field.split("/"):
        if features is None:
            return True
        if not (isinstance(features, dict) and key in features):
            return False
        features = features[key]
    return True


def _check_is_text(features: Any, field: str, source: Source) -> None:
    """Raises ValueError if a field is known not to hold strings."""
    feature = _value(features, field)
    if feature is not None and getattr(feature, "dtype", None) not in STRINGS:
        raise ValueError(
            f"source {source.name!r}: field {field!r} of {source.path} is {feature}, expected "
            "text. Name the fields that make the text in the source's text_fields"
        )


def _value(fields: Any, field: str) -> Any:
    """Returns the value of the nested field "a/b", or None if there is none."""
    for key in field.split("/"):
        if not isinstance(fields, dict):
            return None
        fields = fields.get(key)
    return fields


def _label_names(feature: Any) -> list[str]:
    """Returns the names of a class label feature, [] for other features."""
    from datasets import ClassLabel

    return list(feature.names) if isinstance(feature, ClassLabel) else []


def _complete(fields: dict[str, Any], labels: dict[str, list[str]], source: Source) -> None:
    """Replaces class labels by their names and adds text fields of the form "a/b"."""
    for key, names in labels.items():
        if names and isinstance(fields[key], int):
            fields[key] = names[fields[key]] if 0 <= fields[key] < len(names) else None
    for field in source.text_fields:
        if "/" in field:
            fields[field] = _value(fields, field)


def _first_line(error: BaseException) -> str:
    """Returns the first line of an error's message."""
    return str(error).partition("\n")[0]

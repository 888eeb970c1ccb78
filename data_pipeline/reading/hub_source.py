"""Hugging Face datasets as rows: a hub id, a folder of data files, or one of `save_to_disk`.

By default a dataset of the hub or of data files is first made into Arrow files in the library's
cache, and an item is a range of rows of it, so that any number of workers share it:

    train[0:2500]

With `streaming` its own files are read, without a copy: an item is what the library calls a shard,
one file as a rule, and "train-00003-of-00128" its name. The extra `hub` installs the library.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config import Source, Tier
from data_pipeline.reading.files import PARQUET_ROWS, RawRow, table_rows
from data_pipeline.reading.listing import InputFile, MissingSourceError
from data_pipeline.storage.compressed import CorruptInputError
from data_pipeline.storage.document import BadInput

INSTALL = "pip install 'hare-jax[hub]'"
ITEM_BYTES = 4 << 20  # Arrow bytes of a range of rows; neighboring ranges share a worker
# Fields of a row that are copied into a document's meta; data sets spell "license" both ways.
BESIDE_TEXT = ("licence", "license", "url")
STRINGS = ("string", "large_string", "string_view")


def items(source: Source, only: Collection[str] | None = None) -> list[InputFile]:
    """The ranges of rows or the shards of the source's split, or those named `only`.

    Their version holds the hub's commit, or the sizes and dates of local files. Raises
    MissingSourceError where the library or the dataset is not there (a hub id without a network too);
    ValueError for a subset, split or text field that it does not have.
    """
    dataset, version = _open(source)
    _wanted(dataset, source)
    sizes = _shards(dataset, source) if source.streaming else _ranges(dataset, source)
    if not sizes:
        raise MissingSourceError(
            f"source {source.name!r}: split {source.split!r} of {source.path} has no rows"
        )
    return [
        InputFile(name, size, version)
        for name, size in sizes.items()
        if only is None or name in only
    ]


def read(names: Sequence[str], source: Source) -> Iterator[tuple[str, RawRow | BadInput]]:
    """Yields (split or shard, row) of these items; a row's place is its number there, from 0.

    Class labels are given by name. Raises CorruptInputError where the library cannot read on.
    """
    dataset, _ = _open(source)
    features = _wanted(dataset, source)
    labels = {key: _label_names(feature) for key, feature in features.items()}
    dataset = dataset.select_columns(list(features)).with_format("arrow")
    for name in names:
        part, where, number = _part(dataset, name, source)
        with _damage_named(source, where):
            for table in part.iter(PARQUET_ROWS):
                for row in table_rows(table, number, where):
                    if isinstance(row, RawRow):
                        _complete(row.fields, labels, source)
                    yield where, row
                number += table.num_rows


def _open(source: Source) -> tuple[Any, str]:
    """The split as datasets.Dataset or IterableDataset, and what changes when its data does."""
    if not source.path:
        raise MissingSourceError(
            f"source {source.name!r} reads a Hugging Face dataset and has no path: a hub id or a "
            "folder"
        )
    try:
        import datasets
    except ImportError as error:
        raise MissingSourceError(
            f"source {source.name!r} reads a Hugging Face dataset, and the library `datasets` is "
            f"not installed: {INSTALL} ({error})"
        ) from error
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each try
    folder = Path(source.path).expanduser()
    saved = any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        with _damage_named(source, f"split {source.split!r}"):
            return _from_disk(folder, source) if saved else _prepared(source)
    except (FileNotFoundError, ConnectionError) as error:
        raise MissingSourceError(
            f"source {source.name!r}: there is no dataset {source.path!r} on this machine, and it "
            f"was not found on the hub ({_first_line(error)}). Check the name and the network, or "
            "give a folder"
        ) from error
    except CorruptInputError:
        raise
    except ValueError as error:
        raise ValueError(f"source {source.name!r}, {source.path}: {_first_line(error)}") from error


def _from_disk(folder: Path, source: Source) -> tuple[Any, str]:
    import datasets

    if source.streaming:
        raise ValueError("a folder of save_to_disk is read in place; leave out `streaming`")
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
    import datasets

    path = str(Path(source.path).expanduser()) if source.path.startswith("~") else source.path
    builder = datasets.load_dataset_builder(
        path, source.subset or None, revision=source.revision or None
    )
    version = f"{builder.config.name} {builder.hash}"  # of the hub's commit, or of local files
    if source.streaming:
        return builder.as_streaming_dataset(split=source.split), version
    builder.download_and_prepare()
    return builder.as_dataset(split=source.split), version


@contextlib.contextmanager
def _damage_named(source: Source, where: str) -> Iterator[None]:
    """What the library, Arrow or the network raise on the way, as CorruptInputError with its place."""
    import pyarrow as pa
    from datasets import exceptions

    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, exceptions.DatasetsError, EOFError) as error:
        cause = error.__cause__ or error
        raise CorruptInputError(
            f"source {source.name!r}: {where} of {source.path} cannot be read. Download or make it "
            f"again ({type(cause).__name__}: {_first_line(cause)})"
        ) from error


def _ranges(dataset: Any, source: Source) -> dict[str, int]:
    rows = len(dataset)
    row_bytes = max(1, dataset.data.nbytes // max(1, dataset.data.num_rows))
    step = max(1, ITEM_BYTES // row_bytes)
    ranges = [(start, min(start + step, rows)) for start in range(0, rows, step)]
    return {f"{source.split}[{start}:{stop}]": (stop - start) * row_bytes for start, stop in ranges}


def _shards(dataset: Any, source: Source) -> dict[str, int]:
    count = dataset.num_shards
    size = dataset.info.dataset_size or dataset.info.size_in_bytes or 0
    return {
        f"{source.split}-{number:05d}-of-{count:05d}": size // count or ITEM_BYTES
        for number in range(count)
    }


def _part(dataset: Any, name: str, source: Source) -> tuple[Any, str, int]:
    """(the rows of an item, where they are, the number of the first)."""
    if source.streaming:
        number, _, count = name.removeprefix(f"{source.split}-").partition("-of-")
        return dataset.shard(int(count), int(number)), name, 0
    where, _, rows = name.removesuffix("]").rpartition("[")
    start, stop = map(int, rows.split(":"))
    return dataset.select(range(start, stop)), where, start


def _wanted(dataset: Any, source: Source) -> dict[str, Any]:
    """column -> feature (None where it is not known) of what is read.

    That is the source's fields; for D3 without text fields all but pictures and sounds.
    """
    features = dataset.features
    if features is None:  # a stream of files that do not say
        with _damage_named(source, "the first row"):
            features = dict.fromkeys(next(iter(dataset), {}))
    lacking = [field for field in source.text_fields if not _has(features, field)]
    if not lacking:
        for field in source.text_fields:
            _check_is_text(features, field, source)
        fields = [*source.text_fields, source.id_field, source.source_field]
        fields += [source.category_field, *BESIDE_TEXT]
    elif source.tier is Tier.D3:
        fields = list(features)
    else:
        raise ValueError(
            f"source {source.name!r}: {source.path} has no field {lacking[0]!r}, only "
            f"{', '.join(features)}. Name those that make the text in the source's text_fields"
        )
    tops = {field.partition("/")[0] for field in fields}
    return {
        key: feature
        for key, feature in features.items()
        if key in tops and not hasattr(feature, "decode_example")
    }


def _has(features: Any, field: str) -> bool:
    for key in field.split("/"):
        if features is None:
            return True  # not known before it is read
        if not (isinstance(features, dict) and key in features):
            return False
        features = features[key]
    return True


def _check_is_text(features: Any, field: str, source: Source) -> None:
    feature = _value(features, field)
    if feature is not None and getattr(feature, "dtype", None) not in STRINGS:
        raise ValueError(
            f"source {source.name!r}: field {field!r} of {source.path} is {feature}, expected "
            "text. Name the fields that make the text in the source's text_fields"
        )


def _value(fields: Any, field: str) -> Any:
    """What stands at "a/b", None where nothing does."""
    for key in field.split("/"):
        if not isinstance(fields, dict):
            return None
        fields = fields.get(key)
    return fields


def _label_names(feature: Any) -> list[str]:
    from datasets import ClassLabel

    return list(feature.names) if isinstance(feature, ClassLabel) else []


def _complete(fields: dict[str, Any], labels: dict[str, list[str]], source: Source) -> None:
    """Class labels by their names, and text fields of the form "a/b"."""
    for key, names in labels.items():
        if names and isinstance(fields[key], int):
            fields[key] = names[fields[key]] if 0 <= fields[key] < len(names) else None
    for field in source.text_fields:
        if "/" in field:
            fields[field] = _value(fields, field)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]

"""Reader of prepared TensorFlow Datasets (TFDS); an item is a file of a split, or a slice of one.

Only prepared files are read, as described by their features.json: no code of a dataset is run, and
nothing is downloaded. TFRecord files need TensorFlow, which is imported on first use; ArrayRecord
files do not.

    my_corpus-train.tfrecord-00001-of-00003          all examples of the file
    my_corpus-train.tfrecord-00001-of-00003[0:40]    the part of it that is in "train[:10%]"
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config import Source, Tier
from data_pipeline.execution.silence_stderr import silence_stderr
from data_pipeline.reading.files import RawRow, invalid_utf8
from data_pipeline.reading.listing import META_FIELDS, InputFile, MissingSourceError
from data_pipeline.storage.compressed import CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput

BATCH_RECORDS = 256  # of an ArrayRecord file, held in memory at once


def list_items(source: Source, names: Collection[str] | None = None) -> list[InputFile]:
    """Lists the files of the source's split, or those named in `names`.

    Raises:
      MissingSourceError: there is no prepared dataset of this name.
      ValueError: the dataset lacks the split or a text field.
    """
    builder = _builder(source)
    _features_to_read(builder.info.features, source)  # raises if a text field is missing
    result = []
    for name, slice_ in _slices(builder, source).items():
        if names is None or name in names:
            size, modified = _status(slice_.filename, name)
            share = slice_.take / max(slice_.examples_in_shard, 1)
            version = f"{builder.info.full_name} {slice_.examples_in_shard} {modified}"
            result.append(InputFile(name, round(size * share), version))
    return result


def read(names: Sequence[str], source: Source) -> Iterator[tuple[str, RawRow | BadInput]]:
    """Yields (file, row) for the named items.

    The location of a row is its index in the file, from 0. Strings are decoded, class labels are
    converted to their names, and a sequence of dictionaries becomes a list.

    Raises:
      TruncatedInputError: a file has fewer examples than dataset_info.json states.
      CorruptInputError: a file is damaged.
    """
    builder = _builder(source)
    slices = _slices(builder, source)
    features = _features_to_read(builder.info.features, source)
    for name in names:
        slice_ = slices[name]
        file = name.partition("[")[0]
        number = slice_.skip
        for record in _records(slice_, file):
            yield file, _row(record, number, file, features, source)
            number += 1
        if number < slice_.skip + slice_.take:
            raise TruncatedInputError(
                f"{file} ends after {number:,} examples, expected {slice_.examples_in_shard:,} by "
                "dataset_info.json. Copy, download or prepare it again."
            )


def _builder(source: Source) -> Any:
    """Returns the tfds.core.DatasetBuilder of the prepared files."""
    if not source.path:
        raise MissingSourceError(
            f"source {source.name!r} has no path. Set its `path` to the name of a TFDS dataset"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from etils import epath
        from tensorflow_datasets.core import constants, read_only_builder, registered
    except ImportError as error:
        raise MissingSourceError(
            f"source {source.name!r} is a TFDS dataset, and tensorflow-datasets is not installed: "
            f"pip install 'hare-jax[data]' ({error})"
        ) from error
    path, data_dir = (
        str(epath.Path(path).expanduser())
        for path in (source.path, source.data_dir or constants.DATA_DIR)
    )
    try:
        if epath.Path(path, "dataset_info.json").exists():
            return read_only_builder.builder_from_directory(path)
        return read_only_builder.builder_from_files(source.path, data_dir=data_dir)
    except (registered.DatasetNotFoundError, FileNotFoundError) as error:
        raise MissingSourceError(
            f"source {source.name!r}: no prepared TFDS dataset {source.path!r} in {data_dir}. "
            f"Prepare it with `tfds build {source.path} --data_dir={data_dir}`, or set the "
            "source's data_dir to its folder"
        ) from error
    except ValueError as error:  # not a valid name, or a dataset in two folders
        message = str(error).partition("\n")[0]
        raise ValueError(
            f"source {source.name!r}: {message} Expected the name of a TFDS dataset"
        ) from error


def _slices(builder: Any, source: Source) -> dict[str, Any]:
    """Returns the slices of files of the source's split that are not empty.

    Returns:
      Item name -> tfds FileInstruction(filename, skip, take, examples_in_shard).
    """
    try:
        instructions = builder.info.splits[source.split].file_instructions
    except ValueError as error:
        raise ValueError(
            f"source {source.name!r}: {builder.info.full_name} has no split {source.split!r}; "
            f"expected one of {', '.join(builder.info.splits)}, or a slice such as 'train[:10%]'"
        ) from error
    ends: dict[str, int] = {}  # file name -> index after the last example of the slices so far
    for slice_ in sorted(instructions, key=lambda slice_: (slice_.filename, slice_.skip)):
        if slice_.skip < ends.get(slice_.filename, 0):
            raise ValueError(
                f"source {source.name!r}: the slices of {source.split!r} overlap, so some examples "
                "would be read twice. Let each slice begin where the one before ends"
            )
        ends[slice_.filename] = slice_.skip + slice_.take
    slices = {}
    for slice_ in instructions:
        name = Path(slice_.filename).name
        if slice_.take < slice_.examples_in_shard:
            name += f"[{slice_.skip}:{slice_.skip + slice_.take}]"
        if slice_.take:
            slices[name] = slice_
    if not slices:
        raise MissingSourceError(
            f"source {source.name!r}: split {source.split!r} of {builder.info.full_name} is empty"
        )
    return slices


def _features_to_read(features: Any, source: Source) -> Any:
    """Returns the features that are read: the source's fields, or all for D3 without text fields.

    Images, audio and video are never decoded.
    """
    from tensorflow_datasets import features as kinds

    fields = [source.id_field, source.source_field, source.category_field, *META_FIELDS]
    if all(_feature(features, field) is not None for field in source.text_fields):
        fields += source.text_fields
        for field in source.text_fields:
            _check_is_text(features, field, source)
    elif source.tier is Tier.D3:
        fields = list(features)
    else:
        missing = next(f for f in source.text_fields if _feature(features, f) is None)
        raise ValueError(
            f"source {source.name!r}: {source.path} has no field {missing!r}, only "
            f"{', '.join(sorted(_field_names(features)))}. Name the fields that make the text in "
            "the source's text_fields"
        )
    tops = {field.partition("/")[0] for field in fields} & set(features)
    not_text = (kinds.Image, kinds.Audio, kinds.Video, kinds.Dataset)
    return kinds.FeaturesDict(
        {top: features[top] for top in sorted(tops) if not isinstance(features[top], not_text)}
    )


def _check_is_text(features: Any, field: str, source: Source) -> None:
    """Raises ValueError if a field does not hold one string per row."""
    from tensorflow_datasets import features as kinds

    feature = _feature(features, field)
    is_scalar = isinstance(feature, kinds.Tensor) and feature.shape == ()
    if not (is_scalar and not isinstance(feature, kinds.ClassLabel) and _holds_strings(feature)):
        raise ValueError(
            f"source {source.name!r}: field {field!r} of {source.path} is "
            f"{type(feature).__name__}, expected text. Name the fields that make the text in the "
            "source's text_fields"
        )


def _holds_strings(feature: Any) -> bool:
    """Returns whether the numpy type of a feature is a string type."""
    import numpy as np

    return np.dtype(feature.np_dtype).kind in "OSU"


def _feature(features: Any, field: str) -> Any:
    """Returns the feature (or value) of the nested field "a/b", or None if there is none."""
    for key in field.split("/"):
        if not (_is_dictionary(features) and key in features):
            return None
        features = features[key]
    return features


def _is_dictionary(value: Any) -> bool:
    """Returns whether a value is a dictionary of values or features."""
    from tensorflow_datasets import features as kinds

    return isinstance(value, dict | kinds.FeaturesDict)


def _field_names(features: Any, prefix: str = "") -> Iterator[str]:
    """Yields the names of all fields, of nested ones as "a/b"."""
    for key in features:
        if _is_dictionary(features[key]):
            yield from _field_names(features[key], f"{prefix}{key}/")
        else:
            yield prefix + key


def _records(slice_: Any, file: str) -> Iterator[bytes]:
    """Yields the serialized examples of a slice of a file."""
    if ".array_record" in file:
        yield from _array_records(slice_, file)
        return
    tf = _tensorflow()
    dataset = tf.data.TFRecordDataset(slice_.filename).skip(slice_.skip).take(slice_.take)
    num_read = 0
    try:
        for record in dataset.as_numpy_iterator():
            yield record
            num_read += 1
    except tf.errors.DataLossError as error:
        message = str(error.message)
        error_type = TruncatedInputError if "truncated" in message else CorruptInputError
        raise error_type(
            f"{file} cannot be read beyond {slice_.skip + num_read:,} of "
            f"{slice_.examples_in_shard:,} examples ({message}). Copy, download or prepare it "
            "again."
        ) from error


def _tensorflow() -> Any:
    """Imports TensorFlow without its log messages and without GPUs."""
    with silence_stderr():
        import tensorflow

        # TensorFlow raises if it is already initialized; its devices are then left as they are.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def _array_records(slice_: Any, file: str) -> Iterator[bytes]:
    """Yields the serialized examples of a slice of an ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    start = slice_.skip
    try:
        reader = ArrayRecordReader(str(slice_.filename))
        while start < (stop := min(start + BATCH_RECORDS, slice_.skip + slice_.take)):
            yield from reader.read(start, stop)
            start = stop
        reader.close()
    except (ValueError, IndexError, RuntimeError, OSError) as error:
        raise CorruptInputError(
            f"{file} cannot be read beyond {start:,} of {slice_.examples_in_shard:,} examples "
            f"({error}). Copy, download or prepare it again."
        ) from error


def _row(record: bytes, number: int, file: str, features: Any, source: Source) -> RawRow | BadInput:
    """Parses a serialized example, which is row `number` of its file."""
    try:
        fields = _plain(features.deserialize_example_np(record), features)
    except UnicodeDecodeError as error:
        return invalid_utf8(file, number, error.object, error)
    for field in source.text_fields:
        if "/" in field:
            fields[field] = _feature(fields, field)
    return RawRow(number, fields, {"row": number})


def _plain(value: Any, feature: Any) -> Any:
    """Converts a value of TFDS to the types of JSON."""
    from tensorflow_datasets import features as kinds

    if isinstance(feature, kinds.FeaturesDict):
        return {key: _plain(value[key], feature[key]) for key in value}
    if isinstance(feature, kinds.Sequence):
        inner = feature.feature
        # TFDS stores a list of dictionaries as a dictionary of lists.
        if isinstance(inner, kinds.FeaturesDict):
            columns = {key: _plain(value[key], kinds.Sequence(inner[key])) for key in value}
            rows = zip(*columns.values(), strict=True)
            return [dict(zip(columns, row, strict=True)) for row in rows]
        return [_plain(element, inner) for element in value]
    if isinstance(feature, kinds.ClassLabel):
        return feature.int2str(int(value)) if value >= 0 else None
    if isinstance(value, bytes):
        return value.decode()
    return value.tolist() if hasattr(value, "tolist") else value


def _status(path: str, name: str) -> tuple[int, int]:
    """Returns the size in bytes and the modification time of a local or remote file."""
    from etils import epath

    try:
        status = epath.Path(path).stat()
    except OSError as error:
        raise MissingSourceError(
            f"{name} is missing, but dataset_info.json lists it. Copy or prepare the dataset again "
            f"({error.strerror or error})"
        ) from error
    return status.length, status.mtime

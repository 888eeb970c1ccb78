"""Prepared TensorFlow datasets (TFDS) as rows: an item is a file of a split, or a slice of one.

Only what lies there is read, by its own features.json: no dataset's code is run, nothing is
downloaded. TFRecord files are read by TensorFlow, imported on first use; ArrayRecord files without.

    my_corpus-train.tfrecord-00001-of-00003          all examples of that file
    my_corpus-train.tfrecord-00001-of-00003[0:40]    the part of it that "train[:10%]" means
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config import Source, Tier
from data_pipeline.execution.silence_stderr import silence_stderr
from data_pipeline.reading.files import RawRow
from data_pipeline.reading.listing import InputFile, MissingSourceError
from data_pipeline.storage.compressed import HEAD_BYTES, CorruptInputError, TruncatedInputError
from data_pipeline.storage.document import BadInput

# Fields of a row that are copied into a document's meta; data sets spell "license" both ways.
BESIDE_TEXT = ("licence", "license", "url")
RECORDS = 256  # of an ArrayRecord file that are held at once


def items(source: Source, only: Collection[str] | None = None) -> list[InputFile]:
    """The files of the source's split, or those named `only`.

    Raises MissingSourceError where there is no prepared dataset of this name; ValueError for a split or
    a text field that it does not have.
    """
    builder = _builder(source)
    _wanted(builder.info.features, source)
    found = []
    for name, part in _parts(builder, source).items():
        if only is None or name in only:
            size, modified = _status(part.filename, name)
            share = part.take / max(part.examples_in_shard, 1)
            version = f"{builder.info.full_name} {part.examples_in_shard} {modified}"
            found.append(InputFile(name, round(size * share), version))
    return found


def read(names: Sequence[str], source: Source) -> Iterator[tuple[str, RawRow | BadInput]]:
    """Yields (file, row) of these items; a row's place is its number in the file, from 0.

    Strings are decoded, class labels are given by name, a sequence of dictionaries is a list.
    Raises TruncatedInputError or CorruptInputError with the file.
    """
    builder = _builder(source)
    parts = _parts(builder, source)
    features = _wanted(builder.info.features, source)
    for name in names:
        part = parts[name]
        file = name.partition("[")[0]
        number = part.skip
        for record in _records(part, file):
            yield file, _row(record, number, file, features, source)
            number += 1
        if number < part.skip + part.take:
            raise TruncatedInputError(
                f"{file} ends after {number:,} examples, dataset_info.json says "
                f"{part.examples_in_shard:,}. It has to be copied, downloaded or prepared again."
            )


def _builder(source: Source) -> Any:
    """The tfds.core.DatasetBuilder over the prepared files."""
    if not source.path:
        raise MissingSourceError(
            f"source {source.name!r} reads TFDS and has no path: a dataset's name"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from etils import epath
        from tensorflow_datasets.core import constants, read_only_builder, registered
    except ImportError as error:
        raise MissingSourceError(
            f"source {source.name!r} reads a TFDS dataset, and tensorflow-datasets is not "
            f"installed: pip install 'hare-jax[data]' ({error})"
        ) from error
    path, where = (
        str(epath.Path(path).expanduser())
        for path in (source.path, source.data_dir or constants.DATA_DIR)
    )
    try:
        if epath.Path(path, "dataset_info.json").exists():
            return read_only_builder.builder_from_directory(path)
        return read_only_builder.builder_from_files(source.path, data_dir=where)
    except (registered.DatasetNotFoundError, FileNotFoundError) as error:
        raise MissingSourceError(
            f"source {source.name!r}: no prepared TFDS dataset {source.path!r} in {where}. Prepare "
            f"it with `tfds build {source.path} --data_dir={where}`, or name its folder as the "
            "source's data_dir"
        ) from error
    except ValueError as error:  # no name at all, or one in two places
        said = str(error).partition("\n")[0]
        raise ValueError(f"source {source.name!r}: {said} It names a TFDS dataset") from error


def _parts(builder: Any, source: Source) -> dict[str, Any]:
    """name -> tfds FileInstruction(filename, skip, take, examples_in_shard), none of them empty."""
    try:
        instructions = builder.info.splits[source.split].file_instructions
    except ValueError as error:
        raise ValueError(
            f"source {source.name!r}: {builder.info.full_name} has no split {source.split!r}; "
            f"there are {', '.join(builder.info.splits)}, and slices of them as 'train[:10%]'"
        ) from error
    ends: dict[str, int] = {}
    for part in sorted(instructions, key=lambda part: (part.filename, part.skip)):
        if part.skip < ends.get(part.filename, 0):
            raise ValueError(
                f"source {source.name!r}: the slices of {source.split!r} overlap: some examples "
                "would be read twice. Let each begin where the one before ends"
            )
        ends[part.filename] = part.skip + part.take
    parts = {}
    for part in instructions:
        name = Path(part.filename).name
        if part.take < part.examples_in_shard:
            name += f"[{part.skip}:{part.skip + part.take}]"
        if part.take:
            parts[name] = part
    if not parts:
        raise MissingSourceError(
            f"source {source.name!r}: split {source.split!r} of {builder.info.full_name} is empty"
        )
    return parts


def _wanted(features: Any, source: Source) -> Any:
    """The features that are read: those of the source's fields; for D3 without text fields, all.

    Pictures and sounds are never decoded.
    """
    from tensorflow_datasets import features as kinds

    fields = [source.id_field, source.source_field, source.category_field, *BESIDE_TEXT]
    if all(_feature(features, field) is not None for field in source.text_fields):
        fields += source.text_fields
        for field in source.text_fields:
            _check_is_text(features, field, source)
    elif source.tier is Tier.D3:
        fields = list(features)
    else:
        lacking = next(f for f in source.text_fields if _feature(features, f) is None)
        raise ValueError(
            f"source {source.name!r}: {source.path} has no field {lacking!r}, only "
            f"{', '.join(sorted(_names(features)))}. Name those that make the text in the source's "
            "text_fields"
        )
    tops = {field.partition("/")[0] for field in fields} & set(features)
    not_text = (kinds.Image, kinds.Audio, kinds.Video, kinds.Dataset)
    return kinds.FeaturesDict(
        {top: features[top] for top in sorted(tops) if not isinstance(features[top], not_text)}
    )


def _check_is_text(features: Any, field: str, source: Source) -> None:
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
    import numpy as np

    return np.dtype(feature.np_dtype).kind in "OSU"


def _feature(features: Any, field: str) -> Any:
    """The feature (or value) at "a/b", None where there is none."""
    for key in field.split("/"):
        if not (_is_dictionary(features) and key in features):
            return None
        features = features[key]
    return features


def _is_dictionary(value: Any) -> bool:
    from tensorflow_datasets import features as kinds

    return isinstance(value, dict | kinds.FeaturesDict)


def _names(features: Any, above: str = "") -> Iterator[str]:
    for key in features:
        if _is_dictionary(features[key]):
            yield from _names(features[key], f"{above}{key}/")
        else:
            yield above + key


def _records(part: Any, file: str) -> Iterator[bytes]:
    """The serialized examples skip .. skip + take of a file."""
    if ".array_record" in file:
        yield from _array_records(part, file)
        return
    tf = _tensorflow()
    dataset = tf.data.TFRecordDataset(part.filename).skip(part.skip).take(part.take)
    done = 0
    try:
        for record in dataset.as_numpy_iterator():
            yield record
            done += 1
    except tf.errors.DataLossError as error:
        what = str(error.message)
        kind = TruncatedInputError if "truncated" in what else CorruptInputError
        raise kind(
            f"{file} cannot be read beyond {part.skip + done:,} of {part.examples_in_shard:,} "
            f"examples ({what}). It has to be copied, downloaded or prepared again."
        ) from error


def _tensorflow() -> Any:
    with silence_stderr():
        import tensorflow

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already, as its user set it up
            tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def _array_records(part: Any, file: str) -> Iterator[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    at = part.skip
    try:
        reader = ArrayRecordReader(str(part.filename))
        while at < (end := min(at + RECORDS, part.skip + part.take)):
            yield from reader.read(at, end)
            at = end
        reader.close()
    except (ValueError, IndexError, RuntimeError, OSError) as error:
        raise CorruptInputError(
            f"{file} cannot be read beyond {at:,} of {part.examples_in_shard:,} examples "
            f"({error}). It has to be copied, downloaded or prepared again."
        ) from error


def _row(record: bytes, number: int, file: str, features: Any, source: Source) -> RawRow | BadInput:
    try:
        fields = _plain(features.deserialize_example_np(record), features)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{error.object[error.start]:02x}, {error.start} bytes in: {error.reason}"
        return BadInput("invalid_utf8", file, number, detail, error.object[:HEAD_BYTES])
    for field in source.text_fields:
        if "/" in field:
            fields[field] = _feature(fields, field)
    return RawRow(number, fields, {"row": number})


def _plain(value: Any, feature: Any) -> Any:
    """What TFDS gives, as it would stand in JSON."""
    from tensorflow_datasets import features as kinds

    if isinstance(feature, kinds.FeaturesDict):
        return {key: _plain(value[key], feature[key]) for key in value}
    if isinstance(feature, kinds.Sequence):
        inner = feature.feature
        if isinstance(inner, kinds.FeaturesDict):  # TFDS turns a list of dictionaries inside out
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
    """(bytes, time of the last change) of a file, here or in a bucket."""
    from etils import epath

    try:
        status = epath.Path(path).stat()
    except OSError as error:
        raise MissingSourceError(
            f"{name} is missing, though dataset_info.json beside it lists it: copy or prepare the "
            f"dataset again ({error.strerror or error})"
        ) from error
    return status.length, status.mtime

r"""Writes documents as TFRecord for SeqIO, and as packed token records for training.

    web-00000.tfrecord              documents {id, text, source, category}, for the SeqIO task
    web-00000.array_record          packed records of sequence_length + 1 tokens
    web-00000.spans.array_record    the documents in each record
    tokenizer.model                 a copy of the tokenizer
    mixture.json                    sources, counts, hashes, mixtures; written last

With sequence_length 7, two documents of 5 and 3 tokens (BOS and EOS included) make the record

    tokens, uint16      1 382 4585 460 2   1 4102 2     padded with 0 if fewer than 8
    lengths, uint32     5 3
    spans, JSON         [["web/0", 0, 5], ["web/1", 0, 3]]    id, offset in its tokens, length

To bake is to tokenize, pack and write. A part is one set of the three files, baked by one worker;
the same documents give the same bytes. The tokens of the records equal those of the SeqIO task's
examples; encoder.py computes them faster than TensorFlow does.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipeline.config import Baking, Source
from data_pipeline.execution.manifest import digest, file_sha256
from data_pipeline.mixture.encoder import encoder_of
from data_pipeline.mixture.packing import Row, pack, padding_share
from data_pipeline.mixture.tasks import import_tensorflow
from data_pipeline.mixture.tokenizer import MixtureTokenizer, open_tokenizer
from data_pipeline.mixture.weights import resolve_weights
from data_pipeline.storage.atomic import DISK_FULL, KEPT, DiskFullError, atomic_files, write_text
from data_pipeline.storage.document import Document
from data_pipeline.storage.object_store import storage_path
from data_pipeline.text.ngrams import batches

SCHEMA = 1
TOKENIZER_FILE = "tokenizer.model"
# Tokens that are packed together. A larger window saves less than .01 % of padding.
WINDOW_TOKENS = 1 << 22
CHARACTERS_PER_BATCH = 1 << 20  # encoded together


@dataclass(slots=True)
class BakedPart:
    """The files that one worker baked from one source, as listed in mixture.json.

    `file`, `spans` and `tfrecord` are relative to mixture.json. `text_bytes` counts UTF-8. `tokens`
    counts predicted tokens: all but the first of each document. `padding` is the share of the
    records' positions without a token, in [0, 1].
    """

    source: str
    file: str
    spans: str
    tfrecord: str
    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0
    records: int = 0
    padding: float = 0.0
    sha256: str = ""
    spans_sha256: str = ""
    tfrecord_sha256: str = ""
    tfrecord_bytes: int = 0


def group(sizes: Sequence[int], part_bytes: int) -> list[range]:
    """Groups consecutive shards of a source into parts of at most `part_bytes` of text.

    A larger shard is a part of its own. The result depends on the sizes only, not on the workers.

    Args:
      sizes: bytes of text of each shard.
      part_bytes: maximum bytes of text of a part.

    Returns:
      For each part, the range of its shards' indices.

    >>> group([50, 40, 30, 200, 10], part_bytes=100)
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    parts: list[range] = []
    size = 0
    for index, more in enumerate(sizes):
        if parts and size + more <= part_bytes:
            parts[-1] = range(parts[-1].start, index + 1)
            size += more
        else:
            parts.append(range(index, index + 1))
            size = more
    return parts


def bake_part(
    name: str, source: str, documents: Iterable[Document], directory: str | Path, config: Baking
) -> BakedPart:
    """Writes NAME.tfrecord, NAME.array_record and NAME.spans.array_record into `directory`.

    Documents are streamed. No file appears under its name before all three are complete. A part
    without documents has three empty files.

    Args:
      name: stem of the files.
      source: name of the source that every document must have.
      documents: read once, in order.
      directory: a local folder or an address in an object store.
      config: sequence length and tokenizer.

    Returns:
      The part, with its counts and hashes.

    Raises:
      ValueError: a document has another source, or the tokenizer's file is not a tokenizer.
      DiskFullError: there is no space left for a file.
    """
    directory = storage_path(directory)
    tokenizer = open_tokenizer(config.tokenizer)
    part = BakedPart(
        source, f"{name}.array_record", f"{name}.spans.array_record", f"{name}.tfrecord"
    )
    files = [directory / file for file in (part.file, part.spans, part.tfrecord)]
    with _atomic_record_files(files) as (rows_file, spans_file, tfrecord):
        windows = _windows(_write_tfrecord(tfrecord, documents, part), tokenizer)
        _write_rows(rows_file, spans_file, windows, config.sequence_length + 1, tokenizer, part)
        part.sha256, part.spans_sha256, part.tfrecord_sha256 = (
            file_sha256(file) for file in (rows_file, spans_file, tfrecord)
        )
        part.tfrecord_bytes = tfrecord.stat().st_size
    return part


def write_manifest(
    directory: str | Path,
    sources: Sequence[Source],
    parts: Iterable[BakedPart],
    mixtures: Mapping[str, Mapping[str, float]],
    config: Baking,
    *,
    allow_missing: bool = False,
    note: Callable[[str], object] = print,
) -> Path:
    """Copies the tokenizer into `directory`, writes mixture.json, and returns its path.

    Args:
      directory: a local folder or an address in an object store.
      sources: their order defines the source ids.
      parts: their order defines the record ids of each source.
      mixtures: name -> {source or tier: weight}; {} for held-out documents.
      config: sequence length and tokenizer.
      allow_missing: gives the weight of sources without tokens to the others.
      note: called with a line for each weight that was moved.

    Raises:
      ValueError: a part has an unknown source, or two sources have one name; also as
        `resolve_weights`.
    """
    directory = storage_path(directory)
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"two sources have the same name: {sorted(names)}; rename one of them")
    by_source: dict[str, list[BakedPart]] = {name: [] for name in names}
    for part in parts:
        if part.source not in by_source:
            raise ValueError(
                f"part {part.file} has source {part.source!r}; the sources are {names}"
            )
        for file in (part.file, part.spans, part.tfrecord):
            if not (directory / file).is_file():
                raise ValueError(f"{directory / file} is missing: bake its part again")
        by_source[part.source].append(part)
    rows = [_source_row(source, by_source[source.name]) for source in sources]
    tokenizer = open_tokenizer(config.tokenizer)
    with _atomic_record_files([directory / TOKENIZER_FILE]) as (copy,):
        copy.write_bytes(tokenizer.model)
    manifest = {
        "schema": SCHEMA,
        "tokenizer": {"file": TOKENIZER_FILE, **tokenizer.describe()},
        "sequence_length": config.sequence_length,
        "tokens_per_record": config.sequence_length + 1,
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "sources": rows,
        "mixtures": resolve_weights(mixtures, rows, allow_missing=allow_missing, note=note),
    }
    path = directory / "mixture.json"
    text = json.dumps({"fingerprint": digest(manifest), **manifest}, indent=1, ensure_ascii=False)
    write_text(path, text + "\n")
    return path


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns uint16 if it holds every id, else uint32, both little-endian."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _source_row(source: Source, parts: Sequence[BakedPart]) -> dict[str, Any]:
    full = [part for part in parts if part.documents]
    return {
        "name": source.name,
        "category": source.category or source.name,
        "tier": source.tier.value,
        "documents": sum(part.documents for part in full),
        "tokens": sum(part.tokens for part in full),
        "records": sum(part.records for part in full),
        "files": [{k: v for k, v in asdict(part).items() if k != "source"} for part in full],
    }


def _write_tfrecord(
    path: Path, documents: Iterable[Document], part: BakedPart
) -> Iterator[Document]:
    """Yields the documents after writing each to a TFRecord; counts them in `part`."""
    _, tf, _ = import_tensorflow()

    def feature(text: str) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))

    with tf.io.TFRecordWriter(str(path)) as writer:
        for document in documents:
            if document.source != part.source:
                raise ValueError(
                    f"document {document.id!r} has source {document.source!r}; {part.tfrecord} "
                    f"is for {part.source!r} only"
                )
            keys = ("id", "text", "source", "category")
            features = {key: feature(getattr(document, key)) for key in keys}
            part.documents += 1
            part.text_bytes += len(features["text"].bytes_list.value[0])
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString(deterministic=True))
            yield document


@dataclass(slots=True)
class _Window:
    """Consecutive documents that are packed together.

    `tokens`: int32 [N], concatenated. `lengths`: int64 [D]. `ids`: [D].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    ids: list[str]


def _windows(documents: Iterable[Document], tokenizer: MixtureTokenizer) -> Iterator[_Window]:
    """Yields windows of at least WINDOW_TOKENS tokens, except for the last."""
    encoder = encoder_of(tokenizer)
    tokens: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    ids: list[str] = []

    def concatenated() -> _Window:
        return _Window(np.concatenate(tokens), np.concatenate(lengths), ids)

    for batch in batches(documents, CHARACTERS_PER_BATCH):
        own_tokens, own_lengths = encoder.encode([document.text for document in batch])
        tokens.append(own_tokens)
        lengths.append(own_lengths)
        ids += [document.id for document in batch]
        if sum(map(len, tokens)) >= WINDOW_TOKENS:
            yield concatenated()
            tokens, lengths, ids = [], [], []
    if ids:
        yield concatenated()


def _write_rows(
    rows_file: Path,
    spans_file: Path,
    windows: Iterator[_Window],
    capacity: int,
    tokenizer: MixtureTokenizer,
    part: BakedPart,
) -> None:
    """Packs the windows and writes records and spans; counts them in `part`."""
    dtype = token_dtype(tokenizer.vocab_size)
    documents, padding = 0, 0.0
    rows_writer = ArrayRecordWriter(str(rows_file), "group_size:1")
    spans_writer = ArrayRecordWriter(str(spans_file), "group_size:1")
    for window in windows:
        rows = pack(window.lengths, capacity)
        tokens = window.tokens.astype(dtype)
        starts = np.cumsum(window.lengths) - window.lengths
        for row in rows:
            rows_writer.write(record(row, tokens, starts, capacity))
            spans = [[window.ids[document], offset, length] for document, offset, length in row]
            spans_writer.write(json.dumps(spans, ensure_ascii=False).encode())
        documents += len(window.ids)
        part.tokens += len(tokens) - len(window.ids)
        part.records += len(rows)
        padding += padding_share(rows, capacity) * len(rows)
    rows_writer.close()
    spans_writer.close()
    part.padding = padding / max(part.records, 1)
    assert documents == part.documents, f"{documents} of {part.documents} documents were packed"


def record(row: Row, tokens: np.ndarray, starts: np.ndarray, capacity: int) -> bytes:
    """Returns one packed record as bytes.

    Args:
      row: the segments of the record.
      tokens: the tokens of all documents of the window [N], in the dtype of the mixture.
      starts: offset of each document in `tokens` [D].
      capacity: tokens per record.

    Returns:
      `capacity` tokens, padded with 0, then the segments' lengths as uint32.
    """
    pieces = [tokens[starts[document] + offset :][:length] for document, offset, length in row]
    lengths = np.array([length for _, _, length in row], "<u4")
    padding = np.zeros(capacity - lengths.sum(), tokens.dtype)
    return np.concatenate([*pieces, padding]).tobytes() + lengths.tobytes()


@contextlib.contextmanager
def _atomic_record_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Works as `atomic_files`, and explains a full disk, which the writers report as text only."""
    try:
        with atomic_files(paths) as temporary:
            yield temporary
    except Exception as error:
        for code in DISK_FULL:
            if os.strerror(code) in str(error):
                what = f"{os.strerror(code)}. {KEPT} File"
                raise DiskFullError(code, what, str(paths[0])) from error
        raise

"""The batch that the train step reads: a dict of arrays decoded from packed records.

Shapes: B rows, T positions.

| key            | shape  | dtype   | meaning                                                    |
| -------------- | ------ | ------- | ---------------------------------------------------------- |
| tokens_BT      | [B, T] | int32   | inputs                                                     |
| targets_BT     | [B, T] | int32   | the token after each input                                 |
| loss_mask_BT   | [B, T] | float32 | 1 where input and target lie in the same segment, else 0   |
| segment_ids_BT | [B, T] | int32   | 1, 2, ... for the documents of a row; 0 is padding         |
| positions_BT   | [B, T] | int32   | 0, 1, ... from the start of the segment                    |
| record_id_B    | [B]    | int32   | number of the record within its source                     |
| source_id_B    | [B]    | int32   | number of the source within mixture.json                   |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Batch = dict[str, Any]  # numpy arrays from packed_dataset.py, jax arrays in the train step

SPEC: dict[str, tuple[int, type]] = {  # key -> (dimensions, dtype)
    "tokens_BT": (2, np.int32),
    "targets_BT": (2, np.int32),
    "loss_mask_BT": (2, np.float32),
    "segment_ids_BT": (2, np.int32),
    "positions_BT": (2, np.int32),
    "record_id_B": (1, np.int32),
    "source_id_B": (1, np.int32),
}


def check(batch: Batch) -> None:
    """Raises ValueError if keys, dtypes or shapes of `batch` differ from the table above."""
    if set(batch) != set(SPEC):
        raise ValueError(f"batch keys: got {sorted(batch)}, expected {sorted(SPEC)}")
    shape = tuple(batch["tokens_BT"].shape)
    for key, (dimensions, dtype) in SPEC.items():
        got = (tuple(batch[key].shape), np.dtype(batch[key].dtype).name)
        expected = (shape[:dimensions], np.dtype(dtype).name)
        if got != expected or len(shape) != 2:
            raise ValueError(f"batch[{key!r}]: got {got}, expected {expected} (shape, dtype)")


def check_max_segments(max_segments: int, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields the batches unchanged, each after a check of its number of segments per row.

    Raises:
      ValueError: if a row has more than `max_segments` segments, a run of padding counted as one.
        Attention kernel cudnn reserves memory for `max_segments` segments per row.
    """
    for batch in batches:
        segments_BT = batch["segment_ids_BT"]
        # A row with k changes of its segment id has k + 1 segments.
        largest = 1 + (segments_BT[:, 1:] != segments_BT[:, :-1]).sum(axis=1).max()
        if largest > max_segments:
            raise ValueError(
                f"a row of the batch has {largest} documents, padding counted as one, but "
                f"model.max_segments={max_segments}: give at least {largest}, or "
                "model.attention=AttentionKernel.XLA"
            )
        yield batch


def decode_record(record: bytes, tokens: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a packed record into its row of tokens and the lengths of its segments.

    A record is `tokens` little-endian integers of `dtype`, then one uint32 length per segment.
    With 5 tokens of uint16, two documents `<1 7 2>` and `<1 2>` without padding are

        01 00 07 00 02 00 01 00 02 00 | 03 00 00 00 02 00 00 00

    Args:
      record: the bytes of one record.
      tokens: tokens per row, T + 1: the last one is only a target.
      dtype: numpy name of the token type, "uint16" or "uint32".

    Returns:
      (row, lengths): tokens [tokens] of `dtype`, and uint32 [segments] tokens per segment.

    Raises:
      ValueError: if the bytes cannot be such a record.
    """
    row_bytes = tokens * np.dtype(dtype).itemsize
    tail = len(record) - row_bytes
    if tail < 0 or tail % 4:
        raise ValueError(
            f"a record of {len(record)} bytes: expected {row_bytes} bytes for {tokens} tokens of "
            f"{dtype}, then 4 bytes per segment; bake the data again"
        )
    row = np.frombuffer(record, np.dtype(dtype).newbyteorder("<"), tokens)
    lengths = np.frombuffer(record, "<u4", offset=row_bytes)
    if lengths.sum() > tokens:
        raise ValueError(
            f"a record whose segments {lengths.tolist()} are longer than its {tokens} tokens; "
            "bake the data again"
        )
    return row, lengths


def from_records(
    records: Sequence[bytes],
    *,
    record_ids: Sequence[int],
    source_ids: Sequence[int],
    tokens_per_record: int,
    dtype: str,
) -> Batch:
    """Decodes packed records into a batch with one row per record; T = tokens_per_record - 1.

    The record of `decode_record` becomes tokens `1 7 2 1`, targets `7 2 1 2`, mask `1 1 0 1`,
    segments `1 1 1 2` and positions `0 1 2 0`.

    Args:
      records: the bytes of each record.
      record_ids: number of each record within its source.
      source_ids: number of each record's source within mixture.json.
      tokens_per_record: T + 1.
      dtype: numpy name of the token type.

    Raises:
      ValueError: if the bytes of a record cannot be a packed record.
    """
    shape = (len(records), tokens_per_record)
    rows, segments, positions = (np.zeros(shape, np.int32) for _ in range(3))
    for index, record in enumerate(records):
        row, lengths = decode_record(record, tokens_per_record, dtype)
        filled = int(lengths.sum())  # tokens before the padding, whose segment and position are 0
        starts = np.cumsum(lengths) - lengths  # first token of each segment
        rows[index] = row
        segments[index, :filled] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        positions[index, :filled] = np.arange(filled) - np.repeat(starts, lengths)
    # A target counts only if it continues the document of its input.
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    return {
        "tokens_BT": rows[:, :-1],
        "targets_BT": rows[:, 1:],
        "loss_mask_BT": same.astype(np.float32),
        "segment_ids_BT": segments[:, :-1],
        "positions_BT": positions[:, :-1],
        "record_id_B": np.asarray(record_ids, np.int32),
        "source_id_B": np.asarray(source_ids, np.int32),
    }

from __future__ import annotations

import numpy as np
import pytest

from hare_jax.data.batch import Batch, check, check_max_segments, decode_record, from_records


def _record(tokens: list[int], lengths: list[int]) -> bytes:
    return np.array(tokens, "<u2").tobytes() + np.array(lengths, "<u4").tobytes()


def _batch(*records: bytes, tokens: int = 5) -> Batch:
    n = len(records)
    return from_records(
        records,
        record_ids=range(n),
        source_ids=[0] * n,
        tokens_per_record=tokens,
        dtype="uint16",
    )


def test_two_documents_in_a_row() -> None:
    batch = _batch(_record([1, 7, 2, 1, 2], [3, 2]))
    assert batch["tokens_BT"].tolist() == [[1, 7, 2, 1]]
    assert batch["targets_BT"].tolist() == [[7, 2, 1, 2]]
    assert batch["loss_mask_BT"].tolist() == [[1, 1, 0, 1]]
    assert batch["segment_ids_BT"].tolist() == [[1, 1, 1, 2]]
    assert batch["positions_BT"].tolist() == [[0, 1, 2, 0]]
    check(batch)


def test_padding_is_segment_zero_and_counts_nothing() -> None:
    batch = _batch(_record([1, 2, 0, 0, 0], [2]), _record([0] * 5, []))
    assert batch["segment_ids_BT"].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert batch["loss_mask_BT"].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_full_row_predicts_its_last_token() -> None:
    batch = _batch(_record([1, 7, 8, 9, 2], [5]))
    assert batch["loss_mask_BT"].tolist() == [[1, 1, 1, 1]]
    assert batch["targets_BT"][0, -1] == 2


def test_a_segment_of_n_tokens_gives_n_minus_one_predictions() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = []
        while sum(lengths) < 30:
            lengths.append(int(rng.integers(1, 12)))
        lengths = lengths[:-1]
        row = rng.integers(3, 64, 42).tolist()
        batch = _batch(_record(row, lengths), tokens=42)
        assert batch["loss_mask_BT"].sum() == sum(n - 1 for n in lengths)


def test_tokens_above_the_sign_bit_survive() -> None:
    batch = _batch(_record([1, 65535, 40000, 2, 0], [4]))
    assert batch["tokens_BT"].tolist() == [[1, 65535, 40000, 2]]


@pytest.mark.parametrize("size", [9, 11, 13])
def test_a_record_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"a record of {size} bytes: expected 10 bytes for 5"):
        decode_record(bytes(size), 5, "uint16")


def test_segments_longer_than_the_row_are_refused() -> None:
    with pytest.raises(ValueError, match=r"segments \[3, 3\] are longer than its 5 tokens"):
        decode_record(_record([1] * 5, [3, 3]), 5, "uint16")


def test_check_names_the_mismatch() -> None:
    good = _batch(_record([1, 7, 2, 1, 2], [3, 2]))
    with pytest.raises(ValueError, match=r"batch keys: got \['labels'.*expected \['loss_mask_BT'"):
        check({**good, "labels": good["tokens_BT"]})
    with pytest.raises(ValueError, match=r"\['targets_BT'\]: got .*'int64'.*expected.*'int32'"):
        check({**good, "targets_BT": good["targets_BT"].astype(np.int64)})
    with pytest.raises(ValueError, match=r"\['positions_BT'\]: got \(\(1, 3\).*expected \(\(1, 4"):
        check({**good, "positions_BT": good["positions_BT"][:, :3]})
    with pytest.raises(ValueError, match=r"\['source_id_B'\]: got \(\(2,\)"):
        check({**good, "source_id_B": np.zeros(2, np.int32)})


def test_rows_of_too_many_segments_are_refused() -> None:
    """Three documents and padding are four segments."""
    batch = _batch(_record([1, 2, 1, 2, 1, 2, 0, 0, 0], [2, 2, 2]), tokens=9)
    assert list(check_max_segments(4, iter([batch, batch]))) == [batch, batch]
    with pytest.raises(
        ValueError, match=r"has 4 documents, .* model.max_segments=3: give at least"
    ):
        next(check_max_segments(3, iter([batch])))

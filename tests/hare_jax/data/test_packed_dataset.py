from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hare_jax.config import Mesh, Model, Stage, Training
from hare_jax.data import packed_dataset
from hare_jax.data.batch import check
from hare_jax.runtime import sharding

B, T = 8, 16
STAGES = [Stage("one", "stage1", 3 * B * T), Stage("two", "stage2", 4 * B * T)]


def _training(**changes: Any) -> Training:
    return Training(stages=STAGES, batch_size=B, **changes)


def _rewrite(directory: Path, change: Callable[[dict[str, Any]], None], sign: bool = True) -> None:
    path = directory / "mixture.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if sign:
        manifest["fingerprint"] = packed_dataset.fingerprint(manifest)
    path.write_text(json.dumps(manifest))


def test_batches_are_those_of_the_order(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    batches = list(packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, B)))
    assert len(batches) == order.steps == 7
    for step, batch in enumerate(batches):
        check(batch)
        picks = list(zip(batch["source_id_B"], batch["record_id_B"], strict=True))
        assert picks == order.records_of_step(step)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_global_batch(bake: Callable[..., Path], processes: int) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    size = B // processes
    slices = [slice(p * size, (p + 1) * size) for p in range(processes)]
    parts = [
        list(packed_dataset.batches(dataset, order, first_step=0, rows=rows)) for rows in slices
    ]
    for step in range(order.steps):
        whole = dataset.batch(order.records_of_step(step))
        for key, value in whole.items():
            joined = np.concatenate([part[step][key] for part in parts])
            assert (joined == value).all(), key


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_readers_changes_nothing(bake: Callable[..., Path], threads: int) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    read = packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, B), threads=threads)
    for step, batch in enumerate(read):
        want = dataset.batch(order.records_of_step(step))
        assert all((batch[key] == value).all() for key, value in want.items())
    assert step == order.steps - 1


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_global_batch_is_the_same_on_any_number_of_devices(
    bake: Callable[..., Path], devices: int
) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    mesh = sharding.make_mesh(Mesh(fsdp=devices), jax.devices()[:devices])
    rows = sharding.local_rows(mesh, B)
    for step, batch in enumerate(packed_dataset.batches(dataset, order, first_step=0, rows=rows)):
        placed = sharding.place(batch, mesh, B, rows)
        assert len(placed["tokens_BT"].sharding.device_set) == devices
        for key, value in dataset.batch(order.records_of_step(step)).items():
            assert (np.asarray(placed[key]) == value).all(), key


def test_weights_change_without_baking_again(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    before = dataset.fingerprint
    stages = [Stage("one", "stage1", 5 * B * T, weights={"web": 0.0, "code": 3.0})]
    order = packed_dataset.make_order(dataset, Training(stages=stages, batch_size=B))
    (plan,) = packed_dataset.plan(dataset, order, max_epochs=2.0)
    assert [(s["name"], s["weight"]) for s in plan["sources"]] == [("code", 1.0)]
    (first, *_) = packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, B))
    assert set(first["source_id_B"]) == {1}
    assert packed_dataset.PackedDataset(dataset.directory).fingerprint == before


def test_starting_late_is_skipping(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    whole = list(packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, B)))
    late = list(packed_dataset.batches(dataset, order, first_step=4, rows=slice(0, B)))
    assert len(late) == 3
    for got, want in zip(late, whole[4:], strict=True):
        assert all((got[key] == want[key]).all() for key in want)


def test_trace_names_the_documents_of_a_step(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    spans = packed_dataset.trace(dataset, order, 2)
    batch = dataset.batch(order.records_of_step(2))
    for row in range(B):
        of_row = [span for span in spans if span.row == row]
        segments = batch["segment_ids_BT"][row]
        # The last token of a full row is a target only.
        assert sum(span.length for span in of_row) - (segments > 0).sum() in (0, 1)
        assert {span.record_id for span in of_row} == {batch["record_id_B"][row]}
        name = dataset.sources[batch["source_id_B"][row]].name
        assert all(span.source == name for span in of_row)
        assert all(span.document_id.startswith(f"{name}/") for span in of_row)


def test_plan_counts_epochs_of_each_stage(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    order = packed_dataset.make_order(dataset, _training())
    one, two = packed_dataset.plan(dataset, order, max_epochs=2.0)
    assert (one["name"], one["mixture"], one["tokens"], one["steps"]) == ("one", "stage1", 384, 3)
    web, code = one["sources"]
    assert (web["name"], web["tier"], web["weight"]) == ("web", "D1", 0.75)
    assert web["epochs"] == 18 / 40 and code["epochs"] == 6 / 25
    assert web["tokens"] == round(18 * dataset.sources[0].tokens / 40)
    assert [source["epochs"] for source in two["sources"]] == [13 / 40, 19 / 25]


def test_plan_leaves_out_sources_without_weight(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(
        bake(mixtures={"stage1": {"web": 1.0}, "stage2": {"code": 1.0}})
    )
    one, two = packed_dataset.plan(
        dataset, packed_dataset.make_order(dataset, _training()), max_epochs=2.0
    )
    assert [s["name"] for s in one["sources"]] == ["web"]
    assert [s["name"] for s in two["sources"]] == ["code"]


def test_too_many_epochs_are_refused_with_the_source(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake(records={"web": 40, "code": 5}))
    order = packed_dataset.make_order(dataset, _training())
    message = r"'code' would be repeated 5.0 times, training.max_epochs is 4.*raise training.max"
    with pytest.raises(ValueError, match=message):
        packed_dataset.plan(dataset, order, max_epochs=4.0)
    packed_dataset.plan(dataset, order, max_epochs=5.0)


def test_a_source_without_records_can_stand_by(bake: Callable[..., Path]) -> None:
    dataset = packed_dataset.PackedDataset(bake(records={"web": 40, "code": 25, "none": 0}))
    order = packed_dataset.make_order(dataset, _training())
    packed_dataset.plan(dataset, order, max_epochs=2.0)
    assert {source for source, _ in order.records_of_step(0)} == {0, 1}


@pytest.mark.parametrize("part", ["web-00000.array_record", "code-00001.spans.array_record"])
def test_a_flipped_byte_is_refused_by_name(bake: Callable[..., Path], part: str) -> None:
    directory = bake()
    data = bytearray((directory / part).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / part).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{part}: got sha256 [0-9a-f]{{64}}, expected "):
        packed_dataset.PackedDataset(directory)


@pytest.mark.parametrize("part", ["code-00000.array_record", "tokenizer.model", "mixture.json"])
def test_a_missing_file_is_refused_by_name(bake: Callable[..., Path], part: str) -> None:
    directory = bake()
    (directory / part).unlink()
    with pytest.raises(FileNotFoundError, match=f"{part}: no such file"):
        packed_dataset.PackedDataset(directory)


def test_another_tokenizer_file_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    (directory / "tokenizer.model").write_bytes(b"other pieces")
    with pytest.raises(ValueError, match=r"tokenizer\.model: got sha256"):
        packed_dataset.PackedDataset(directory)


def test_a_changed_manifest_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m["mixtures"]["stage1"].update(web=0.5), sign=False)
    with pytest.raises(ValueError, match=r"have fingerprint [0-9a-f]{64}, expected [0-9a-f]"):
        packed_dataset.PackedDataset(directory)


def test_another_schema_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m.update(schema=2))
    with pytest.raises(ValueError, match=r"mixture.json: schema 2, expected 1; bake the data"):
        packed_dataset.PackedDataset(directory)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "schema 'list'")])
def test_an_invalid_manifest_is_refused(bake: Callable[..., Path], text: str, message: str) -> None:
    directory = bake()
    (directory / "mixture.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        packed_dataset.PackedDataset(directory)


def test_a_wrong_count_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()

    def mistake(manifest: dict[str, Any]) -> None:
        manifest["sources"][0]["records"] = 41
        manifest["sources"][0]["files"][0]["records"] = 21

    _rewrite(directory, mistake)
    with pytest.raises(ValueError, match=r"web-00000\.\S+: got 20 records, expected 21"):
        packed_dataset.PackedDataset(directory)


def test_a_wrong_total_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m["sources"][0].update(records=41))
    with pytest.raises(ValueError, match=r"files of 'web' have 40 records, expected 41"):
        packed_dataset.PackedDataset(directory)


def test_a_file_that_was_right_before_is_not_read_again(
    bake: Callable[..., Path], tmp_path: Path
) -> None:
    directory, memory = bake(), tmp_path / "memory"
    packed_dataset.PackedDataset(directory, memory)
    data = directory / "web-00000.array_record"
    stat, content = data.stat(), bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    with pytest.raises(ValueError, match=r"web-00000\.array_record: got sha256"):
        packed_dataset.PackedDataset(directory, memory)
    # Bytes that change without a trace are not seen at the start, but by the records' checksums.
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    dataset = packed_dataset.PackedDataset(directory, memory)
    with pytest.raises(ValueError, match=r"record \d+ of source 'web' cannot be read: .*mismatch"):
        dataset.batch([(0, record_id) for record_id in range(40)])
    shutil.rmtree(memory)
    with pytest.raises(ValueError, match=r"web-00000\.array_record: got sha256"):
        packed_dataset.PackedDataset(directory, memory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens_per_record": 19}, "'web' has 19 tokens for sequence_length=16"),
        ({"sequence_length": 15}, "17 tokens for sequence_length=15"),
        ({"dtype": "uint32"}, r"a record of \d\d bytes: expected 68 bytes for 17 tokens of uint32"),
        ({"vocab_size": 40}, r"'web' has token \d+ of a vocabulary of 40"),
        ({"bos_id": 3}, "'web' has a document that begins with 1, not BOS 3"),
        ({"eos_id": 4}, "'web' has a document that ends with 2, not EOS 4"),
    ],
)
def test_records_that_contradict_the_manifest_are_refused(
    bake: Callable[..., Path], change: dict[str, Any], message: str
) -> None:
    directory = bake()

    def mistake(manifest: dict[str, Any]) -> None:
        for key, value in change.items():
            (manifest if key in manifest else manifest["tokenizer"])[key] = value

    _rewrite(directory, mistake)
    with pytest.raises(ValueError, match=message):
        packed_dataset.PackedDataset(directory)


def test_spans_of_other_rows_are_refused(bake: Callable[..., Path]) -> None:
    directory = bake()

    def mistake(manifest: dict[str, Any]) -> None:
        one, two = manifest["sources"][0]["files"]
        for key in ("spans", "spans_sha256"):
            one[key], two[key] = two[key], one[key]

    _rewrite(directory, mistake)
    with pytest.raises(ValueError, match=r"'web' has segments of \[.*\] tokens for the documents"):
        packed_dataset.PackedDataset(directory)


def test_another_vocabulary_is_refused(bake: Callable[..., Path], model: Model) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    dataset.check_model(model)
    model.vocab_size = 128
    with pytest.raises(ValueError, match=r"tokenizer of 64 pieces, .* has vocab_size=128"):
        dataset.check_model(model)

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hare_jax.config import Model, Stage, Training
from hare_jax.training import input
from hare_jax.training.batch import check

B, T = 8, 16
STAGES = [Stage("one", "stage1", 3 * B * T), Stage("two", "stage2", 4 * B * T)]


def _training(**changes: Any) -> Training:
    return Training(stages=STAGES, batch_size=B, **changes)


def _rewrite(directory: Path, change: Callable[[dict[str, Any]], None], sign: bool = True) -> None:
    path = directory / "mixture.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if sign:
        manifest["fingerprint"] = input.fingerprint(manifest)
    path.write_text(json.dumps(manifest))


def test_batches_are_those_of_the_order(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake())
    order = input.make_order(baked, _training())
    batches = list(input.batches(baked, order, first_step=0, rows=slice(0, B)))
    assert len(batches) == order.steps == 7
    for step, batch in enumerate(batches):
        check(batch)
        picks = list(zip(batch["source_id_B"], batch["record_id_B"], strict=True))
        assert picks == order.picks(step)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_global_batch(bake: Callable[..., Path], processes: int) -> None:
    baked = input.Baked(bake())
    order = input.make_order(baked, _training())
    size = B // processes
    slices = [slice(p * size, (p + 1) * size) for p in range(processes)]
    parts = [list(input.batches(baked, order, first_step=0, rows=rows)) for rows in slices]
    for step in range(order.steps):
        whole = baked.batch(order.picks(step))
        for key, value in whole.items():
            joined = np.concatenate([part[step][key] for part in parts])
            assert (joined == value).all(), key


def test_starting_late_is_skipping(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake())
    order = input.make_order(baked, _training())
    whole = list(input.batches(baked, order, first_step=0, rows=slice(0, B)))
    late = list(input.batches(baked, order, first_step=4, rows=slice(0, B)))
    assert len(late) == 3
    for got, want in zip(late, whole[4:], strict=True):
        assert all((got[key] == want[key]).all() for key in want)


def test_trace_names_the_documents_of_a_step(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake())
    order = input.make_order(baked, _training())
    spans = input.trace(baked, order, 2)
    batch = baked.batch(order.picks(2))
    for row in range(B):
        of_row = [span for span in spans if span.row == row]
        segments = batch["segment_ids_BT"][row]
        # The last token of a full row is a target only.
        assert sum(span.length for span in of_row) - (segments > 0).sum() in (0, 1)
        assert {span.record_id for span in of_row} == {batch["record_id_B"][row]}
        name = baked.sources[batch["source_id_B"][row]].name
        assert all(span.source == name for span in of_row)
        assert all(span.document_id.startswith(f"{name}/") for span in of_row)


def test_plan_counts_epochs_of_each_stage(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake())
    order = input.make_order(baked, _training())
    one, two = input.plan(baked, order, max_epochs=2.0)
    assert (one["name"], one["mixture"], one["tokens"], one["steps"]) == ("one", "stage1", 384, 3)
    web, code = one["sources"]
    assert (web["name"], web["tier"], web["weight"]) == ("web", "D1", 0.75)
    assert web["epochs"] == 18 / 40 and code["epochs"] == 6 / 25
    assert web["tokens"] == round(18 * baked.sources[0].tokens / 40)
    assert [source["epochs"] for source in two["sources"]] == [13 / 40, 19 / 25]


def test_plan_leaves_out_sources_without_weight(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake(mixtures={"stage1": {"web": 1.0}, "stage2": {"code": 1.0}}))
    one, two = input.plan(baked, input.make_order(baked, _training()), max_epochs=2.0)
    assert [s["name"] for s in one["sources"]] == ["web"]
    assert [s["name"] for s in two["sources"]] == ["code"]


def test_too_many_epochs_are_refused_with_the_source(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake(records={"web": 40, "code": 5}))
    order = input.make_order(baked, _training())
    message = r"'code' would be repeated 5.0 times, training.max_epochs is 4.*raise training.max"
    with pytest.raises(ValueError, match=message):
        input.plan(baked, order, max_epochs=4.0)
    input.plan(baked, order, max_epochs=5.0)


def test_a_source_without_records_can_stand_by(bake: Callable[..., Path]) -> None:
    baked = input.Baked(bake(records={"web": 40, "code": 25, "none": 0}))
    order = input.make_order(baked, _training())
    input.plan(baked, order, max_epochs=2.0)
    assert {source for source, _ in order.picks(0)} == {0, 1}


@pytest.mark.parametrize("part", ["web-00000.array_record", "code-00001.spans.array_record"])
def test_a_flipped_byte_is_refused_by_name(bake: Callable[..., Path], part: str) -> None:
    directory = bake()
    data = bytearray((directory / part).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / part).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{part}: sha256 [0-9a-f]{{64}}, mixture.json says"):
        input.Baked(directory)


@pytest.mark.parametrize("part", ["code-00000.array_record", "tokenizer.model", "mixture.json"])
def test_a_missing_file_is_refused_by_name(bake: Callable[..., Path], part: str) -> None:
    directory = bake()
    (directory / part).unlink()
    with pytest.raises(FileNotFoundError, match=f"{part}: no such file"):
        input.Baked(directory)


def test_another_tokenizer_file_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    (directory / "tokenizer.model").write_bytes(b"other pieces")
    with pytest.raises(ValueError, match=r"tokenizer\.model: sha256"):
        input.Baked(directory)


def test_a_changed_manifest_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m["mixtures"]["stage1"].update(web=0.5), sign=False)
    with pytest.raises(ValueError, match=r"have fingerprint [0-9a-f]{64}, but it says [0-9a-f]"):
        input.Baked(directory)


def test_another_schema_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m.update(schema=2))
    with pytest.raises(ValueError, match=r"mixture.json: schema 2, expected 1; bake the data"):
        input.Baked(directory)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[]", "schema 'list'")])
def test_a_manifest_that_is_none_is_refused(
    bake: Callable[..., Path], text: str, message: str
) -> None:
    directory = bake()
    (directory / "mixture.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        input.Baked(directory)


def test_a_wrong_count_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m["sources"][0]["files"][0].update(records=21))
    with pytest.raises(ValueError, match=r"web-00000.array_record: got 20 records, .* says 21"):
        input.Baked(directory)


def test_a_wrong_total_is_refused(bake: Callable[..., Path]) -> None:
    directory = bake()
    _rewrite(directory, lambda m: m["sources"][0].update(records=41))
    with pytest.raises(ValueError, match=r"files of 'web' have 40 records, the source says 41"):
        input.Baked(directory)


def test_another_vocabulary_is_refused(bake: Callable[..., Path], model: Model) -> None:
    baked = input.Baked(bake())
    baked.check_model(model)
    model.vocab_size = 128
    with pytest.raises(ValueError, match=r"tokenizer of 64 pieces, .* has vocab_size=128"):
        baked.check_model(model)

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hare_jax.config import Model
from hare_jax.data.batch import from_records
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.held_out import loss as heldout
from hare_jax.evaluation.held_out.loss import DocumentLoss
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Done, Score, ScoreRequest, ignore_scores
from hare_jax.model import decoder


@pytest.fixture
def scorer(model: Model) -> InferenceEngine:
    return InferenceEngine(model, decoder.init(model, 0), max_length=16, batch_tokens=256)


def documents(directory: Path) -> dict[str, list[list[int]]]:
    """Source -> the documents' tokens, read by hand from the files as the format describes them."""
    from array_record.python.array_record_module import ArrayRecordReader

    found: dict[str, list[list[int]]] = {}
    for source in json.loads((directory / "mixture.json").read_text())["sources"]:
        of_source = found[source["name"]] = []
        for file in source["files"]:
            for record in ArrayRecordReader(str(directory / file["file"])).read_all():
                row, lengths = np.frombuffer(record, "<u2", 17), np.frombuffer(record[34:], "<u4")
                ends = np.cumsum(lengths)
                of_source += [
                    row[end - length : end].tolist()
                    for end, length in zip(ends, lengths, strict=True)
                ]
    return found


@pytest.mark.slow
def test_losses_are_those_of_each_document_alone(
    bake: Callable[..., Path], scorer: InferenceEngine
) -> None:
    directory = bake({"web": 5, "code": 3}, mixtures={})
    finished: list[int] = []
    baked = PackedDataset(directory)
    losses = heldout.document_losses(baked, scorer, finished.append)
    assert sum(finished) == heldout.num_tokens(baked) == sum(d.tokens for d in losses)

    expected = {
        source: [
            -scorer.scores([ScoreRequest(tokens[:1], tokens[1:])])[0].log_likelihood
            for tokens in of_source
        ]
        for source, of_source in documents(directory).items()
    }
    rows = heldout.table({"trained": losses})
    assert [row["source"] for row in rows] == ["web", "code", "all"]
    everything = [loss for of_source in expected.values() for loss in of_source]
    for row, of_source in zip(rows, [*expected.values(), everything], strict=True):
        assert row["documents"] == len(of_source)
        np.testing.assert_allclose(
            row["loss"]["trained"], sum(of_source) / row["tokens"], rtol=1e-5
        )
    manifest = json.loads((directory / "mixture.json").read_text())
    assert [row["tokens"] for row in rows[:2]] == [s["tokens"] for s in manifest["sources"]]
    assert rows[2]["tokens"] == rows[0]["tokens"] + rows[1]["tokens"]


def test_losses_do_not_depend_on_how_many_records_are_read_at_a_time(
    bake: Callable[..., Path], scorer: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    baked = PackedDataset(bake({"web": 5}, mixtures={}))
    at_once = heldout.document_losses(baked, scorer, lambda _: None)
    monkeypatch.setattr(heldout, "BLOCK_TOKENS", 1)
    one_by_one = heldout.document_losses(baked, scorer, lambda _: None)
    assert [d[:3] for d in one_by_one] == [d[:3] for d in at_once]
    np.testing.assert_allclose([d.loss for d in one_by_one], [d.loss for d in at_once], rtol=1e-5)


def test_a_segment_of_one_token_has_nothing_to_predict() -> None:
    """Segments of 1, 3 and 1 tokens, and of 2 and 3: the last of a row ends outside its inputs."""
    records = [
        np.array([5, 6, 7, 8, 9], "<u2").tobytes() + np.array([1, 3, 1], "<u4").tobytes(),
        np.array([5, 6, 7, 8, 9], "<u2").tobytes() + np.array([2, 3], "<u4").tobytes(),
        np.array([5, 6, 0, 0, 0], "<u2").tobytes() + np.array([2], "<u4").tobytes(),
    ]
    batch = from_records(
        records, record_ids=[0, 1, 2], source_ids=[0] * 3, tokens_per_record=5, dtype="uint16"
    )
    asked = [(r.context.tolist(), r.continuation.tolist()) for r in heldout.requests(batch)]
    assert asked == [([6], [7, 8]), ([5], [6]), ([7], [8, 9]), ([5], [6])]


class OneNat:
    """A scorer to whom each token costs one nat."""

    def scores(self, requests: Sequence[ScoreRequest], done: Done = ignore_scores) -> list[Score]:
        return [Score(-len(r.continuation), True, len(r.continuation)) for r in requests]


def test_pieces_of_a_document_are_one_document(
    bake: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    baked = PackedDataset(bake({"web": 4}, mixtures={}))
    spans = baked.spans
    monkeypatch.setattr(
        PackedDataset,
        "spans",
        lambda self, picks: [setattr(s, "document_id", "book") or s for s in spans(picks)],
    )
    (book,) = heldout.document_losses(baked, OneNat(), lambda _: None)
    tokens = baked.sources[0].tokens
    assert book == DocumentLoss("web", "book", tokens, float(tokens))


def test_the_standard_error_is_over_documents() -> None:
    """By hand: mean 12 / 6 = 2; residuals 1 - 2, 5 - 4, 6 - 6; sqrt(3/2 * 2) / 6."""
    of_model = [
        DocumentLoss("web", "a", 1, 1.0),
        DocumentLoss("web", "b", 2, 5.0),
        DocumentLoss("web", "c", 3, 6.0),
    ]
    mean, stderr = heldout.mean_and_stderr(of_model)
    assert mean == 2.0
    assert stderr == pytest.approx(3**0.5 / 6)
    assert heldout.mean_and_stderr(of_model[:1]) == (1.0, None)


def test_the_standard_error_is_the_spread_of_repeated_samples() -> None:
    """Tokens of a document cost alike here: to count them as independent would be far too sure."""
    rng = np.random.default_rng(0)

    def sample() -> tuple[float, float]:
        lengths, costs = rng.integers(5, 50, 100), rng.normal(3, 1, 100)
        drawn = [
            DocumentLoss("web", str(i), int(length), float(length * cost))
            for i, (length, cost) in enumerate(zip(lengths, costs, strict=True))
        ]
        mean, stderr = heldout.mean_and_stderr(drawn)
        assert stderr is not None
        return mean, stderr

    means, stderrs = zip(*(sample() for _ in range(300)), strict=True)
    assert np.mean(stderrs) == pytest.approx(np.std(means), rel=0.1)


def test_all_models_stand_in_one_row() -> None:
    losses = {
        name: [DocumentLoss("web", "a", 2, loss), DocumentLoss("web", "b", 2, loss)]
        for name, loss in (("untrained", 8.0), ("trained", 4.0))
    }
    row = heldout.table(losses)[0]
    assert row["loss"] == {"untrained": 4.0, "trained": 2.0}
    assert row["stderr"] == {"untrained": 0.0, "trained": 0.0}


def test_held_out_data_without_records_is_refused(bake: Callable[..., Path]) -> None:
    baked = PackedDataset(bake({}, mixtures={}))
    with pytest.raises(ValueError, match="no held-out records"):
        heldout.document_losses(baked, OneNat(), lambda _: None)

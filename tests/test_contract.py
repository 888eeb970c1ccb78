"""The two packages meet in files: what data_pipeline bakes is what hare_jax reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import Baking, Source, Tier
from data_pipeline.mixture import bake
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.storage.document import Document
from hare_jax.data.packed_dataset import PackedDataset

T = 24
SOURCES = [
    Source("web", category="web"),
    Source("empty", category="web"),
    Source("qa", category="tasks", tier=Tier.D3),
]
MIXTURES = {"stage1": {"D1": 1.0}, "stage2": {"D1": 0.7, "D3": 0.3}}


def documents(source: str, part: int) -> list[Document]:
    if source == "empty":
        return []
    return [
        Document(f"{source}/{part}/{i}", f"Hare {i} runs. " * (i * i % 23), source, source)
        for i in range(15)
    ]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("baked data")
    config = Baking(sequence_length=T)
    parts = [
        bake.bake_part(
            f"{source.name}-{part:05d}",
            source.name,
            documents(source.name, part),
            directory,
            config,
        )
        for source in SOURCES
        for part in range(2)
    ]
    bake.write_manifest(directory, SOURCES, parts, MIXTURES, config)
    return directory


def all_picks(baked: PackedDataset) -> list[tuple[int, int]]:
    return [(i, r) for i, source in enumerate(baked.sources) for r in range(source.records)]


def test_the_manifest_is_accepted(directory: Path) -> None:
    baked = PackedDataset(directory)
    assert [source.name for source in baked.sources] == ["web", "empty", "qa"]
    assert [source.tier for source in baked.sources] == ["D1", "D1", "D3"]
    assert [source.documents for source in baked.sources] == [30, 0, 30]
    assert baked.mixtures == {"stage1": {"web": 1.0}, "stage2": {"web": 0.7, "qa": 0.3}}
    assert (baked.sequence_length, baked.tokens_per_record, baked.dtype) == (T, T + 1, "uint16")
    assert baked.fingerprint == json.loads((directory / "mixture.json").read_text())["fingerprint"]


def test_every_token_is_a_target_once(directory: Path) -> None:
    """The loss masks of all records add up to what the manifest counts, source by source."""
    baked = PackedDataset(directory)
    batch = baked.batch(all_picks(baked))
    for index, source in enumerate(baked.sources):
        mask_BT = batch["loss_mask_BT"][batch["source_id_B"] == index]
        assert mask_BT.sum() == source.tokens


def test_batches_hold_the_documents_that_the_spans_name(directory: Path) -> None:
    """Segment by segment: inputs and targets are the tokens of that document, one apart."""
    baked, tokenizer = PackedDataset(directory), MixtureTokenizer()
    tokens_of = {
        d.id: [tokenizer.bos_id, *tokenizer.encode(d.text), tokenizer.eos_id]
        for source in SOURCES
        for part in range(2)
        for d in documents(source.name, part)
    }
    picks = all_picks(baked)
    batch = baked.batch(picks)
    predicted = {name: np.zeros(len(tokens), int) for name, tokens in tokens_of.items()}
    segment_of_row = dict.fromkeys(range(len(picks)), 0)
    for span in baked.spans(picks):
        segment_of_row[span.row] += 1
        row = {key: batch[f"{key}_BT"][span.row] for key in ("tokens", "targets", "loss_mask")}
        here = batch["segment_ids_BT"][span.row] == segment_of_row[span.row]
        scored = here & (row["loss_mask"] == 1)
        tokens = tokens_of[span.document_id][span.offset : span.offset + span.length]
        assert row["tokens"][scored].tolist() == tokens[:-1]
        assert row["targets"][scored].tolist() == tokens[1:]
        assert batch["positions_BT"][span.row][scored].tolist() == list(range(len(tokens) - 1))
        predicted[span.document_id][span.offset + 1 : span.offset + span.length] += 1
    for counts in predicted.values():
        assert counts[0] == 0
        assert (counts[1:] == 1).all()

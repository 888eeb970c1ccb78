"""Builders for tests of hare_jax: a tiny model, short trainings, parameters, files of a run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sentencepiece
from array_record.python.array_record_module import ArrayRecordWriter

from hare_jax.config import Checkpointing, DType, Model, Optimizer, Stage, Training, plain
from hare_jax.data.packed_dataset import fingerprint
from hare_jax.model import decoder
from hare_jax.tracking.metrics import TIMED
from hare_jax.training.checkpoint import restore_params, save_params
from tests.builders import read_jsonl

B, T = 8, 16  # rows of a batch; tokens of a row, as conftest.py bakes them
VOCABULARY = 64
BOS, EOS = 1, 2
PIECES = 400  # of `train_sentencepiece()`
STEPS = 12  # of `tiny_training()`


def tiny_model(vocab_size: int = VOCABULARY) -> Model:
    """Returns a decoder with all the parts of the large one."""
    return Model(
        vocab_size=vocab_size,
        num_layers=2,
        d_model=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        d_ff=48,
        compute_dtype=DType.FLOAT32,
    )


def tiny_training(*steps: int, **changes: Any) -> Training:
    """Returns a training of 12 steps: a row every 3, a checkpoint every 4, two stages.

    Args:
      steps: steps of each stage; stage k is called "one", "two" and reads the mixture "stagek".
      changes: fields of Training.
    """
    stages = [
        Stage(name, f"stage{k}", number * B * T)
        for k, (name, number) in enumerate(zip(("one", "two"), steps or (5, 7), strict=False), 1)
    ]
    fields: dict[str, Any] = {
        "stages": stages,
        "batch_size": B,
        "optimizer": Optimizer(peak_lr=1e-2, warmup_steps=2),
        "checkpointing": Checkpointing(every_steps=4, keep=5),
        "log_every": 3,
        "loss_chunks": 2,
    }
    return Training(**{**fields, **changes})


def one_device() -> list[jax.Device]:
    """Returns the first of the eight fake devices."""
    return jax.devices()[:1]


def random_params(
    model: Model, seed: int = 0, spread: float = 0.25, scale_mean: float = 1.0
) -> decoder.Params:
    """Returns normal parameters, of which logits differ by several units; norms lie around 1."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, a: jax.ShapeDtypeStruct) -> np.ndarray:
        mean = scale_mean if path[-1].key == "scale" else 0.0
        return rng.normal(mean, spread, a.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, decoder.abstract(model).params)


def train_sentencepiece(folder: Path, text: str, **options: Any) -> Path:
    """Trains a model of 400 pieces on the lines of a text; returns the path of its file.

    `options`: of SentencePiece's trainer.
    """
    defaults = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "vocab_size": PIECES,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()),
        model_prefix=str(folder / "tokenizer"),
        **defaults | options,
    )
    return folder / "tokenizer.model"


def save_run(folder: Path, model: Model, params: decoder.Params, **mixture: Any) -> Path:
    """Saves parameters as a run with one checkpoint; `mixture`: what its config.json says of it."""
    save_params(folder / "checkpoints", model, params)
    config = {"model": plain(model), "mixture": mixture}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


class Row(NamedTuple):
    """A packed row before it is padded: ids, and (document's id, offset, length) of each span."""

    ids: list[int]
    spans: list[tuple[str, int, int]]


def write_mixture(
    directory: Path,
    sources: Mapping[str, Sequence[Sequence[Row]]],
    mixtures: Mapping[str, Mapping[str, float]],
    *,
    sequence_length: int = T,
    vocab_size: int = VOCABULARY,
) -> Path:
    """Writes baked data: for each source the rows of each of its files.

    Args:
      directory: a new folder.
      sources: files by source, each a list of rows.
      mixtures: weights of sources by mixture.
      sequence_length: tokens of a row; its last token is only a target.
      vocab_size: the number of ids.
    """
    directory.mkdir()
    (directory / "tokenizer.model").write_bytes(b"pieces")
    manifest = {
        "schema": 1,
        "tokenizer": {
            "file": "tokenizer.model",
            "sha256": hashlib.sha256(b"pieces").hexdigest(),
            "vocab_size": vocab_size,
            "bos_id": BOS,
            "eos_id": EOS,
            "unk_id": 0,
        },
        "sequence_length": sequence_length,
        "tokens_per_record": sequence_length + 1,
        "dtype": "uint16",
        "sources": [
            {
                "name": name,
                "category": name,
                "tier": "D1",
                "documents": sum(len(row.spans) for rows in files for row in rows),
                "tokens": sum(n - 1 for rows in files for row in rows for _, _, n in row.spans),
                "records": sum(map(len, files)),
                "files": [
                    _write_rows(directory, f"{name}-{number:05d}", rows, sequence_length)
                    for number, rows in enumerate(files)
                ],
            }
            for name, files in sources.items()
        ],
        "mixtures": mixtures,
    }
    manifest["fingerprint"] = fingerprint(manifest)
    (directory / "mixture.json").write_text(json.dumps(manifest), encoding="utf-8")
    return directory


def _write_rows(directory: Path, stem: str, rows: Sequence[Row], length: int) -> dict[str, Any]:
    paths = [directory / f"{stem}.array_record", directory / f"{stem}.spans.array_record"]
    records, spans = (ArrayRecordWriter(str(path), "group_size:1") for path in paths)
    for row in rows:
        padded = np.pad(np.array(row.ids, "<u2"), (0, length + 1 - len(row.ids)))
        lengths = np.array([n for _, _, n in row.spans], "<u4")
        records.write(padded.tobytes() + lengths.tobytes())
        spans.write(json.dumps(row.spans).encode())
    records.close()
    spans.close()
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return {
        "file": paths[0].name,
        "spans": paths[1].name,
        "records": len(rows),
        "sha256": hashes[0],
        "spans_sha256": hashes[1],
    }


def run_together(
    commands: Iterable[Sequence[str]], cwd: Path, **environment: str
) -> list[tuple[str, str]]:
    """Runs commands at the same time, all to a good end; returns what each printed, and errors."""
    processes = [
        subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    printed = [process.communicate() for process in processes]
    statuses = [process.returncode for process in processes]
    assert not any(statuses), "".join(error for _, error in printed)
    return printed


def metric_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl without what a clock measured."""
    rows = read_jsonl(run_dir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def saved_params(run_dir: Path, model: Model, step: int | None = None) -> decoder.Params:
    """Returns the parameters of a run's checkpoint, the latest unless there is a step."""
    return restore_params(run_dir / "checkpoints", model, step=step)[0]


def equal_trees(a: Any, b: Any) -> bool:
    """Returns whether two trees of arrays are the same bit for bit."""
    return jax.tree.all(jax.tree.map(np.array_equal, *jax.device_get((a, b))))


def same_params(a: Path, b: Path, model: Model) -> bool:
    """Returns whether the latest checkpoints of two runs have the same parameters bit for bit."""
    return equal_trees(saved_params(a, model), saved_params(b, model))

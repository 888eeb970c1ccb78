"""Builders for tests of hare_jax: a tiny model, short trainings, parameters, files of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sentencepiece

from hare_jax.config import Checkpointing, DType, Model, Optimizer, Stage, Training, plain
from hare_jax.model import decoder
from hare_jax.tracking.metrics import TIMED
from hare_jax.training.checkpoint import restore_params, save_params
from tests.builders import read_jsonl

B, T = 8, 16  # rows of a batch; tokens of a row, as conftest.py bakes them
VOCABULARY = 64
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

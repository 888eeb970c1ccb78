"""Bad settings are refused before data is hashed and before anything is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import (
    AttentionKernel,
    Checkpointing,
    Faults,
    InLoopConfig,
    Mesh,
    Model,
    OnFault,
    Optimizer,
    ProfilerWindow,
    Stage,
    Training,
)
from hare_jax.tracking import trackers
from hare_jax.training import train
from hare_jax.training.validate import validate
from tests.hare_jax.builders import B, T, one_device, tiny_training


@pytest.fixture
def training() -> Training:
    return tiny_training(4)


def test_settings_that_fit_pass(model: Model, training: Training) -> None:
    validate(model, training, T)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "training.stages is empty"),
        ({"stages": [Stage("one", "stage1", 0)]}, "stage 'one' has 0 tokens"),
        ({"stages": [Stage("one", "stage1", 4 * B * T, dropout=1.0)]}, "got dropout=1.0"),
        ({"batch_size": 0}, "training.batch_size=0 cannot be divided"),
        ({"batch_size": 7}, "training.batch_size=7 cannot be divided"),
        ({"accumulation": 3}, "training.accumulation=3"),
        ({"mesh": Mesh(data=3)}, "training.mesh is"),
        ({"mesh": Mesh(tensor=4)}, "model.num_kv_heads=2 cannot be divided into 4"),
        ({"optimizer": Optimizer(warmup_steps=4)}, "optimizer.warmup_steps=4"),
        ({"optimizer": Optimizer(warmup_steps=1, decay_fraction=2.0)}, "decay_fraction=2.0"),
        ({"checkpointing": Checkpointing(keep=0)}, "checkpointing.keep=0"),
        ({"faults": Faults(not_finite=OnFault.IGNORE)}, "not_finite=ignore"),
        ({"loss_chunks": 5}, "loss_chunks=5 does not divide"),
        ({"profile": ProfilerWindow(3, 2)}, "first_step=3 and last_step=2"),
        ({"in_loop": InLoopConfig(every_steps=-1)}, "in_loop.every_steps=-1"),
        ({"log_every": 0}, "training.log_every=0"),
        ({"wandb_project": "hares"}, "wandb is not installed"),
    ],
)
def test_bad_settings_are_refused_before_any_work(
    bake: Callable[..., Path],
    model: Model,
    training: Training,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(trackers.util, "find_spec", lambda name: None)
    directory = bake()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        train.run(model, dataclasses.replace(training, **changes), directory, tmp_path / "run")
    assert sorted(tmp_path.rglob("*")) == before, "nothing was written"


def test_a_kernel_without_support_is_refused(model: Model, training: Training) -> None:
    model = dataclasses.replace(model, attention=AttentionKernel.CUDNN)
    with pytest.raises(ValueError, match="attention kernel 'cudnn' needs a GPU"):
        validate(model, training, T, one_device())

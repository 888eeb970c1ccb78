"""A run folder describes its model; training starts from the parameters in such a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from hare_jax.config import Checkpointing, Model, Optimizer, Training, plain
from hare_jax.model import decoder
from hare_jax.training import train
from hare_jax.training.run_dir import open_run
from tests.hare_jax.builders import (
    T,
    equal_trees,
    one_device,
    save_run,
    saved_params,
    tiny_training,
)


@pytest.fixture
def training() -> Training:
    return tiny_training(
        3,
        optimizer=Optimizer(peak_lr=1e-2, warmup_steps=1),
        checkpointing=Checkpointing(every_steps=2),
        seed=3,
    )


@pytest.mark.slow
def test_a_run_folder_has_its_model_and_the_path_of_its_data(
    bake: Callable[..., Path], model: Model, training: Training, tmp_path: Path
) -> None:
    mixture, folder = bake(), tmp_path / "training-1"
    result = train.run(model, training, mixture, folder, one_device())
    run = open_run(folder)
    assert run.model == model and run.step is None
    assert run.checkpoints == result.checkpoints
    assert run.tokenizer.read_bytes() == (mixture / "tokenizer.model").read_bytes()
    assert run.mixture["fingerprint"] == result.fingerprint
    assert run.mixture["directory"] == str(mixture) and run.mixture["sequence_length"] == T
    assert open_run(folder / "checkpoints") == run
    assert open_run(folder / "checkpoints" / "2") == replace(run, step=2)
    with pytest.raises(FileNotFoundError, match=f"expected one that training.*there is {folder}"):
        open_run(tmp_path)


def test_a_folder_that_is_no_run_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint: got nothing, expected a run's folder"):
        open_run("")
    with pytest.raises(FileNotFoundError, match=r"got no folder with config\.json"):
        open_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not a config.json that training"):
        open_run(tmp_path)
    config = {"model": plain(model) | {"num_layer": 3}, "mixture": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="num_layer"):
        open_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": plain(model), "mixture": {}}))
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.model: no such file; copy the"):
        _ = open_run(tmp_path).tokenizer


def initial(model: Model, seed: int) -> decoder.Params:
    return jax.jit(decoder.init, static_argnums=(0, 1))(model, seed)


@pytest.mark.slow
def test_starting_from_the_initial_parameters_changes_nothing(
    bake: Callable[..., Path], model: Model, training: Training, tmp_path: Path
) -> None:
    mixture = bake()

    def trained(name: str, config: Training, devices: list[jax.Device]) -> decoder.Params:
        train.run(model, config, mixture, tmp_path / name, devices)
        return saved_params(tmp_path / name, model)

    given = save_run(tmp_path / "given", model, initial(model, training.seed))
    other = save_run(tmp_path / "other", model, initial(model, training.seed + 1))
    random = trained("random", training, one_device())
    started = trained("started", replace(training, start_from=str(given)), one_device())
    elsewhere = trained("elsewhere", replace(training, start_from=str(other)), one_device())

    assert equal_trees(random, started)
    assert not equal_trees(random, elsewhere)


def test_starting_from_another_model_is_refused(
    bake: Callable[..., Path], model: Model, training: Training, tmp_path: Path
) -> None:
    given = save_run(tmp_path / "given", model, initial(model, 0))
    training.start_from = str(given)
    larger = replace(model, d_ff=64)
    with pytest.raises(ValueError, match="holds a model with d_ff=48, but the config has d_ff=64"):
        train.run(larger, training, bake(), tmp_path / "run", one_device())

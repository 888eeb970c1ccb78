"""A run's folder, read without the data or the config file that made it.

    config.json        {"model", "training", "mixture"}: see `write_config`
    tokenizer.model    the SentencePiece model of the data
    checkpoints/STEP/

A model from elsewhere is laid out the same, without "training", and "mixture" says less.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import Model, Training, from_plain, plain
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.files import write_json
from hare_jax.model import decoder
from hare_jax.training import checkpoint

TOKENIZER = "tokenizer.model"


@dataclass(slots=True)
class Run:
    """`step`: None for the latest. `mixture`: see `write_config`. `training`: None if imported."""

    directory: Path
    model: Model
    step: int | None
    mixture: dict[str, Any]
    training: Training | None = None

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """Raises FileNotFoundError where the folder holds none."""
        path = self.directory / TOKENIZER
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; put the SentencePiece model that the data was baked with "
                "there"
            )
        return path


def open_run(path: str | Path) -> Run:
    """What lies at a run's folder, at its checkpoints/, or at one checkpoint of it.

    >>> open_run("runs/quickstart/training-0123456789ab/checkpoints/400").step
    400

    Raises FileNotFoundError where there is no run, ValueError where its config.json is damaged.
    """
    if not str(path):
        raise ValueError(
            "checkpoint: got nothing, expected a run's folder: --config.checkpoint=DIR"
        )
    path = Path(path).absolute()
    step = None
    directory = path
    if path.parent.name == "checkpoints" and path.name.isdigit():
        directory, step = path.parent.parent, int(path.name)
    elif path.name == "checkpoints":
        directory = path.parent
    file = directory / "config.json"
    if not file.is_file() or not (directory / "checkpoints").is_dir():
        raise FileNotFoundError(
            f"{path}: got no folder with config.json and checkpoints/, expected one that training "
            f"or configs/import_hf.py has written{_runs_below(path)}"
        )
    try:
        config = json.loads(file.read_text("utf-8"))
        model, mixture = from_plain(Model, config["model"]), config["mixture"]
        training = from_plain(Training, config["training"]) if "training" in config else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not what training writes: {error}") from error
    return Run(directory, model, step, mixture, training)


def start_params(path: str, model: Model, placed: decoder.Params) -> decoder.Params | None:
    """The parameters of what lies at `path`, laid out as `placed`; None where `path` is "".

    Raises as `open_run` and checkpoint.restore_params do: of another model they are refused.
    """
    if not path:
        return None
    run = open_run(path)
    places = jax.tree.map(lambda a: a.sharding, placed)
    return checkpoint.restore_params(run.checkpoints, model, step=run.step, sharding=places)[0]


def write_config(directory: Path, model: Model, training: Training, baked: PackedDataset) -> None:
    """Writes config.json, with where the data lay, and a copy of its tokenizer:

    {"mixture": {"directory", "fingerprint", "sequence_length", "tokenizer"}, ...}
    """
    mixture = {
        "directory": str(baked.directory.absolute()),
        "fingerprint": baked.fingerprint,
        "sequence_length": baked.sequence_length,
        "tokenizer": baked.tokenizer,
    }
    config = {"model": plain(model), "training": plain(training), "mixture": mixture}
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config)
    shutil.copyfile(baked.directory / baked.tokenizer["file"], directory / TOKENIZER)


def _runs_below(path: Path) -> str:
    """A workdir is often meant for the run inside it."""
    found = sorted(p.parent for p in path.glob("training-*/config.json"))
    return f"; there is {', '.join(map(str, found[:3]))}" if found else ""

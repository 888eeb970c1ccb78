"""The folder of a training run: its files that other jobs read. Its name: see identity.py.

    config.json        {"model", "training", "mixture", "continued_from"}: see `write_config`
    tokenizer.model    the SentencePiece model of the data
    checkpoints/STEP/

An imported model has the same layout, without "training" and with fewer fields in "mixture".
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
    """A run's folder and the content of its config.json."""

    directory: Path
    model: Model
    step: int | None  # of the checkpoint that was named; None: the latest
    mixture: dict[str, Any]  # see `write_config`
    training: Training | None = None  # None: the model was imported
    origin: dict[str, Any] | None = None  # as in config.json; see identity.Origin

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """The path of tokenizer.model; raises FileNotFoundError if it does not exist."""
        path = self.directory / TOKENIZER
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; copy the SentencePiece model that the data was baked "
                "with to this path"
            )
        return path


def open_run(path: str | Path) -> Run:
    """Opens a run by the path of its folder, of its checkpoints/, or of one checkpoint.

    >>> open_run("runs/quickstart/training-0123456789ab/checkpoints/400").step  # doctest: +SKIP
    400

    Raises:
      FileNotFoundError: if there is no run at the path.
      ValueError: if the path is empty or config.json is damaged.
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
        raise ValueError(f"{file}: not a config.json that training writes: {error}") from error
    return Run(directory, model, step, mixture, training, config.get("continued_from"))


def start_params(path: str, model: Model, placed: decoder.Params) -> decoder.Params | None:
    """Restores the parameters to start training from, with the shardings of `placed`.

    Args:
      path: a run, an import or one checkpoint of them; "": none.
      model: the model that the checkpoint must hold.
      placed: jax.ShapeDtypeStruct with shardings.

    Returns:
      The parameters; None if `path` is "".

    Raises the errors of `open_run` and `checkpoint.restore_params`.
    """
    if not path:
        return None
    run = open_run(path)
    shardings = jax.tree.map(lambda a: a.sharding, placed)
    return checkpoint.restore_params(run.checkpoints, model, step=run.step, sharding=shardings)[0]


def write_config(
    directory: Path,
    model: Model,
    training: Training,
    dataset: PackedDataset,
    origin: dict[str, Any] | None = None,
) -> None:
    """Writes config.json, and a copy of the tokenizer of the data.

    config.json has the path and the identity of the data under "mixture":

        {"mixture": {"directory", "fingerprint", "sequence_length", "tokenizer"}, ...}

    Args:
      directory: the run's folder.
      model: written to "model".
      training: written to "training".
      dataset: the data of the run.
      origin: written to "continued_from": the checkpoint of another run that this one began with.
    """
    mixture = {
        "directory": str(dataset.directory.absolute()),
        "fingerprint": dataset.fingerprint,
        "sequence_length": dataset.sequence_length,
        "tokenizer": dataset.tokenizer,
    }
    config: dict[str, Any] = {
        "model": plain(model),
        "training": plain(training),
        "mixture": mixture,
    }
    if origin is not None:
        config["continued_from"] = origin
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", config)
    shutil.copyfile(dataset.directory / dataset.tokenizer["file"], directory / TOKENIZER)


def copy_rows(source: Path, target: Path) -> None:
    """Copies metrics and benchmark scores of the run that another one begins with.

    The other run removes the rows of steps that it does again.
    """
    for name in ("metrics.jsonl", "benchmarks.jsonl"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _runs_below(path: Path) -> str:
    """Returns a hint that names up to three runs inside `path`, which is often a workdir."""
    runs = sorted(p.parent for p in path.glob("training-*/config.json"))
    return f"; there is {', '.join(map(str, runs[:3]))}" if runs else ""

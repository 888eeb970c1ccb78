"""Trackers of training curves: TensorBoard always, Weights & Biases if a project is given."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter


class Tracker(Protocol):
    """A destination of scalars by name, such as "train/loss" and "source_loss/web"."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes the scalars of one step."""

    def close(self, failed: bool) -> None:
        """Ends the run on the tracker; `failed` marks it as failed where the tracker can."""


class TensorBoard:
    """TensorBoard event files under `run_dir`/tensorboard."""

    def __init__(self, run_dir: Path, first_step: int):
        """Opens a new event file; TensorBoard discards earlier values of steps > `first_step`."""
        self._writer = SummaryWriter(
            str(run_dir / "tensorboard"),
            purge_step=first_step + 1,
            # File names have a resolution of one second: two resumes within one second would
            # write the same file.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds the scalars of one step to the event file."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """Closes the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project, with the run's config.json.

    A resumed run keeps its id. A failure of the library or the service never stops training: it is
    printed once to stderr and the tracker is disabled. The library's environment variables, such as
    WANDB_MODE=offline and WANDB_ENTITY, apply.
    """

    def __init__(self, run_dir: Path, project: str):
        """Starts or resumes the run; raises ValueError if the package wandb is not installed."""
        check_wandb(project)
        self._run: Any = None
        with self._failures_disable_it():
            import wandb

            self._run = wandb.init(
                project=project,
                name=run_dir.name,
                id=_id(run_dir / "wandb-id"),
                resume="allow",
                dir=str(run_dir),
                config=json.loads((run_dir / "config.json").read_text("utf-8")),
                settings=wandb.Settings(console="off"),  # keeps its output off the progress bar
            )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs the scalars of one step."""
        # Steps that are repeated after a resume are logged again; Weights & Biases ignores them.
        if self._run is not None:
            with self._failures_disable_it():
                self._run.log(values, step=step)

    def close(self, failed: bool) -> None:
        """Finishes the run with exit code 0, or 1 if it failed."""
        if self._run is not None:
            with self._failures_disable_it():
                self._run.finish(exit_code=int(failed))

    @contextmanager
    def _failures_disable_it(self) -> Iterator[None]:
        """Turns any exception into one line on stderr, and disables the tracker."""
        try:
            yield
        except Exception as error:  # a third-party library and service raise any type
            self._run = None
            print(
                f"!!! Weights & Biases failed; training continues without it: "
                f"{type(error).__name__}: {' '.join(str(error).split())}",
                file=sys.stderr,
                flush=True,
            )


def check_wandb(project: str) -> None:
    """Raises ValueError if a project is given and the package wandb is not installed."""
    if project and util.find_spec("wandb") is None:
        raise ValueError(
            f"training.wandb_project is {project!r}, but the package wandb is not installed: "
            "pip install -e '.[wandb]', or leave the project empty"
        )


def _id(path: Path) -> str:
    """Returns the run id stored in `path`; creates one if there is none."""
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    return path.read_text("utf-8").strip()

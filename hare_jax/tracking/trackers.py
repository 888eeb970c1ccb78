"""Where curves can be watched: TensorBoard always, Weights & Biases where a project is given."""

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
    """Takes scalars by name, such as "train/loss" and "source_loss/web"."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, failed: bool) -> None: ...


class TensorBoard:
    """Event files under `run_dir`/tensorboard; steps after `first_step` are to be written again."""

    def __init__(self, run_dir: Path, first_step: int):
        self._writer = SummaryWriter(
            str(run_dir / "tensorboard"),
            purge_step=first_step + 1,
            # Files are named by the second: one that begins in the same would replace the other.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project, with the run's config.json; resumed under the same id.

    Whatever fails there is told on stderr, once, and training goes on without it. Its environment
    variables hold as ever: WANDB_MODE=offline, WANDB_ENTITY. Raises ValueError where the package
    is not installed.
    """

    def __init__(self, run_dir: Path, project: str):
        if util.find_spec("wandb") is None:
            raise ValueError(
                f"training.wandb_project is {project!r}, but the package wandb is not installed: "
                "pip install -e '.[wandb]', or leave the project empty"
            )
        self._run: Any = None
        with self._loudly():
            import wandb

            self._run = wandb.init(
                project=project,
                name=run_dir.name,
                id=_id(run_dir / "wandb-id"),
                resume="allow",
                dir=str(run_dir),
                config=json.loads((run_dir / "config.json").read_text("utf-8")),
                settings=wandb.Settings(console="off"),  # the progress line stays ours
            )

    def write(self, step: int, values: dict[str, float]) -> None:
        # After a resume, steps that it has already are logged again: it ignores them.
        if self._run is not None:
            with self._loudly():
                self._run.log(values, step=step)

    def close(self, failed: bool) -> None:
        if self._run is not None:
            with self._loudly():
                self._run.finish(exit_code=int(failed))

    @contextmanager
    def _loudly(self) -> Iterator[None]:
        """A board is not worth a run: its errors are told, and it is not asked again."""
        try:
            yield
        except Exception as error:  # of another's library and service: there is no telling which
            self._run = None
            print(
                f"!!! Weights & Biases failed, the run goes on without it: "
                f"{type(error).__name__}: {' '.join(str(error).split())}",
                file=sys.stderr,
                flush=True,
            )


def _id(path: Path) -> str:
    """The id kept in `path`, a new one at first."""
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    return path.read_text("utf-8").strip()

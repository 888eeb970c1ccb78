"""Curate text, train a small language model on it, evaluate and report: one config, one command.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

A config is a page of Python that says what to do. Any field of it can be set from here:

    python main.py --config=configs/quickstart.py --config.training.optimizer.peak_lr=5e-4

Everything is written below --workdir. The same command continues an interrupted run, and does
again only what a changed setting makes necessary.
"""

from __future__ import annotations

import fcntl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import app

from configs.command_line import CONFIG, WORKDIR, parse, refuse
from configs.experiment import Experiment


def run(config: Experiment, workdir: Path) -> list[Path]:
    """Runs the jobs that `config` describes; returns what a user may want to open."""
    written: list[Path] = []
    if config.data is not None:
        from data_pipeline import stages

        data = stages.run(config.data, workdir / "data")
        written += [data.mixture, data.held_out, data.items]
    if config.training is not None:
        from hare_jax.training import train

        trained = train.run(config.model, config.training, data.mixture, workdir / "training")
        written += [trained.metrics, trained.checkpoint]
    return written


def main(argv: list[str]) -> None:
    del argv
    workdir = Path(WORKDIR.value).resolve()
    with only_run_in(workdir):
        try:
            written = run(CONFIG.value, workdir)
        except KeyboardInterrupt:
            refuse("interrupted; the same command continues where this one stopped")
        except (ValueError, OSError, RuntimeError) as error:
            details = workdir / "error.txt"
            details.write_text(traceback.format_exc())
            refuse(f"{' '.join(str(error).split())} [details: {details}]")
    for path in written:
        print(path)


@contextmanager
def only_run_in(workdir: Path) -> Iterator[None]:
    """Two runs in one folder would take each other's files for leftovers; the second is refused."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse(f"another run is at work in {workdir}: wait for it, or give another --workdir")
        yield


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

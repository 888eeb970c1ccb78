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

from absl import app, logging

from configs.command_line import CONFIG, WORKDIR, parse, refuse, shown
from configs.experiment import Experiment


def run(config: Experiment, workdir: Path) -> dict[str, Path]:
    """Runs what `config` describes; returns what was written, by what it is."""
    # Each job imports what it needs: curation never loads JAX, training never TensorFlow.
    from data_pipeline import report, stages
    from data_pipeline.mixture.tokenizer import Tokenizer

    data = stages.run(config.data, workdir / "data")
    written = {"mixture": data.mixture, "held-out text": data.held_out, "items": data.items}
    run_dir = None
    if config.training is not None:
        from hare_jax.evaluation import evaluate
        from hare_jax.training import train

        run_dir = workdir / train.run_name(config.model, config.training, data.mixture)
        trained = train.run(config.model, config.training, data.mixture, run_dir)
        tokenizer = Tokenizer(config.data.baking.tokenizer)
        written["evaluation"] = evaluate.run(
            config.model,
            config.training,
            config.evaluation,
            run_dir=run_dir,
            mixture_dir=data.mixture,
            held_out_dir=data.held_out,
            items_path=data.items,
            encode=tokenizer.encode,
            decode=tokenizer.decode,
            prompts=data.prompts,
        )
        written |= {"checkpoints": trained.checkpoints, "metrics": trained.metrics}
    written["report"] = report.write(
        workdir / "report.html",
        directories=data.directories,
        mixture=data.mixture / "mixture.json",
        held_out=data.held_out / "mixture.json",
        training=run_dir,
        evaluation=run_dir,
        title=workdir.name,
        command=shown(),
    )
    return written


def main(argv: list[str]) -> None:
    del argv  # flags, all of them read by `parse`
    logging.set_verbosity(logging.WARNING)  # libraries tell what they do; the jobs say enough
    workdir = Path(WORKDIR.value).resolve()
    with only_run_in(workdir):
        try:
            written = run(CONFIG.value, workdir)
        except KeyboardInterrupt:
            refuse("interrupted; the same command goes on from here")
        except (ValueError, OSError, RuntimeError) as error:
            details = workdir / "error.txt"
            details.write_text(traceback.format_exc())
            refuse(f"{' '.join(str(error).split())}  [details: {details}]")
    for what, path in written.items():
        print(f"{what:<14} {path}")


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

"""Curate text, train a small language model on it, evaluate and report: one config, one command.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

    --config=FILE[:ARGUMENT]  what to do: a page of Python, such as those in configs/ (required)
    --config.FIELD=VALUE      sets a field: --config.training.optimizer.peak_lr=5e-4; the fields are
                              in hare_jax/config.py and data_pipeline/config.py
    --workdir=DIR             where everything is written (runs/default)

The same command continues an interrupted run, and does again only what a changed setting makes
necessary.
"""

from __future__ import annotations

from pathlib import Path

from absl import app, logging

from configs.command_line import CONFIG, WORKDIR, one_line_errors, only_run_in, parse, shown
from configs.experiment import Experiment


def run(config: Experiment, workdir: Path) -> dict[str, Path]:
    """Runs what `config` describes; returns what was written, by what it is."""
    # Each job imports what it needs: curation never loads JAX, training never TensorFlow.
    written: dict[str, Path] = {}
    run_dir, mixture = None, Path(config.mixture)
    if config.data is not None:
        from data_pipeline import stages

        data = stages.run(config.data, workdir / "data")
        if config.training is not None:
            data = stages.local(data, workdir / "data")  # out of an object store, if need be
        mixture = data.mixture
        written |= {"mixture": mixture, "held-out text": data.held_out, "items": data.items}
    if config.training is not None:
        from hare_jax.training import train

        run_dir = workdir / train.run_name(config.model, config.training, mixture)
        trained = train.run(config.model, config.training, mixture, run_dir)
        written |= {"checkpoints": trained.checkpoints, "metrics": trained.metrics}
    if config.data is not None and config.training is not None and run_dir is not None:
        from data_pipeline.mixture.tokenizer import Tokenizer
        from hare_jax.evaluation import evaluate

        tokenizer = Tokenizer(config.data.baking.tokenizer)
        written["evaluation"] = evaluate.run(
            config.model,
            config.training,
            config.evaluation,
            run_dir=run_dir,
            mixture_dir=mixture,
            held_out_dir=data.held_out,
            items_path=data.items,
            encode=tokenizer.encode,
            decode=tokenizer.decode,
            prompts=data.prompts,
        )
    if config.data is not None:
        from data_pipeline import report

        written["report"] = report.write(
            workdir / "report.html",
            directories=data.directories,
            mixture=mixture / "mixture.json",
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
    with only_run_in(workdir), one_line_errors(workdir):
        written = run(CONFIG.value, workdir)
    for what, path in written.items():
        print(f"{what:<14} {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

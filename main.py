"""Curate text, train a small language model on it, evaluate and report: one config, one command.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

    --config=FILE[:ARGUMENT]  what to do: a page of Python, such as those in configs/ (required)
    --config.FIELD=VALUE      sets a field: --config.training.optimizer.peak_lr=5e-4; the fields are
                              in hare_jax/config.py and data_pipeline/config.py
    --workdir=DIR             where everything is written (runs/default)

The same command continues an interrupted run, and repeats only what a changed setting makes
necessary.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from absl import app, logging

from configs import jobs
from configs.command_line import CONFIG, WORKDIR, one_line_errors, only_run_in, parse
from configs.experiment import Experiment
from configs.experiment_check import check_settings
from hare_jax.runtime import accelerator, distributed


def main(argv: list[str]) -> None:
    """Runs the job that the command line names, and prints what it wrote."""
    del argv  # flags, all of them read by `parse`
    logging.set_verbosity(logging.WARNING)  # of libraries; jobs print their own progress
    config, workdir = CONFIG.value, Path(WORKDIR.value).resolve()
    writes = isinstance(config, jobs.WRITE_TO_WORKDIR)
    with one_line_errors(workdir if writes or WORKDIR.present else None), ExitStack() as stack:
        check_settings(config)
        chosen = accelerator.apply(jobs.accelerator_settings(config, workdir))
        if isinstance(config, Experiment) and config.training is not None:
            distributed.initialize(config.distributed)
        if distributed.is_process_zero():
            print(*chosen, sep="\n", end="\n" if chosen else "", file=sys.stderr, flush=True)
        if writes:
            distributed.on_process_zero(lambda: stack.enter_context(only_run_in(workdir)))
            distributed.check_shared(workdir)
        for what, path in jobs.run(config, workdir).items():
            distributed.print_once(f"{what:<14} {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

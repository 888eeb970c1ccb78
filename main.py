"""Curate text, train a small language model on it, evaluate and report: one config, one command.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

A config (configs/*.py) is a page of Python that says what to do. Any field can be set from here:

    python main.py --config=configs/quickstart.py --config.training.optimizer.peak_lr=5e-4

Everything is written below --workdir. The same command continues an interrupted run, and does again
only what a changed setting makes necessary.
"""

from __future__ import annotations

"""The checks of settings before any work, of which curation is the first."""

from __future__ import annotations

import dataclasses
from typing import Any

from configs.experiment import Experiment
from hare_jax import config_check
from hare_jax.config_check import PlannedData
from hare_jax.runtime import distributed
from hare_jax.runtime.device_count import count_devices, needs_devices


def check_settings(config: Any) -> None:
    """Checks what needs nothing but the settings; `config` may be that of any job.

    The recipe is checked by `data_pipeline.pipeline.run`, and what fits together by each job.

    Raises:
      ValueError: a number is out of its range, or an experiment would ignore a setting.
    """
    if dataclasses.is_dataclass(config):
        config_check.check_numbers(config)
    if not isinstance(config, Experiment):
        return
    if config.data is not None and config.mixture:
        raise ValueError(
            f"config.mixture: got {config.mixture!r}, expected '', since this config curates its "
            "data; add --config.data=None to train on that mixture instead"
        )
    if config.training is not None and config.data is None and not config.mixture:
        raise ValueError(
            "config.mixture: got '', expected a folder of baked data to train on, or config.data"
        )


def check_training(config: Experiment) -> None:
    """Checks model, training and evaluation against the data that curation will make.

    Raises ValueError that lists all settings that cannot be used. The recipe is checked by
    `data_pipeline.pipeline.run`.
    """
    if config.training is None:
        return
    devices = None
    # Without curation, training itself counts them at once.
    curates = config.data is not None
    if curates and needs_devices(config.training.mesh) and not distributed.is_multi_process():
        devices = count_devices()
    config_check.check(
        config.model, config.training, config.evaluation, _planned_data(config), devices
    )


def _planned_data(config: Experiment) -> PlannedData | None:
    """Returns what is known of the data; None if nothing is, or if the recipe will be refused."""
    if config.data is None:
        return None
    from data_pipeline.mixture.tokenizer import open_tokenizer

    baking = config.data.baking
    try:
        vocab_size = open_tokenizer(baking.tokenizer).vocab_size
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(baking.sequence_length, int) or baking.sequence_length < 1:
        return None
    return PlannedData(baking.sequence_length, vocab_size, tuple(config.data.mixtures))

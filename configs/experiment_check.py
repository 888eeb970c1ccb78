"""The check of an experiment's training settings, made before curation begins."""

from __future__ import annotations

from configs.experiment import Experiment
from hare_jax import config_check
from hare_jax.config_check import PlannedData
from hare_jax.runtime import distributed
from hare_jax.runtime.device_count import count_devices, needs_devices


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

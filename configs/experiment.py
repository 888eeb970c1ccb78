"""What a config returns: which jobs to run, in the order in which they run."""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
from dataclasses import dataclass

from data_pipeline.config import Recipe
from hare_jax.config import Evaluation, Model, Training


@dataclass(slots=True)
class Experiment:
    """A job is left out where its part is None; `report` writes report.html at the end."""

    data: Recipe | None = None
    model: Model | None = None
    training: Training | None = None
    evaluation: Evaluation | None = None
    report: bool = True

"""What a config returns: which jobs to run, and with what."""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
from dataclasses import dataclass, field

from data_pipeline.config import Recipe, TeacherConfig
from hare_jax.config import Distributed, Evaluation, LeakageParaphrasing, Model, Training


@dataclass(slots=True)
class Experiment:
    """Curate, train, evaluate, report; a part that is None is left out.

    `mixture`: a folder of baked data to train on instead of curating; without held-out documents
    there is no evaluation, and without curation no report.
    """

    data: Recipe | None = None
    mixture: str = ""
    model: Model = field(default_factory=Model)
    training: Training | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    distributed: Distributed = field(default_factory=Distributed)


@dataclass(slots=True)
class Paraphrasing:
    """A benchmark's items in other words, by a teacher: configs/paraphrase.py."""

    items: LeakageParaphrasing = field(default_factory=LeakageParaphrasing)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

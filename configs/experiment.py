"""The types of config that join both packages."""

# No `from __future__ import annotations` here: ml_collections reads the types of the fields.
from dataclasses import dataclass, field

from data_pipeline.config import Recipe, TeacherConfig
from hare_jax.config import Distributed, Evaluation, LeakageParaphrasing, Model, Training


@dataclass(slots=True)
class Experiment:
    """Curation, training, evaluation and a report; a part that is None is left out.

    There is no evaluation without held-out documents, and no report without curation.
    """

    data: Recipe | None = None  # curation of raw text; None: train on `mixture`
    mixture: str = ""  # folder of baked data to train on instead of curating; "": see `data`
    model: Model = field(default_factory=Model)  # architecture
    training: Training | None = None  # None: only curate
    evaluation: Evaluation = field(default_factory=Evaluation)  # on held-out documents
    distributed: Distributed = field(default_factory=Distributed)  # processes of the run


@dataclass(slots=True)
class Paraphrasing:
    """Paraphrases of a benchmark's items by a teacher: configs/paraphrase.py."""

    items: LeakageParaphrasing = field(default_factory=LeakageParaphrasing)  # what is paraphrased
    teacher: TeacherConfig = field(default_factory=TeacherConfig)  # server, model and limits

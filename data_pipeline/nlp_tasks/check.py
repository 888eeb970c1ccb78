"""The check of the settings of both kinds of NLP tasks: from structure and by a teacher."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.config import NlpTasks, Restructuring
from data_pipeline.config_problems import (
    Problems,
    check_known,
    check_minimum,
    check_order,
    check_source_name,
)
from data_pipeline.nlp_tasks.from_structure import KINDS
from data_pipeline.nlp_tasks.restructure.prompts import WORDINGS
from data_pipeline.teacher.check import check_reachable_teacher


def check(
    nlp_tasks: NlpTasks, restructuring: Restructuring, cache: Path, problems: Problems
) -> None:
    """Checks both sections, and that there is a teacher if one is needed.

    Args:
      nlp_tasks: tasks from the structure of documents.
      restructuring: tasks by a teacher.
      cache: folder of the teacher's replies, unless its configuration names one.
      problems: of the recipe.
    """
    if nlp_tasks.enabled:
        own = problems.at("nlp_tasks")
        check_source_name(own, nlp_tasks, "source")
        check_known(own, "kinds", nlp_tasks.kinds, KINDS, "kind of task")
        check_minimum(own, 1, nlp_tasks, "per_document", "max_words", "max_tokens")
    if restructuring.enabled:
        own = problems.at("restructuring")
        check_source_name(own, restructuring, "source")
        check_known(own, "kinds", restructuring.kinds, WORDINGS, "kind of task")
        if not restructuring.kinds:
            own.add("kinds", restructuring.kinds, f"at least one of {', '.join(WORDINGS)}")
        counts = ("per_document", "per_passage", "min_words", "answer_tokens", "max_tokens")
        check_minimum(own, 1, restructuring, *counts)
        check_order(own, restructuring, "min_words", "max_words")
        without = f"{own.path}.enabled=False"
        check_reachable_teacher(restructuring.teacher, cache, own.at("teacher"), without)

"""The check of the settings of held-out documents."""

from __future__ import annotations

from data_pipeline.config import HeldOut
from data_pipeline.config_problems import Problems, check_minimum, check_share


def check(held_out: HeldOut, problems: Problems) -> None:
    """Checks the section; `problems` is that of the recipe."""
    own = problems.at("held_out")
    check_share(own, held_out, "fraction")
    check_minimum(own, 0, held_out, "max_documents", "items")
    check_minimum(own, 2, held_out, "choices")

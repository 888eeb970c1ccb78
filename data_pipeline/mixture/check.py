"""The check of the settings of baking, of mixtures and of their budgets."""

from __future__ import annotations

from collections.abc import Mapping

from data_pipeline.config import Baking
from data_pipeline.config_problems import Problems, check_known, check_minimum
from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.mixture.weights import check_weights


def check(
    baking: Baking,
    mixtures: Mapping[str, Mapping[str, float]],
    budgets: Mapping[str, float],
    tier_of: Mapping[str, str] | None,
    problems: Problems,
) -> None:
    """Checks the sections of the recipe that bake and mix.

    Args:
      baking: the section; its tokenizer is opened.
      mixtures: name -> {source or tier: weight}.
      budgets: mixture -> tokens.
      tier_of: the tier of every source that the recipe makes; None if they are not known yet.
      problems: of the recipe.
    """
    own = problems.at("baking")
    check_minimum(own, 1, baking, "sequence_length", "part_bytes")
    try:
        open_tokenizer(baking.tokenizer)
    except (OSError, ValueError) as error:
        own.add("tokenizer", baking.tokenizer, "a SentencePiece model", str(error))
    check_weights(mixtures, tier_of, problems.at("mixtures"))
    check_known(problems, "budgets", budgets, mixtures, "mixture of the recipe")
    for name, tokens in budgets.items():
        if tokens <= 0:
            problems.add(f"budgets[{name!r}]", tokens, "more than 0 tokens")

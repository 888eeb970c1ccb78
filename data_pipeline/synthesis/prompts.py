"""Which prompt a passage gets, and how it reads.

>>> len(all_prompts()["law"]), all_prompts()["law"][0].id
(15, 'law/textbook/students')
>>> rendered = render(all_prompts()["law"][0], "No person shall keep a hare.")
>>> rendered.text[rendered.start : rendered.end]
'No person shall keep a hare.'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from data_pipeline.synthesis import prompt_texts
from data_pipeline.text import seeded_random

OTHERWISE = "web"  # the category of prompts for a category that nothing is said of


@dataclass(frozen=True, slots=True)
class Prompt:
    """`id` is CATEGORY/STYLE/AUDIENCE and stays while the words may change."""

    id: str
    opening: str
    instruction: str  # what follows the passage


class RenderedPrompt(NamedTuple):
    """What is sent; the passage is `text[start:end]`."""

    text: str
    start: int
    end: int

    @property
    def instruction(self) -> str:
        """All but the passage."""
        return f"{self.text[: self.start]}\n{self.text[self.end :]}"


@cache
def all_prompts() -> dict[str, tuple[Prompt, ...]]:
    """The prompts of each category: every style for every audience."""
    return {
        name: tuple(
            Prompt(
                f"{name}/{style}/{audience}",
                prompt_texts.OPENING.format(passage=category.passage),
                f"{what} {who} {prompt_texts.RULES}",
            )
            for style, what in category.styles.items()
            for audience, who in category.audiences.items()
        )
        for name, category in prompt_texts.CATEGORIES.items()
    }


def category_of(category: str, mapping: Mapping[str, str]) -> str:
    """The category of prompts for a document's own category; upper and lower case are one.

    >>> category_of("Law", {}), category_of("encyclopedia", {"encyclopedia": "wiki"})
    ('law', 'wiki')
    >>> category_of("recipes", {})
    'web'
    """
    name = category.lower()
    name = mapping.get(name, name)
    return name if name in prompt_texts.CATEGORIES else OTHERWISE


def check(weights: Mapping[str, float], mapping: Mapping[str, str]) -> None:
    """Raises ValueError for a category that has no prompts, and for weights that are none."""
    known = ", ".join(prompt_texts.CATEGORIES)
    for field, names in (("weights", weights), ("categories", mapping.values())):
        if unknown := sorted(set(names) - prompt_texts.CATEGORIES.keys()):
            raise ValueError(
                f"synthesis.{field}: there are no prompts for {', '.join(unknown)}. "
                f"Categories are {known}."
            )
    if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
        raise ValueError(
            f"synthesis.weights: got {dict(weights)}, expected numbers >= 0, not all of them 0"
        )


def choose(prompts: Sequence[Prompt], seed: int, document: str, number: int) -> Prompt:
    """The prompt of a document's passage of this number: by a hash, each next one another style
    or audience, so that passages of one document differ in it while there are prompts left."""
    first = seeded_random.hash64(seed, "prompt", document) % len(prompts)
    step = next(s for s in (7, 11, 13, 17, 19, 1) if len(prompts) % s)
    return prompts[(first + number * step) % len(prompts)]


def render(prompt: Prompt, passage: str) -> RenderedPrompt:
    before = f"{prompt.opening}\n\n<passage>\n"
    text = f"{before}{passage}\n</passage>\n\n{prompt.instruction}"
    return RenderedPrompt(text, len(before), len(before) + len(passage))

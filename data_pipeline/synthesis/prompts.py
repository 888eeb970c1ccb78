"""Selection and rendering of the prompts for synthetic text.

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

DEFAULT_CATEGORY = "web"  # the prompts of passages whose category has none


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt without its passage.

    Attributes:
      id: CATEGORY/STYLE/AUDIENCE; it stays the same when the texts are edited.
      opening: the text before the passage.
      instruction: the text after the passage.
    """

    id: str
    opening: str
    instruction: str


class RenderedPrompt(NamedTuple):
    """The text that is sent to the teacher; the passage is `text[start:end]`."""

    text: str
    start: int
    end: int

    @property
    def instruction(self) -> str:
        """The text without the passage."""
        return f"{self.text[: self.start]}\n{self.text[self.end :]}"


@cache
def all_prompts() -> dict[str, tuple[Prompt, ...]]:
    """Returns the prompts of each category, one per style and audience."""
    return {
        name: tuple(
            Prompt(
                f"{name}/{style}/{audience}",
                prompt_texts.OPENING.format(passage=category.passage),
                f"{instruction} {readers} {prompt_texts.RULES}",
            )
            for style, instruction in category.styles.items()
            for audience, readers in category.audiences.items()
        )
        for name, category in prompt_texts.CATEGORIES.items()
    }


def category_of(category: str, mapping: Mapping[str, str]) -> str:
    """Returns the category of prompts for a document's category, regardless of case.

    >>> category_of("Law", {}), category_of("encyclopedia", {"encyclopedia": "wiki"})
    ('law', 'wiki')
    >>> category_of("recipes", {})
    'web'
    """
    name = category.lower()
    name = mapping.get(name, name)
    return name if name in prompt_texts.CATEGORIES else DEFAULT_CATEGORY


def choose(prompts: Sequence[Prompt], seed: int, document: str, number: int) -> Prompt:
    """Returns the prompt of a document's passage, selected by a hash of the document's id.

    Passages of one document get different prompts, as long as there are any.

    Args:
      prompts: the prompts of the passage's category.
      seed: seed of the hash.
      document: id of the document.
      number: number of the passage in the document, from 0.
    """
    first = seeded_random.hash64(seed, "prompt", document) % len(prompts)
    # A prime that does not divide the number of prompts: its multiples visit every prompt once,
    # and consecutive passages differ in style and audience.
    step = next(s for s in (7, 11, 13, 17, 19, 1) if len(prompts) % s)
    return prompts[(first + number * step) % len(prompts)]


def render(prompt: Prompt, passage: str) -> RenderedPrompt:
    """Inserts a passage into a prompt."""
    before = f"{prompt.opening}\n\n<passage>\n"
    text = f"{before}{passage}\n</passage>\n\n{prompt.instruction}"
    return RenderedPrompt(text, len(before), len(before) + len(passage))

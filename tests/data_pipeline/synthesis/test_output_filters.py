"""Output filters: bad replies are dropped, framing is removed, good texts are unchanged."""

from __future__ import annotations

import pytest

from data_pipeline.config import OutputFilters
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.synthesis import output_filters, prompts
from data_pipeline.synthesis.output_filters import PromptContext, strip_framing, to_last_sentence

GOOD = (
    "Every spring the river carries silt from the hills down to the plain, where it settles in "
    "layers as thin as paper. Geologists read these layers as a clerk reads a ledger: a thick one "
    "tells of a wet year, a thin one of drought.\n\n"
    "To date a flood, they count the layers above it. The method sounds simple, yet it needs care, "
    "because a storm may wash away a whole decade in one night. That is why at least three cores "
    "are taken, some distance apart, and compared."
)
PASSAGE = (
    "The committee shall publish its report within ninety days of the hearing and shall send a "
    "copy of it to each of the parties, who may reply in writing within a further thirty days."
)
CONTEXT = PromptContext(
    PASSAGE, prompts.render(prompts.all_prompts()["law"][0], PASSAGE).instruction
)
CONFIG = OutputFilters(min_words=40)
FILTER = output_filters.build(CONFIG)


def judge(
    text: str, finish: str = "stop", output_filter: output_filters.OutputFilter = FILTER
) -> Document | Dropped:
    return output_filter(Document("s/0", text, "s", "law"), finish, CONTEXT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I’m sorry, but I cannot continue this text.\n\n" + GOOD, "refusal"),
        ("I am unable to provide legal advice.\n\n" + GOOD, "refusal"),
        (GOOD + "\n\nAs an AI language model, I have no opinion.", "meta_talk"),
        (GOOD + "\n\nThe passage above shows how floods are dated.", "meta_talk"),
        ("The provided extract deals with floods.\n\n" + GOOD, "meta_talk"),
        (GOOD + "\n\n" + CONTEXT.instruction[-200:], "prompt_leak"),
        (GOOD + "<|im_end|>", "template_leak"),
        ("[INST] " + GOOD, "template_leak"),
        ("<think>The user wants a unit." + GOOD, "reasoning"),
        (PASSAGE, "copied"),
        (GOOD + "\n\n" + PASSAGE, "copied"),
        ("Too short by far.", "too_short"),
        ("", "too_short"),
        (GOOD + "\n\n" + "\n".join(["The same line once again."] * 60), "duplicate_lines"),
        (GOOD + " " + "The hare runs over the hill and back to its form. " * 60, "loop"),
        (
            "Les lièvres vivent dans les champs de toute l'Europe, où ils trouvent de l'herbe. "
            "Pendant la journée ils se reposent dans un creux, et ils sortent à la nuit tombante. "
            "Au printemps ils se poursuivent à travers les prés, et leurs petits naissent les yeux "
            "ouverts, déjà couverts de poils et capables de courir après quelques heures.",
            "language",
        ),
    ],
)  # fmt: skip
def test_bad_replies_are_dropped_with_a_reason(text: str, reason: str) -> None:
    judged = judge(text)
    assert isinstance(judged, Dropped)
    assert judged.reason == reason
    assert judged.evidence
    for quoted in ("span", "line"):
        if quoted in judged.evidence and reason not in ("copied", "prompt_leak", "loop"):
            assert judged.evidence[quoted] in judged.document.text


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "# Reading a river\n\n" + GOOD,
        "Sure-footed goats live above the plain. " + GOOD,
        "Here is where the river bends. " + GOOD,
        '"I\'m sorry, but I have to catch my train," said Ada. ' + GOOD,
        '"I can\'t help it," said Ada. ' + GOOD,
        "The judge read the passage aloud, and the clerk took the extract down. " + GOOD,
        "Engineers speak of AI when a program learns. " + GOOD,
        GOOD + "\n\n```python\nfor year in range(10):\n    print(year)\n```",
        "Teacher: What does the layer tell?\n\nPupil: That it rained.\n\n" + GOOD,
    ],
)
def test_good_texts_are_unchanged(text: str) -> None:
    judged = judge(text)
    assert isinstance(judged, Document), judged
    assert judged.text == text
    assert "repaired" not in judged.meta


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("Sure! Here is the course unit:\n\n", "", ["preamble"]),
        ("Certainly. I've written a story for you:\n", "", ["preamble"]),
        ("**Here's a detailed textbook section on rivers:**\n\n", "", ["preamble"]),
        ("Below is the lecture you asked for.\n\n", "\n\n---", ["preamble", "closing"]),
        ("", "\n\nI hope this helps! Let me know if you want more.", ["closing"]),
        ("", "\n\n(Word count: 1,024)", ["closing"]),
        ("", "\n\n---\n\nWould you like me to go on?", ["closing"]),
        ("<think>\nA unit, they say.\n</think>\n\n", "", ["reasoning"]),
    ],
)
def test_framing_is_removed(before: str, after: str, names: list[str]) -> None:
    judged = judge(before + GOOD + after)
    assert isinstance(judged, Document)
    assert judged.text == GOOD and judged.meta["repaired"] == names
    assert strip_framing(judged.text) == (GOOD, [])


def test_reply_of_framing_only_is_not_emptied() -> None:
    assert strip_framing("Sure! Here is a story:") == ("Sure! Here is a story:", [])


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        (" And then the", ""),
        ("\n\nThe next core", ""),
        (" They waited for Dr.", " They waited for Dr."),  # nobody can tell
        (' Ada said: "It rained."', ' Ada said: "It rained."'),
        ("\n\n```python\nfor year in", ""),
        ("\n\n```python\nx = 1  # One.\n\ny", ""),
        ("\n\n```python\nx = 1\n```", "\n\n```python\nx = 1\n```"),
        ("\n\n1. First a core is taken.\n2. Then it", "\n\n1. First a core is taken."),
    ],
)
def test_truncated_reply_ends_at_its_last_sentence(tail: str, kept: str) -> None:
    assert to_last_sentence(GOOD + tail) == GOOD + kept
    judged = judge(GOOD + tail, "length")
    assert isinstance(judged, Document) and judged.text == GOOD + kept
    assert judged.meta.get("repaired", []) == (["cut_off"] if tail != kept else [])


def test_truncated_replies_can_be_dropped_instead() -> None:
    output_filter = output_filters.build(OutputFilters(min_words=40, repair_truncated=False))
    judged = judge(GOOD + " And then", "length", output_filter)
    assert isinstance(judged, Dropped) and judged.reason == "cut_off"
    assert isinstance(judge(GOOD, "length", output_filter), Document)  # it ends well all the same


def test_truncated_reply_without_a_sentence_is_too_short() -> None:
    judged = judge("and then and then " * 40, "length")
    assert isinstance(judged, Dropped) and judged.reason == "too_short"


def test_quotation_is_not_a_copy() -> None:
    """Both shares: of the answer, and of the passage."""
    words = PASSAGE.split()
    quoted = f"{GOOD} The rule says: “{' '.join(words[:10])}”, and no more."
    assert isinstance(judge(quoted), Document)
    half = f"{GOOD} {' '.join(words[: len(words) * 3 // 4])}."
    judged = judge(half)
    assert isinstance(judged, Dropped) and judged.evidence["passage_coverage"] > 0.6
    assert judged.evidence["copied"] < 0.3
    free = output_filters.build(OutputFilters(min_words=20, max_copied=0, max_passage_coverage=0))
    assert isinstance(judge(half, output_filter=free), Document)
    assert isinstance(judge(PASSAGE, output_filter=free), Document)


def test_limits_are_the_configured_ones() -> None:
    words = len(GOOD.split())
    exact = output_filters.build(OutputFilters(min_words=words, max_words=words))
    assert isinstance(judge(GOOD, output_filter=exact), Document)
    for config, reason in (
        (OutputFilters(min_words=words + 1), "too_short"),
        (OutputFilters(max_words=words - 1), "too_long"),
    ):
        judged = judge(GOOD, output_filter=output_filters.build(config))
        assert isinstance(judged, Dropped) and judged.reason == reason
    loop = GOOD + " " + "The hare runs over the hill and back to its form. " * 60
    without = output_filters.build(OutputFilters(max_repeated_ngrams=0))
    assert isinstance(judge(loop, output_filter=without), Document)

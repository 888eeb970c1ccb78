"""The prompts that request a task: instructions, two examples, a topic if known, and the passage.

The content follows section 2.3 of the paper; the wording is this project's. The examples of each
kind pass the checks that replies have to pass.
"""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from data_pipeline.nlp_tasks.restructure.schemas import KEYWORDS, OPTIONS

SYSTEM = (
    "You turn passages into exercises from which a student learns to read, to know and to reason. "
    "You keep to what the passage says. You answer with one JSON object and nothing else."
)


class Wording(NamedTuple):
    """The instructions for a kind of task.

    Attributes:
      instructions: phrasings of the instruction, one of which is used.
      fields: a description of the JSON object's fields.
    """

    instructions: tuple[str, ...]
    fields: str


_NEEDS_PASSAGE = (
    '"needs_passage" is false only if somebody who has never seen the passage can understand what '
    "is asked: it then names everything that it is about, and does not mention a passage or text"
)
_STATES_ALL = "Ask for what the passage states or what follows from it."

WORDINGS = {
    "question_answering": Wording(
        (
            f"Write a question about the passage below, and its answer. {_STATES_ALL}",
            "Think of a reader who wants to understand the passage below. Write one question that "
            "is worth asking, and answer it from the passage.",
            "From the passage, make a question that takes some thought: a how, a why, a what "
            "follows. Give a complete and correct answer.",
        ),
        '"question", which ends with a question mark; "answer", in a sentence or a few; '
        f"{_NEEDS_PASSAGE}.",
    ),
    "multiple_choice": Wording(
        (
            f"Write a multiple-choice question about the passage below. {_STATES_ALL}",
            "Make an examination question on the passage, with one right option and wrong ones "
            "that somebody might believe who has not read it carefully.",
            "Test with a question and options whether a reader has understood the passage below.",
        ),
        f'"question", which ends with a question mark; "options", {OPTIONS} different ones of '
        "similar length, without letters before them, none of which speaks of the others; "
        f'"answer", the right option, word for word; {_NEEDS_PASSAGE}.',
    ),
    "cloze": Wording(
        (
            "Choose a sentence of the passage below and leave out the word that matters most.",
            "Make a gap text from one sentence of the passage: take out a term, a name or a number "
            "that a reader can find by understanding the rest.",
            "Pick a telling sentence from the passage and replace a word, or a few, by a gap.",
        ),
        '"sentence", copied word for word from the passage, but with ____ where something was left '
        'out; "answer", what was left out, word for word. What is left out does not occur '
        "elsewhere in the sentence.",
    ),
    "summary": Wording(
        (
            "Summarize the passage below.",
            "Say in one to three sentences what the passage below comes down to.",
            "Write an abstract of the passage for somebody who has no time to read it.",
        ),
        '"summary", in your own words, much shorter than the passage, without new facts and '
        'without phrases like "the passage says".',
    ),
    "true_false": Wording(
        (
            "Write a statement about the passage below that is either true or false, and say why.",
            "Make a claim that a reader of the passage can check. Make it false about every other "
            "time, by changing something that matters. Then judge it and give the reason.",
            "Write a true-or-false exercise on the passage, with its solution and an explanation.",
        ),
        '"statement", a full sentence; "verdict", true or false, not a string; "reason", a '
        f"sentence that quotes or explains what the passage says of it; {_NEEDS_PASSAGE}.",
    ),
    "paraphrase": Wording(
        (
            "Choose a sentence of the passage below and say the same in other words.",
            "Take one sentence from the passage and rewrite it: another order, other words, the "
            "same meaning.",
            "Write an exercise in rephrasing, with its solution, from a sentence of the passage.",
        ),
        '"sentence", copied word for word from the passage; "paraphrase", which keeps all that it '
        "says, names and numbers included, and adds nothing.",
    ),
    "keywords": Wording(
        (
            "List the keywords of the passage below.",
            "Which terms of the passage would you put into the index of a book? Name them.",
            "Find the terms that the passage below is about.",
        ),
        f'"keywords", {KEYWORDS[0]} to {KEYWORDS[1]} different terms of at most five words, each '
        "written as it stands in the passage, the most important first.",
    ),
    "title": Wording(
        (
            "Give the passage below a title.",
            "Think of a heading that tells a reader what the passage below is about.",
            "What would an encyclopaedia or a textbook print above the passage below?",
        ),
        '"title", two to twelve words without a full stop, no copy of a line of the passage.',
    ),
}

_BASALT = (
    "Basalt is a dark rock that forms when lava cools quickly at the surface. It makes up most of "
    "the ocean floor. Where thick flows cool slowly, they shrink and crack into columns, most of "
    "them with six sides. The columns of the Giant's Causeway in Northern Ireland are about sixty "
    "million years old."
)
_CLAMP = '''def clamp(value, low, high):
    """Move value into the range from low to high."""
    if low > high:
        raise ValueError("low must not exceed high")
    return max(low, min(value, high))'''
_LEASE = (
    "A tenant who means to leave shall give the landlord written notice at least sixty days before "
    "the lease ends. Notice given by telephone has no effect. If the tenant stays after the lease "
    "has ended, the lease continues from month to month under the same terms."
)

# Kind -> (passage, expected object) of examples, two of which are in a prompt.
EXAMPLES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "question_answering": (
        (
            _BASALT,
            {
                "question": "Why do thick flows of basalt lava crack into columns?",
                "answer": "They cool slowly and shrink while they do, so they crack into columns, "
                "most of which have six sides.",
                "needs_passage": False,
            },
        ),
        (
            _CLAMP,
            {
                "question": "What happens if this function is called with low greater than high?",
                "answer": "It raises a ValueError that says that low must not exceed high.",
                "needs_passage": True,
            },
        ),
        (
            _LEASE,
            {
                "question": "Is it enough for the tenant to call the landlord sixty days before "
                "the lease ends?",
                "answer": "No. Notice has to be written; notice given by telephone has no effect.",
                "needs_passage": True,
            },
        ),
    ),
    "multiple_choice": (
        (
            _BASALT,
            {
                "question": "Under what conditions does basalt form columns?",
                "options": [
                    "When thick flows cool slowly",
                    "When thin flows meet the sea",
                    "When ash falls on old lava",
                    "When rock melts a second time",
                ],
                "answer": "When thick flows cool slowly",
                "needs_passage": False,
            },
        ),
        (
            _CLAMP,
            {
                "question": "What does this code do with a value that is already in the range?",
                "options": [
                    "It changes the value to low",
                    "It gives back the value",
                    "It changes the value to high",
                    "It raises a ValueError",
                ],
                "answer": "It gives back the value",
                "needs_passage": True,
            },
        ),
        (
            _LEASE,
            {
                "question": "What happens if the tenant stays after the lease has ended?",
                "options": [
                    "The tenant owes sixty days of rent",
                    "The landlord has to give notice in writing",
                    "The lease continues from month to month",
                    "The terms of the lease are written anew",
                ],
                "answer": "The lease continues from month to month",
                "needs_passage": True,
            },
        ),
    ),
    "cloze": (
        (
            _BASALT,
            {
                "sentence": "Basalt is a dark rock that forms when ____ cools quickly at the "
                "surface.",
                "answer": "lava",
            },
        ),
        (
            _CLAMP,
            {
                "sentence": "return max(low, ____(value, high))",
                "answer": "min",
            },
        ),
        (
            _LEASE,
            {"sentence": "Notice given by ____ has no effect.", "answer": "telephone"},
        ),
    ),
    "summary": (
        (
            _BASALT,
            {
                "summary": "Basalt, quickly cooled lava, covers most of the ocean floor; thick "
                "flows that cool slowly crack into six-sided columns."
            },
        ),
        (
            _CLAMP,
            {"summary": "Brings a value into the range from low to high."},
        ),
        (
            _LEASE,
            {
                "summary": "Tenants must announce in writing, sixty days ahead, that they leave; "
                "otherwise the lease continues monthly."
            },
        ),
    ),
    "true_false": (
        (
            _BASALT,
            {
                "statement": "Most of the ocean floor is basalt.",
                "verdict": True,
                "reason": "Basalt, which forms when lava cools quickly, makes up most of the "
                "ocean floor.",
                "needs_passage": False,
            },
        ),
        (
            _CLAMP,
            {
                "statement": "The function gives back low if low is greater than high.",
                "verdict": False,
                "reason": "In that case it raises a ValueError: low must not exceed high.",
                "needs_passage": True,
            },
        ),
        (
            _LEASE,
            {
                "statement": "The tenant can give notice by telephone.",
                "verdict": False,
                "reason": "Notice has to be written; notice given by telephone has no effect.",
                "needs_passage": True,
            },
        ),
    ),
    "paraphrase": (
        (
            _BASALT,
            {
                "sentence": "It makes up most of the ocean floor.",
                "paraphrase": "Most of the floor of the ocean consists of it.",
            },
        ),
        (
            _CLAMP,
            {
                "sentence": "Move value into the range from low to high.",
                "paraphrase": "Bring value between low and high if it lies outside their range.",
            },
        ),
        (
            _LEASE,
            {
                "sentence": "Notice given by telephone has no effect.",
                "paraphrase": "It is not effective to give notice over the telephone.",
            },
        ),
    ),
    "keywords": (
        (_BASALT, {"keywords": ["Basalt", "lava", "columns", "ocean floor", "Giant's Causeway"]}),
        (_CLAMP, {"keywords": ["clamp", "range", "ValueError"]}),
        (_LEASE, {"keywords": ["tenant", "landlord", "written notice", "lease"]}),
    ),
    "title": (
        (_BASALT, {"title": "How Basalt Forms and Cracks into Columns"}),
        (_CLAMP, {"title": "Keeping a Value within a Range"}),
        (_LEASE, {"title": "Notice before the End of a Lease"}),
    ),
}
_NUM_EXAMPLES = 2  # per prompt

_CATEGORIES = {
    "code": "The passage is program text. Ask about what it does, when and why, not about its "
    "layout.",
    "math": "The passage is mathematical. Keep its notation, and check every step of what you "
    "write.",
    "law": "The passage is law. Be exact about who must, may or must not do what, and when.",
    "books": "The passage is from a book. Call persons and places by their names.",
}


def prompt(kind: str, passage: str, category: str, topic: str, random_: random.Random) -> str:
    """Returns the user message that requests a task about a passage.

    Args:
      kind: the kind of task.
      passage: the passage.
      category: category of the passage; a key of _CATEGORIES adds a remark.
      topic: a few terms that describe the topic of the passage; "" if unknown.
      random_: selects the instruction, the examples and their order.
    """
    wording = WORDINGS[kind]
    parts = [random_.choice(wording.instructions), f"The JSON object holds {wording.fields}"]
    if category in _CATEGORIES:
        parts.append(_CATEGORIES[category])
    for text, example in random_.sample(EXAMPLES[kind], _NUM_EXAMPLES):
        value = json.dumps(example, ensure_ascii=False)
        parts.append(f"Passage:\n{text}\n\nJSON:\n{value}")
    if topic:
        parts.append(f"The next passage belongs to the topic: {topic}")
    parts.append(f"Passage:\n{passage}\n\nJSON:")
    return "\n\n".join(parts)

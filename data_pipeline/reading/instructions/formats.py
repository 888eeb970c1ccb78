"""Instruction and question data in its usual shapes, as plain text.

A row is recognized by its keys and their types, first match in `FORMATS` wins:

>>> print(render({"question": "Which one hops?", "choices": ["a cod", "a hare"], "answer": 1}).text)
Question: Which one hops?
A. a cod
B. a hare
Answer: B. a hare
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import NamedTuple

from data_pipeline.reading.instructions import labelled, tool_calls
from data_pipeline.reading.instructions.row_fields import Row, first_text, is_text

COMPLETIONS = ("completion", "response", "output", "answer")
ANSWERS = ("answer", "gold_ans", "ans", "pred_ans")
RATIONALES = ("rationale", "solution", "explanation")
SYSTEM = ("system", "system_prompt")
CONTEXTS = ("context", "passage")
QUESTIONS = ("question", "prompt", "instruction", "query", "messages", "conversations", "code")
TEMPLATES = ("yaml", "jinja", "template")
DESCRIPTIONS = ({"service_name", "intents"}, {"API", "Link"})
PEOPLE = {"human": "User", "gpt": "Assistant"}  # other roles are shown by their own names


class RenderedRow(NamedTuple):
    format: str
    text: str


class UnusableRow(NamedTuple):
    """Why a row is nothing to train on: `reason` is a stable snake_case name."""

    reason: str
    detail: str


class Format(NamedTuple):
    name: str
    fits: Callable[[Row], bool]
    render: Callable[[Row], str]


def render(row: Row, label_fields: tuple[str, ...] = ()) -> RenderedRow | UnusableRow:
    """The row as text, by the first format that fits it.

    A row with a `text` and one of `label_fields` is a classification. What fits nothing is refused:

        no_answer       somebody asks, and nobody answers (a test set without its key, as a rule)
        template        a prompt template without the data that fills it
        description     a schema or a list of services: nothing is asked or answered
        unknown_format  neither
    """
    if field := labelled.label_field(row, label_fields):
        return RenderedRow("labelled_text", labelled.labelled_text(row, field))
    for format in FORMATS:
        if format.fits(row):
            return RenderedRow(format.name, format.render(row))
    return _refusal(row)


def _refusal(row: Row) -> UnusableRow:
    fields = ", ".join(row)
    if any(isinstance(row.get(key), str) and "jinja:" in row[key] for key in TEMPLATES):
        return UnusableRow("template", f"templates to be filled with other data, in {fields}")
    if any(row.get(key) for key in QUESTIONS):
        return UnusableRow("no_answer", f"a request, and no answer that can be read, in {fields}")
    if any(keys <= row.keys() for keys in DESCRIPTIONS):
        return UnusableRow("description", f"describes services, and no use of one, by {fields}")
    return UnusableRow("unknown_format", f"no known format has the fields {fields}")


def _question(row: Row) -> str:
    """The question after its context; "Q:" and "A:" around it are its label, not its words."""
    question = re.sub(r"^Q:\s*|\s*A:\s*$", "", row["question"]).strip()
    context = first_text(row, CONTEXTS)
    return f"{context}\n\nQuestion: {question}" if context else f"Question: {question}"


# The frame of Stanford Alpaca's prompts: the same sentence before each one is no text to learn.
_FRAMED = re.compile(
    r".*?###\s*Instruction:\s*(?P<instruction>.+?)\s*"
    r"(?:###\s*Input:\s*(?P<input>.*?)\s*)?###\s*Response:\s*",
    re.DOTALL,
)


def _prompt_completion(row: Row) -> str:
    if framed := _FRAMED.fullmatch(row["prompt"]):
        return _instruction({**framed.groupdict(), "output": first_text(row, COMPLETIONS)})
    prompt = row["prompt"]
    return prompt + ("" if prompt[-1].isspace() else "\n") + first_text(row, COMPLETIONS)


def _instances(row: Row) -> list[Row]:
    """The (input, output) pairs of an instruction: in a list, or in the row itself."""
    instances = row.get("instances", [row])
    if isinstance(instances, list) and all(isinstance(item, dict) for item in instances):
        return [item for item in instances if first_text(item, COMPLETIONS)]
    return []


def _instruction(row: Row) -> str:
    system = first_text(row, SYSTEM)
    parts = [f"System: {system}"] if system else []
    parts.append(f"Instruction: {row['instruction'].strip()}")
    for instance in _instances(row):
        if given := first_text(instance, ("input", *CONTEXTS)):
            parts.append(f"Input: {given}")
        parts.append(f"Response: {first_text(instance, COMPLETIONS)}")
    return "\n\n".join(parts)


def _choices(row: Row) -> list[str]:
    """Of `choices` (a list, or {"text": [...]}), or of numbered keys: ans0, ans1, ... and so on."""
    choices = row.get("choices")
    if isinstance(choices, dict):
        choices = choices.get("text")
    if choices is None:
        numbered = [(re.fullmatch(r"(ans|answer|ending|option|sol)(\d)", key), key) for key in row]
        choices = [row[key] for _, key in sorted((m[0], key) for m, key in numbered if m)]
    if isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices):
        return [choice.strip() for choice in choices]
    return []


def _right(row: Row) -> int | None:
    """The index of the right choice: given as index, as letter or number label, or as its text."""
    choices = _choices(row)
    if len(choices) < 2:
        return None
    right = row.get("answer", row.get("answerKey", row.get("label")))
    if isinstance(right, str):
        labels = row["choices"].get("label") if isinstance(row.get("choices"), dict) else None
        for names in (choices, labels or list(string.ascii_uppercase[: len(choices)])):
            if right.strip() in names:
                return names.index(right.strip())
        right = int(right) if right.isdecimal() else None
    is_index = (
        isinstance(right, int) and not isinstance(right, bool) and right in range(len(choices))
    )
    return right if is_index else None


def _multiple_choice(row: Row) -> str:
    lines = [f"{string.ascii_uppercase[i]}. {choice}" for i, choice in enumerate(_choices(row))]
    return "\n".join([_question(row), *lines, f"Answer: {lines[_right(row) or 0]}"])


def _question_rationale(row: Row) -> str:
    rationale = first_text(row, RATIONALES).rstrip(".")
    return f"{_question(row)}\nAnswer: {rationale}. The answer is {first_text(row, ANSWERS)}."


def _equation(row: Row) -> str:
    equation = row["equation"].removeprefix("X=").strip()
    answer = first_text(row, ANSWERS)
    return (
        f"Question: {row['original_text']}\nAnswer: {equation} = {answer}. The answer is {answer}."
    )


def _turns(row: Row) -> list[tuple[str, str]]:
    """(who, what) of a conversation in any of its usual keys, [] where one turn has no text."""
    turns = next((row[key] for key in ("messages", "conversations", "turns") if key in row), None)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return []
    pairs = [
        (
            first_text(turn, ("role", "from", "speaker")),
            first_text(turn, ("content", "value", "utterance")),
        )
        for turn in turns
    ]
    return pairs if all(who and what for who, what in pairs) else []


def _conversation(row: Row) -> str:
    turns = _turns(row)
    system = first_text(row, SYSTEM)
    if system and all(who.lower() != "system" for who, _ in turns):
        turns = [("system", system), *turns]
    return "\n".join(f"{PEOPLE.get(who.lower(), who.capitalize())}: {what}" for who, what in turns)


def _by(function: Callable[[Row], str], name: str) -> Format:
    """A format whose renderer answers "" to what does not fit."""
    return Format(name, lambda row: bool(function(row)), function)


FORMATS = (
    _by(tool_calls.function_call, "function_call"),
    _by(tool_calls.named_call, "named_call"),
    _by(tool_calls.api_session, "api_session"),
    _by(tool_calls.api_choice, "api_choice"),
    Format("slots", labelled.has_slots, labelled.slots),
    Format(
        "multiple_choice",
        lambda row: is_text(row, "question") and _right(row) is not None,
        _multiple_choice,
    ),
    Format(
        "question_rationale_answer",
        lambda row: (
            is_text(row, "question")
            and bool(first_text(row, RATIONALES) and first_text(row, ANSWERS))
        ),
        _question_rationale,
    ),
    Format(
        "question_answer",
        lambda row: is_text(row, "question") and bool(first_text(row, ANSWERS)),
        lambda row: f"{_question(row)}\nAnswer: {first_text(row, ANSWERS)}",
    ),
    Format(
        "prompt_completion",
        lambda row: is_text(row, "prompt") and bool(first_text(row, COMPLETIONS)),
        _prompt_completion,
    ),
    Format(
        "instruction_input_output",
        lambda row: is_text(row, "instruction") and bool(_instances(row)),
        _instruction,
    ),
    Format(
        "equation",
        lambda row: is_text(row, "original_text", "equation") and bool(first_text(row, ANSWERS)),
        _equation,
    ),
    Format("conversation", lambda row: bool(_turns(row)), _conversation),
)

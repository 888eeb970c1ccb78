"""Instruction and question data in its usual shapes, as plain text.

A row is recognised by its keys and their types, first match in `FORMATS` wins:

>>> render({"question": "Which one hops?", "choices": ["a cod", "a hare"], "answer": 1})
('multiple_choice', 'Question: Which one hops?\\nA. a cod\\nB. a hare\\nAnswer: B. a hare')
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any, NamedTuple

Row = dict[str, Any]

COMPLETIONS = ("completion", "response", "output", "answer")
ANSWERS = ("answer", "gold_ans", "ans", "pred_ans")
RATIONALES = ("rationale", "solution", "explanation")
CONTEXTS = ("context", "passage")
PEOPLE = {"human": "User", "gpt": "Assistant"}  # other roles are shown by their own names


class Format(NamedTuple):
    name: str
    fits: Callable[[Row], bool]
    render: Callable[[Row], str]


def render(row: Row) -> tuple[str, str] | None:
    """(name of the format, text), or None where no format fits."""
    for format in FORMATS:
        if format.fits(row):
            return format.name, format.render(row)
    return None


def _first(row: Row, keys: tuple[str, ...]) -> str:
    """The first of `keys` that holds text or a number, as text; "" where none does."""
    for key in keys:
        value = row.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:.15g}"
    return ""


def _is_text(row: Row, *keys: str) -> bool:
    return all(isinstance(row.get(key), str) and row[key].strip() for key in keys)


def _question(row: Row) -> str:
    """The question after its context; "Q:" and "A:" around it are its label, not its words."""
    question = re.sub(r"^Q:\s*|\s*A:\s*$", "", row["question"]).strip()
    context = _first(row, CONTEXTS)
    return f"{context}\n\nQuestion: {question}" if context else f"Question: {question}"


def _prompt_completion(row: Row) -> str:
    prompt = row["prompt"]
    return prompt + ("" if prompt[-1].isspace() else "\n") + _first(row, COMPLETIONS)


def _instances(row: Row) -> list[Row]:
    """The (input, output) pairs of an instruction: in a list, or in the row itself."""
    instances = row.get("instances", [row])
    if isinstance(instances, list) and all(isinstance(item, dict) for item in instances):
        return [item for item in instances if _first(item, COMPLETIONS)]
    return []


def _instruction(row: Row) -> str:
    parts = [f"Instruction: {row['instruction'].strip()}"]
    for instance in _instances(row):
        if given := _first(instance, ("input", *CONTEXTS)):
            parts.append(f"Input: {given}")
        parts.append(f"Response: {_first(instance, COMPLETIONS)}")
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
    rationale = _first(row, RATIONALES).rstrip(".")
    return f"{_question(row)}\nAnswer: {rationale}. The answer is {_first(row, ANSWERS)}."


def _equation(row: Row) -> str:
    equation = row["equation"].removeprefix("X=").strip()
    answer = _first(row, ANSWERS)
    return (
        f"Question: {row['original_text']}\nAnswer: {equation} = {answer}. The answer is {answer}."
    )


def _turns(row: Row) -> list[tuple[str, str]]:
    """(who, what) of a conversation in any of its usual keys, [] where one turn has no text."""
    turns = next((row[key] for key in ("messages", "conversations", "turns") if key in row), None)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return []
    pairs = [
        (_first(turn, ("role", "from", "speaker")), _first(turn, ("content", "value", "utterance")))
        for turn in turns
    ]
    return pairs if all(who and what for who, what in pairs) else []


def _conversation(row: Row) -> str:
    return "\n".join(
        f"{PEOPLE.get(who.lower(), who.capitalize())}: {what}" for who, what in _turns(row)
    )


FORMATS = (
    Format(
        "multiple_choice",
        lambda row: _is_text(row, "question") and _right(row) is not None,
        _multiple_choice,
    ),
    Format(
        "question_rationale_answer",
        lambda row: (
            _is_text(row, "question") and bool(_first(row, RATIONALES) and _first(row, ANSWERS))
        ),
        _question_rationale,
    ),
    Format(
        "question_answer",
        lambda row: _is_text(row, "question") and bool(_first(row, ANSWERS)),
        lambda row: f"{_question(row)}\nAnswer: {_first(row, ANSWERS)}",
    ),
    Format(
        "prompt_completion",
        lambda row: _is_text(row, "prompt") and bool(_first(row, COMPLETIONS)),
        _prompt_completion,
    ),
    Format(
        "instruction_input_output",
        lambda row: _is_text(row, "instruction") and bool(_instances(row)),
        _instruction,
    ),
    Format(
        "equation",
        lambda row: _is_text(row, "original_text", "equation") and bool(_first(row, ANSWERS)),
        _equation,
    ),
    Format("conversation", lambda row: bool(_turns(row)), _conversation),
)

"""Conversion of instruction and question data in common formats to plain text.

The format of a row is recognized by its keys and their types. The first match in `FORMATS` is used:

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

from data_pipeline.reading.instructions import labeled, tool_calls
from data_pipeline.reading.instructions.row_fields import Row, first_text, is_text

COMPLETIONS = ("completion", "response", "output", "answer")
ANSWERS = ("answer", "gold_ans", "ans", "pred_ans")
RATIONALES = ("rationale", "solution", "explanation")
SYSTEM = ("system", "system_prompt")
CONTEXTS = ("context", "passage")
QUESTIONS = ("question", "prompt", "instruction", "query", "messages", "conversations", "code")
TEMPLATES = ("yaml", "jinja", "template")
DESCRIPTIONS = ({"service_name", "intents"}, {"API", "Link"})
ROLES = {"human": "User", "gpt": "Assistant"}  # other roles keep their own names


class RenderedRow(NamedTuple):
    """A row as text, and the name of its format."""

    format: str
    text: str


class UnusableRow(NamedTuple):
    """A row that is no training text; `reason` is a stable snake_case identifier."""

    reason: str
    detail: str


class Format(NamedTuple):
    """A format: its name, a test of a row and a function that renders a row as text."""

    name: str
    matches: Callable[[Row], bool]
    render: Callable[[Row], str]


def render(row: Row, label_fields: tuple[str, ...] = ()) -> RenderedRow | UnusableRow:
    """Renders a row as text by the first format that matches.

    A row with a `text` and one of `label_fields` is a classification. Reasons for unusable rows:

        no_answer       a request without an answer (usually a test set without its answers)
        template        a prompt template without the data for its placeholders
        description     a schema or a list of services, without a request and an answer
        unknown_format  anything else
    """
    if field := labeled.label_field(row, label_fields):
        return RenderedRow("labeled_text", labeled.labeled_text(row, field))
    for format in FORMATS:
        if format.matches(row):
            return RenderedRow(format.name, format.render(row))
    return _unusable(row)


def _unusable(row: Row) -> UnusableRow:
    """Returns the reason for which no format matches a row."""
    fields = ", ".join(row)
    if any(isinstance(row.get(key), str) and "jinja:" in row[key] for key in TEMPLATES):
        return UnusableRow("template", f"templates to be filled with other data, in {fields}")
    if any(row.get(key) for key in QUESTIONS):
        return UnusableRow("no_answer", f"a request, and no answer that can be read, in {fields}")
    if any(keys <= row.keys() for keys in DESCRIPTIONS):
        return UnusableRow("description", f"describes services, and no use of one, by {fields}")
    return UnusableRow("unknown_format", f"no known format has the fields {fields}")


def _question(row: Row) -> str:
    """Renders a question after its context, without the labels "Q:" and "A:" around it."""
    question = re.sub(r"^Q:\s*|\s*A:\s*$", "", row["question"]).strip()
    context = first_text(row, CONTEXTS)
    return f"{context}\n\nQuestion: {question}" if context else f"Question: {question}"


# The template of Stanford Alpaca's prompts. It begins with the same sentence for each instruction,
# which is removed.
_ALPACA_TEMPLATE = re.compile(
    r".*?###\s*Instruction:\s*(?P<instruction>.+?)\s*"
    r"(?:###\s*Input:\s*(?P<input>.*?)\s*)?###\s*Response:\s*",
    re.DOTALL,
)


def _prompt_completion(row: Row) -> str:
    """Renders a prompt and its completion."""
    if match := _ALPACA_TEMPLATE.fullmatch(row["prompt"]):
        return _instruction({**match.groupdict(), "output": first_text(row, COMPLETIONS)})
    prompt = row["prompt"]
    return prompt + ("" if prompt[-1].isspace() else "\n") + first_text(row, COMPLETIONS)


def _instances(row: Row) -> list[Row]:
    """Returns the rows with input and output of an instruction: those of a list, or the row."""
    instances = row.get("instances", [row])
    if isinstance(instances, list) and all(isinstance(item, dict) for item in instances):
        return [item for item in instances if first_text(item, COMPLETIONS)]
    return []


def _instruction(row: Row) -> str:
    """Renders an instruction with its inputs and responses."""
    system = first_text(row, SYSTEM)
    parts = [f"System: {system}"] if system else []
    parts.append(f"Instruction: {row['instruction'].strip()}")
    for instance in _instances(row):
        if input_text := first_text(instance, ("input", *CONTEXTS)):
            parts.append(f"Input: {input_text}")
        parts.append(f"Response: {first_text(instance, COMPLETIONS)}")
    return "\n\n".join(parts)


def _choices(row: Row) -> list[str]:
    """Returns the choices of `choices` (a list, or {"text": [...]}) or of keys such as ans0."""
    choices = row.get("choices")
    if isinstance(choices, dict):
        choices = choices.get("text")
    if choices is None:
        numbered = [(re.fullmatch(r"(ans|answer|ending|option|sol)(\d)", key), key) for key in row]
        choices = [row[key] for _, key in sorted((m[0], key) for m, key in numbered if m)]
    if isinstance(choices, list) and all(isinstance(c, str) and c.strip() for c in choices):
        return [choice.strip() for choice in choices]
    return []


def _answer_index(row: Row) -> int | None:
    """Returns the index of the right choice, given as its text, label or index; None if invalid."""
    choices = _choices(row)
    if len(choices) < 2:
        return None
    answer = row.get("answer", row.get("answerKey", row.get("label")))
    if isinstance(answer, str):
        labels = row["choices"].get("label") if isinstance(row.get("choices"), dict) else None
        for names in (choices, labels or list(string.ascii_uppercase[: len(choices)])):
            if answer.strip() in names:
                return names.index(answer.strip())
        answer = int(answer) if answer.isdecimal() else None
    is_index = (
        isinstance(answer, int) and not isinstance(answer, bool) and answer in range(len(choices))
    )
    return answer if is_index else None


def _multiple_choice(row: Row) -> str:
    """Renders a question, its choices with letters, and the right choice."""
    lines = [f"{string.ascii_uppercase[i]}. {choice}" for i, choice in enumerate(_choices(row))]
    return "\n".join([_question(row), *lines, f"Answer: {lines[_answer_index(row) or 0]}"])


def _question_rationale(row: Row) -> str:
    """Renders a question, its rationale and its answer."""
    rationale = first_text(row, RATIONALES).rstrip(".")
    return f"{_question(row)}\nAnswer: {rationale}. The answer is {first_text(row, ANSWERS)}."


def _equation(row: Row) -> str:
    """Renders a word problem, its equation and its answer."""
    equation = row["equation"].removeprefix("X=").strip()
    answer = first_text(row, ANSWERS)
    return (
        f"Question: {row['original_text']}\nAnswer: {equation} = {answer}. The answer is {answer}."
    )


def _turns(row: Row) -> list[tuple[str, str]]:
    """Returns (role, text) of each turn of a conversation; [] if a turn has no role or text."""
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
    return pairs if all(role and text for role, text in pairs) else []


def _conversation(row: Row) -> str:
    """Renders a conversation with one line per turn."""
    turns = _turns(row)
    system = first_text(row, SYSTEM)
    if system and all(role.lower() != "system" for role, _ in turns):
        turns = [("system", system), *turns]
    lines = [f"{ROLES.get(role.lower(), role.capitalize())}: {text}" for role, text in turns]
    return "\n".join(lines)


def _format_of(function: Callable[[Row], str], name: str) -> Format:
    """Returns a format from a function that returns "" for rows that do not match."""
    return Format(name, lambda row: bool(function(row)), function)


FORMATS = (
    _format_of(tool_calls.function_call, "function_call"),
    _format_of(tool_calls.named_call, "named_call"),
    _format_of(tool_calls.api_session, "api_session"),
    _format_of(tool_calls.api_choice, "api_choice"),
    Format("slots", labeled.has_slots, labeled.slots),
    Format(
        "multiple_choice",
        lambda row: is_text(row, "question") and _answer_index(row) is not None,
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

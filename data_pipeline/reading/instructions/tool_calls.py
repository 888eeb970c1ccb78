"""Tool calling as text: the functions there are, what was asked, and the calls that answer it.

Functions:
- weather(city: string, unit: string, optional): The weather of a city.

User: Is it cold in Oslo?
Call: weather(city="Oslo")
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from data_pipeline.reading.instructions.row_fields import Row, dictionaries, first_text, is_text

FUNCTIONS = ("function", "functions", "tools")
ASKED = ("query", "question", "instruction")
CALLS = ("ground_truth", "answers", "tool_calls")
NO_CALL = "none of the functions"
AROUND = " \n'\","  # what stands around a text that was cut out of another
UNSAID = "irrelevance"  # in the category of rows whose right answer is to call nothing


def function_call(row: Row) -> str:
    """Functions, request and calls of a row, "" where one of them is not there.

    Functions and calls are lists, or JSON texts of them. A call is {"name", "arguments"}, or
    {name: {argument: [values that are right]}} with "" for one that may be left out.

    >>> print(function_call({"query": "Is it cold in Oslo?",
    ...     "tools": '[{"name": "weather", "description": "Of a city.", "parameters": '
    ...              '{"properties": {"city": {"type": "string"}}, "required": ["city"]}}]',
    ...     "answers": [{"name": "weather", "arguments": {"city": "Oslo"}}]}))
    Functions:
    - weather(city: string): Of a city.
    <BLANKLINE>
    User: Is it cold in Oslo?
    Call: weather(city="Oslo")
    """
    functions = next((f for key in FUNCTIONS if (f := _list(row.get(key)))), [])
    signatures = [_signature(function) for function in functions]
    asked = next((a for key in ASKED if (a := _request(row.get(key)))), "")
    called = _calls(row)
    if not (signatures and all(signatures) and asked and called):
        return ""
    listed = "\n".join(f"- {signature}" for signature in signatures)
    return f"Functions:\n{listed}\n\n{asked}\n" + "\n".join(f"Call: {call}" for call in called)


def named_call(row: Row) -> str:
    """One request and the function that answers it, its arguments by position; "" where they lack.

    >>> print(named_call({"query": "Photo, please", "ground_truth_function": "take_a_photo",
    ...                   "ground_truth_params": "['back']"}))
    User: Photo, please
    Call: take_a_photo("back")
    """
    if not is_text(row, "query", "ground_truth_function"):
        return ""
    arguments = row.get("ground_truth_params") or []
    if isinstance(arguments, str):
        try:
            arguments = ast.literal_eval(arguments)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ""
    if not isinstance(arguments, list | tuple):
        return ""
    shown = ", ".join(_json(argument) for argument in arguments)
    return f"User: {row['query'].strip()}\nCall: {row['ground_truth_function'].strip()}({shown})"


def api_session(row: Row) -> str:
    """The functions of one API, and several requests each with its calls; "" where they lack.

    Arguments that are "" were not given; a request without calls is left out.
    """
    requests, answers = row.get("Instructions"), row.get("Golden_Answers")
    if not (is_text(row, "Functions") and isinstance(requests, list) and isinstance(answers, list)):
        return ""
    parts = []
    for request, calls in zip(requests, answers, strict=False):
        shown = [_action(call) for call in dictionaries(calls)]
        if isinstance(request, str) and request.strip() and shown and all(shown):
            parts.append("\n".join([f"User: {request.strip()}", *(f"Call: {c}" for c in shown)]))
    if not parts or len(requests) != len(answers):
        return ""
    return "\n\n".join([f"Functions:\n{row['Functions'].strip()}", *parts])


def api_choice(row: Row) -> str:
    """A request and the library call that serves it, told apart in a text; "" where they lack.

    >>> print(api_choice({"code": "###Instruction: Name the dog.\\n###Output: <<<explanation>>>: "
    ...                   "It classifies.<<<code>>>: m = load('x')", "api_call": "load('x')"}))
    Instruction: Name the dog.
    <BLANKLINE>
    Response: It classifies.
    <BLANKLINE>
    m = load('x')
    """
    if not is_text(row, "code", "api_call"):
        return ""
    asked = _INSTRUCTION.search(row["code"])
    question = asked[1].strip(AROUND) if asked else ""
    if not question:
        return ""
    parts = {key: value.strip(" \n,") for key, value in _PART.findall(row["code"])}
    answer = [parts.get("explanation", ""), parts.get("code", "") or row["api_call"].strip()]
    response = "\n\n".join(part for part in answer if part)
    return f"Instruction: {question}\n\nResponse: {response}"


_INSTRUCTION = re.compile(
    r"Instruction['\"]?\s*[:.]\s*(.*?)(?:\n?###\s*Output|,?\s*['\"]Output['\"]|\n<<<|\Z)", re.DOTALL
)
_PART = re.compile(r"<<<(\w+)>>>:?(.*?)(?=<<<\w+>>>|\Z)", re.DOTALL)


def _list(value: Any) -> list[Row]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return dictionaries([value] if isinstance(value, dict) else value)


def _request(value: Any) -> str:
    """A text, or messages, or a list of conversations of which the first is taken."""
    if isinstance(value, str):
        return f"User: {value.strip()}" if value.strip() else ""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    turns = dictionaries(value)
    if not turns or not all(is_text(turn, "role", "content") for turn in turns):
        return ""
    return "\n".join(f"{turn['role'].capitalize()}: {turn['content'].strip()}" for turn in turns)


def _signature(function: Row) -> str:
    """name(argument: type, ...): description; "" where there is no name."""
    inner = function.get("function")
    function = inner if isinstance(inner, dict) else function
    if not is_text(function, "name"):
        return ""
    schema = function.get("parameters")
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties", schema)  # some have the arguments without a schema
    required = schema.get("required")
    shown = ", ".join(_arguments(properties, required)) if isinstance(properties, dict) else ""
    description = first_text(function, ("description",))
    return f"{function['name'].strip()}({shown})" + (f": {description}" if description else "")


def _arguments(properties: Row, required: Any) -> Iterator[str]:
    for name, property in properties.items():
        kind = first_text(property, ("type",)) if isinstance(property, dict) else ""
        optional = isinstance(required, list) and name not in required
        yield name + (f": {kind}" if kind else "") + (", optional" if optional else "")


def _calls(row: Row) -> list[str]:
    category = row.get("category")
    unanswered = all(row.get(key) is None for key in CALLS)
    if unanswered and isinstance(category, str) and UNSAID in category:
        return [NO_CALL]
    calls = next((c for key in CALLS if (c := _list(row.get(key)))), [])
    shown = [_call(call) for call in calls]
    return shown if all(shown) else []


def _call(call: Row) -> str:
    inner = call.get("function")
    call = inner if isinstance(inner, dict) else call
    if is_text(call, "name"):
        arguments = _given(call.get("arguments", {}))
        return "" if arguments is None else _shown(call["name"], arguments)
    if len(call) == 1:
        ((name, accepted),) = call.items()
        if isinstance(accepted, dict):
            return _shown(name, _chosen(accepted))
    return ""


def _given(arguments: Any) -> Row | None:
    """Arguments by name, or a JSON text of them; None for anything else."""
    if isinstance(arguments, str):
        found = _list(arguments or "{}")
        return found[0] if len(found) == 1 else None
    return arguments if isinstance(arguments, dict) else None


def _chosen(accepted: Row) -> Row:
    """The first right value of each argument, without those that may be left out."""
    chosen = {}
    for name, values in accepted.items():
        value = values[0] if isinstance(values, list) and values else values
        if value != "":
            chosen[name] = _chosen(value) if isinstance(value, dict) else value
    return chosen


def _action(call: Row) -> str:
    if not is_text(call, "Action"):
        return ""
    arguments = _given(call.get("Action_Input", {}))
    if arguments is None:
        return ""
    return _shown(call["Action"], {key: v for key, v in arguments.items() if v != ""})


def _shown(name: str, arguments: Row) -> str:
    return f"{name.strip()}({', '.join(f'{key}={_json(v)}' for key, v in arguments.items())})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)

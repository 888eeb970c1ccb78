"""Conversion of tool-calling data to text: the available functions, the request and its calls.

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
REQUESTS = ("query", "question", "instruction")
CALLS = ("ground_truth", "answers", "tool_calls")
NO_CALL = "none of the functions"
SURROUNDINGS = " \n'\","  # characters around a text that is part of another
IRRELEVANCE = "irrelevance"  # in the category of rows whose right answer is to call nothing


def function_call(row: Row) -> str:
    """Renders functions, request and calls of a row; returns "" if one of them is missing.

    Functions and calls are lists, or JSON texts of lists. A call is {"name", "arguments"}, or
    {name: {argument: [right values]}} with "" among the values of an optional argument.

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
    request = next((r for key in REQUESTS if (r := _request(row.get(key)))), "")
    calls = _calls(row)
    if not (signatures and all(signatures) and request and calls):
        return ""
    function_list = "\n".join(f"- {signature}" for signature in signatures)
    call_list = "\n".join(f"Call: {call}" for call in calls)
    return f"Functions:\n{function_list}\n\n{request}\n{call_list}"


def named_call(row: Row) -> str:
    """Renders a request and a call with positional arguments; returns "" if one is missing.

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
    rendered = ", ".join(_json(argument) for argument in arguments)
    return f"User: {row['query'].strip()}\nCall: {row['ground_truth_function'].strip()}({rendered})"


def api_session(row: Row) -> str:
    """Renders the functions of an API and several requests with their calls; "" if any is missing.

    An argument "" was not passed. A request without calls is left out.
    """
    requests, answers = row.get("Instructions"), row.get("Golden_Answers")
    if not (is_text(row, "Functions") and isinstance(requests, list) and isinstance(answers, list)):
        return ""
    parts = []
    for request, calls in zip(requests, answers, strict=False):
        actions = [_action(call) for call in dictionaries(calls)]
        if isinstance(request, str) and request.strip() and actions and all(actions):
            parts.append("\n".join([f"User: {request.strip()}", *(f"Call: {a}" for a in actions)]))
    if not parts or len(requests) != len(answers):
        return ""
    return "\n\n".join([f"Functions:\n{row['Functions'].strip()}", *parts])


def api_choice(row: Row) -> str:
    r"""Renders a request and a library call that are marked in one text; "" if one is missing.

    >>> print(api_choice({"code": "###Instruction: Name the dog.\n###Output: <<<explanation>>>: "
    ...                   "It classifies.<<<code>>>: m = load('x')", "api_call": "load('x')"}))
    Instruction: Name the dog.
    <BLANKLINE>
    Response: It classifies.
    <BLANKLINE>
    m = load('x')
    """
    if not is_text(row, "code", "api_call"):
        return ""
    match = _INSTRUCTION.search(row["code"])
    question = match[1].strip(SURROUNDINGS) if match else ""
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
    """Returns a list of dictionaries from such a list, one dictionary, or a JSON text of either."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return dictionaries([value] if isinstance(value, dict) else value)


def _request(value: Any) -> str:
    """Renders a request: a text, a list of messages, or the first of a list of conversations."""
    if isinstance(value, str):
        return f"User: {value.strip()}" if value.strip() else ""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    turns = dictionaries(value)
    if not turns or not all(is_text(turn, "role", "content") for turn in turns):
        return ""
    return "\n".join(f"{turn['role'].capitalize()}: {turn['content'].strip()}" for turn in turns)


def _signature(function: Row) -> str:
    """Returns "name(argument: type, ...): description", or "" for a function without a name."""
    inner = function.get("function")
    function = inner if isinstance(inner, dict) else function
    if not is_text(function, "name"):
        return ""
    schema = function.get("parameters")
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties", schema)  # some functions have arguments without a schema
    required = schema.get("required")
    arguments = ", ".join(_arguments(properties, required)) if isinstance(properties, dict) else ""
    description = first_text(function, ("description",))
    return f"{function['name'].strip()}({arguments})" + (f": {description}" if description else "")


def _arguments(properties: Row, required: Any) -> Iterator[str]:
    """Yields "name: type" for each argument, with ", optional" if it is not required."""
    for name, property in properties.items():
        kind = first_text(property, ("type",)) if isinstance(property, dict) else ""
        optional = isinstance(required, list) and name not in required
        yield name + (f": {kind}" if kind else "") + (", optional" if optional else "")


def _calls(row: Row) -> list[str]:
    """Renders the calls of a row; [] if there are none or one of them cannot be rendered."""
    category = row.get("category")
    has_no_calls = all(row.get(key) is None for key in CALLS)
    if has_no_calls and isinstance(category, str) and IRRELEVANCE in category:
        return [NO_CALL]
    calls = next((c for key in CALLS if (c := _list(row.get(key)))), [])
    rendered = [_call(call) for call in calls]
    return rendered if all(rendered) else []


def _call(call: Row) -> str:
    """Renders a call of either form (see `function_call`); "" if it has neither."""
    inner = call.get("function")
    call = inner if isinstance(inner, dict) else call
    if is_text(call, "name"):
        arguments = _arguments_by_name(call.get("arguments", {}))
        return "" if arguments is None else _render_call(call["name"], arguments)
    if len(call) == 1:
        ((name, accepted),) = call.items()
        if isinstance(accepted, dict):
            return _render_call(name, _first_accepted(accepted))
    return ""


def _arguments_by_name(arguments: Any) -> Row | None:
    """Returns arguments from a dictionary or a JSON text of one; None for anything else."""
    if isinstance(arguments, str):
        parsed = _list(arguments or "{}")
        return parsed[0] if len(parsed) == 1 else None
    return arguments if isinstance(arguments, dict) else None


def _first_accepted(accepted: Row) -> Row:
    """Returns the first accepted value of each argument, without arguments that may be omitted."""
    arguments = {}
    for name, values in accepted.items():
        value = values[0] if isinstance(values, list) and values else values
        if value != "":
            arguments[name] = _first_accepted(value) if isinstance(value, dict) else value
    return arguments


def _action(call: Row) -> str:
    """Renders a call of the form {"Action", "Action_Input"}; "" if it is invalid."""
    if not is_text(call, "Action"):
        return ""
    arguments = _arguments_by_name(call.get("Action_Input", {}))
    if arguments is None:
        return ""
    return _render_call(call["Action"], {key: v for key, v in arguments.items() if v != ""})


def _render_call(name: str, arguments: Row) -> str:
    """Returns "name(argument=value, ...)" with the values as JSON."""
    return f"{name.strip()}({', '.join(f'{key}={_json(v)}' for key, v in arguments.items())})"


def _json(value: Any) -> str:
    """Returns a value as JSON, without escapes of letters."""
    return json.dumps(value, ensure_ascii=False, default=str)

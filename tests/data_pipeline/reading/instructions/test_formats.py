"""Each usual shape of a row is recognized, and written so that question and answer stay apart."""

import doctest
import json

import pytest

from benchmarks import formats as survey
from data_pipeline.config import Reading, Source, Tier
from data_pipeline.reading import sources
from data_pipeline.reading.input_shards import list_shards
from data_pipeline.reading.instructions import formats, labeled, row_fields, tool_calls
from data_pipeline.reading.instructions.formats import FORMATS, RenderedRow, UnusableRow, render
from data_pipeline.storage.document import BadInput, Document
from tests.builders import write_jsonl

TRIVIA = "Question: Which one hops?\nA. a cod\nB. a hare\nAnswer: B. a hare"
CHOICES = ["a cod", "a hare"]

WEATHER = {
    "name": "weather",
    "description": "Of a city.",
    "parameters": {
        "type": "dict",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
        "required": ["city"],
    },
}
CALLED = """Functions:
- weather(city: string, unit: string, optional): Of a city.

User: Cold in Oslo?
Call: weather(city="Oslo")"""

ROWS = [
    (
        "function_call",
        {
            "question": [[{"role": "user", "content": "Cold in Oslo?"}]],
            "function": [WEATHER],
            "ground_truth": [{"weather": {"city": ["Oslo", "Oslo, Norway"], "unit": ["", "C"]}}],
        },
        CALLED,
    ),
    (
        "function_call",
        {
            "query": "Cold in Oslo?",
            "tools": json.dumps([{"type": "function", "function": WEATHER}]),
            "answers": json.dumps([{"name": "weather", "arguments": {"city": "Oslo"}}]),
        },
        CALLED,
    ),
    (
        "function_call",
        {
            "question": [[{"role": "user", "content": "Cold in Oslo?"}]],
            "function": [WEATHER],
            "ground_truth": [
                {"weather": {"city": ["Oslo"]}},
                {"weather": {"city": [["a", "b"]], "unit": [{"in": ["C", "F"], "of": [""]}]}},
            ],
        },
        CALLED + '\nCall: weather(city=["a", "b"], unit={"in": "C"})',
    ),
    (
        "function_call",
        {
            "category": "live_irrelevance",
            "question": [[{"role": "user", "content": "What is 2 + 3?"}]],
            "function": [{"name": "weather", "parameters": {}}],
            "ground_truth": None,
        },
        "Functions:\n- weather()\n\nUser: What is 2 + 3?\nCall: none of the functions",
    ),
    (
        "named_call",
        {"query": "Door!", "ground_truth_function": "door", "ground_truth_params": "['open', 2]"},
        'User: Door!\nCall: door("open", 2)',
    ),
    (
        "api_session",
        {
            "Functions": "1. Name: fact",
            "Instructions": ["One fact?", "Nothing?", "Two?"],
            "Golden_Answers": [
                [{"Action": "fact", "Action_Input": '{"limit": 1, "kind": ""}'}],
                [],
                [{"Action": "fact", "Action_Input": "{}"}] * 2,
            ],
        },
        "Functions:\n1. Name: fact\n\nUser: One fact?\nCall: fact(limit=1)\n\n"
        "User: Two?\nCall: fact()\nCall: fact()",
    ),
    (
        "api_choice",
        {
            "code": "###Instruction: Name it.\n###Output: <<<domain>>>: D "
            "<<<explanation>>>: It can.<<<code>>>: m = load()",
            "api_call": "load()",
        },
        "Instruction: Name it.\n\nResponse: It can.\n\nm = load()",
    ),
    (
        "api_choice",
        {
            "code": "{'Instruction': Name it., 'Output': {'api_call': \"x\"}}",
            "api_call": "load()",
        },
        "Instruction: Name it.\n\nResponse: load()",
    ),
    (
        "slots",
        {
            "userInput": {"text": "6 p.m. for 2"},
            "context": {"requestedSlots": ["time"]},
            "labels": [
                {"slot": "time", "valueSpan": {"endIndex": 6}},
                {"slot": "people", "valueSpan": {"startIndex": 11, "endIndex": 12}},
            ],
        },
        "Asked for: time\nMessage: 6 p.m. for 2\nDetails: time = 6 p.m.; people = 2",
    ),
    ("slots", {"userInput": {"text": "Hello"}}, "Message: Hello\nDetails: none"),
    (
        "instruction_input_output",
        {"system": "Be brief.", "instruction": "Greet.", "output": "Hello."},
        "System: Be brief.\n\nInstruction: Greet.\n\nResponse: Hello.",
    ),
    (
        "conversation",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}],
        },
        "System: Be brief.\nUser: Hi\nAssistant: Yes?",
    ),
    (
        "multiple_choice",
        {"question": "Which one hops?", "choices": CHOICES, "answer": "a hare"},
        TRIVIA,
    ),
    ("multiple_choice", {"question": "Which one hops?", "choices": CHOICES, "answer": 1}, TRIVIA),
    ("multiple_choice", {"question": "Which one hops?", "choices": CHOICES, "answer": "B"}, TRIVIA),
    ("multiple_choice", {"question": "Which one hops?", "choices": CHOICES, "label": "1"}, TRIVIA),
    (
        "multiple_choice",
        {
            "question": "Which one hops?",
            "choices": {"text": CHOICES, "label": ["1", "2"]},
            "answerKey": "2",
        },
        TRIVIA,
    ),
    (
        "multiple_choice",
        {"context": "Fish swim.", "question": "Q?", "ans1": "b", "ans0": "a", "label": 0},
        "Fish swim.\n\nQuestion: Q?\nA. a\nB. b\nAnswer: A. a",
    ),
    (
        "question_rationale_answer",
        {"question": "Q: What is 2 + 3?\nA:", "rationale": "Two and three are five.", "answer": 5},
        "Question: What is 2 + 3?\nAnswer: Two and three are five. The answer is 5.",
    ),
    (
        "question_answer",
        {"question": "Why?", "answer": "Because."},
        "Question: Why?\nAnswer: Because.",
    ),
    ("prompt_completion", {"prompt": "Say hello.", "completion": " Hello!"}, "Say hello.\nHello!"),
    ("prompt_completion", {"prompt": "### Q\n", "response": "R"}, "### Q\nR"),
    (
        "prompt_completion",
        {"prompt": "Below.\n\n### Instruction:\nAdd.\n\n### Response:\n", "response": "3"},
        "Instruction: Add.\n\nResponse: 3",
    ),
    (
        "prompt_completion",
        {
            "prompt": "Below.\n\n### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:",
            "response": "3",
        },
        "Instruction: Add.\n\nInput: 1, 2\n\nResponse: 3",
    ),
    (
        "instruction_input_output",
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        "Instruction: Add.\n\nInput: 1 and 2\n\nResponse: 3",
    ),
    (
        "instruction_input_output",
        {"instruction": "Greet.", "input": "", "output": "Hello."},
        "Instruction: Greet.\n\nResponse: Hello.",
    ),
    (
        "instruction_input_output",
        {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"output": "7"}]},
        "Instruction: Add.\n\nInput: 1 2\n\nResponse: 3\n\nResponse: 7",
    ),
    (
        "equation",
        {"original_text": "1 hare meets 2.", "equation": "X=1+2", "ans": 3.0},
        "Question: 1 hare meets 2.\nAnswer: 1+2 = 3. The answer is 3.",
    ),
    (
        "conversation",
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]},
        "User: Hi\nAssistant: Yes?",
    ),
    (
        "conversation",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}]},
        "User: Hi\nAssistant: Yes?",
    ),
    (
        "conversation",
        {
            "turns": [
                {"speaker": "USER", "utterance": "Hi"},
                {"speaker": "SYSTEM", "utterance": "Yes?"},
            ]
        },
        "User: Hi\nSystem: Yes?",
    ),
]


@pytest.mark.parametrize(("name", "row", "text"), ROWS)
def test_usual_rows(name, row, text):
    assert render(row) == RenderedRow(name, text)
    assert render(row | {"id": 7, "unknown": None}) == RenderedRow(name, text)


def test_every_format_has_an_example():
    assert {name for name, _, _ in ROWS} == {format.name for format in FORMATS}


CALL = {"query": "Cold?", "tools": [WEATHER], "answers": [{"name": "weather", "arguments": {}}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "unknown_format"),
        ({"body": "a text under another name"}, "unknown_format"),
        ({"prompt": "no completion", "completion": None}, "no_answer"),
        ({"prompt": "", "completion": "no prompt"}, "unknown_format"),
        ({"prompt": 7, "completion": "a"}, "no_answer"),
        ({"instruction": "nothing answered", "instances": [{"input": "a"}]}, "no_answer"),
        ({"instruction": "odd", "instances": "none"}, "no_answer"),
        ({"question": "no answer", "choices": ["a", "b"]}, "no_answer"),
        ({"question": "outside", "choices": ["a", "b"], "label": 2}, "no_answer"),
        ({"question": "true is no index", "choices": ["a", "b"], "label": True}, "no_answer"),
        ({"question": [[{"role": "user"}]], "answer": "a"}, "no_answer"),
        ({"messages": [{"role": "user", "content": None}]}, "no_answer"),
        ({"messages": []}, "unknown_format"),
        ({"conversations": "text"}, "no_answer"),
        ({"turns": ["a", "b"]}, "unknown_format"),
        (CALL | {"answers": None}, "no_answer"),
        (CALL | {"answers": [{"name": "weather", "arguments": "no JSON"}]}, "no_answer"),
        (CALL | {"tools": []}, "no_answer"),
        (CALL | {"tools": "[{"}, "no_answer"),
        (CALL | {"category": "live_relevance", "answers": None}, "no_answer"),
        (
            {"query": "Do", "ground_truth_function": "f", "ground_truth_params": "open("},
            "no_answer",
        ),
        ({"Functions": "f", "Instructions": ["a"], "Golden_Answers": []}, "unknown_format"),
        ({"code": "print(1)", "api_call": "print"}, "no_answer"),
        (
            {"userInput": {"text": "9"}, "labels": [{"slot": "n", "valueSpan": {"endIndex": 2}}]},
            "unknown_format",
        ),
        ({"userInput": {"text": "9"}, "labels": "people"}, "unknown_format"),
        ({"dataset": "x", "yaml": "templates:\n  a: !Template\n    jinja: '{{b}}'"}, "template"),
        ({"service_name": "Banks", "slots": [], "intents": []}, "description"),
        ({"API": "Cats", "Description": "Facts", "Link": "x"}, "description"),
    ],
)
def test_unknown_rows_have_a_reason(row, reason):
    refused = render(row)
    assert isinstance(refused, UnusableRow)
    assert refused.reason == reason
    assert all(key in refused.detail for key in row)


def test_a_label_is_rendered_only_from_label_fields():
    row = {"text": "Where is it?", "category": "card_arrival", "intent": "oos"}
    assert render(row, ("intent",)).text == "Message: Where is it?\nIntent: out of scope"
    assert render(row, ("category",)).text == "Message: Where is it?\nCategory: card arrival"
    assert isinstance(render(row), UnusableRow)
    assert isinstance(render({"text": "Where is it?", "intent": 3}, ("intent",)), UnusableRow)


def test_a_source_renders_labels_and_reports_unusable_rows(tmp_path):
    rows = [
        {"text": "Where is it?", "intent": "card_arrival"},
        {"text": "Plain."},
        {"question": "Why?"},
        {"API": "Cats", "Link": "x"},
    ]
    file = tmp_path / "tasks.jsonl"
    write_jsonl(file, rows)
    source = Source("tasks", tier=Tier.D3, path=str(file))
    (shard,) = list_shards(source, Reading())
    got = list(sources.read(shard, source, Reading()))
    assert [row.text if isinstance(row, Document) else row.reason for row in got] == [
        "Message: Where is it?\nIntent: card arrival",
        "Plain.",
        "no_answer",
        "description",
    ]
    assert all(isinstance(row, Document | BadInput) for row in got)


def test_the_survey_accounts_for_every_row(tmp_path, capsys):
    rows = [{"text": "a"}, {"question": "Why?", "answer": "So."}, {"question": "Why?"}, {}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + "{\n")
    survey.main([str(tmp_path), "--show", "1"])
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()[1:] if "|" not in line]
    assert sorted(line[-3:] for line in lines) == [
        ["invalid_json", "0", "1"],
        ["is", "1", "0"],
        ["no_answer", "0", "1"],
        ["question_answer", "1", "0"],
        ["unknown_format", "0", "1"],
    ]
    assert "| Question: Why?" in printed


@pytest.mark.slow
def test_any_value_under_any_key_is_survived():
    """No row raises: what a file holds is not known beforehand."""
    keys = sorted({key for _, row, _ in ROWS for key in row})
    values = [None, True, 3, 2.5, "", "x", [], [None], ["a", "b"], {}, {"text": "a", "label": 1}]
    for key in keys:
        for other in keys:
            for value in values:
                for second in values:
                    row = {key: value, other: second}
                    found = render({"question": "Why?", "instruction": "Do.", "prompt": "P"} | row)
                    assert isinstance(found, RenderedRow | UnusableRow) and found[1].strip()


def test_examples_in_docstrings():
    for module in (formats, labeled, row_fields, tool_calls):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed

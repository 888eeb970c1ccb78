"""Each usual shape of a row is recognised, and written so that question and answer stay apart."""

import doctest

import pytest

from data_pipeline.curation import formats
from data_pipeline.curation.formats import FORMATS, render

TRIVIA = "Question: Which one hops?\nA. a cod\nB. a hare\nAnswer: B. a hare"
CHOICES = ["a cod", "a hare"]

ROWS = [
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
    assert render(row) == (name, text)
    assert render(row | {"id": 7, "unknown": None}) == (name, text)


def test_every_format_has_an_example():
    assert {name for name, _, _ in ROWS} == {format.name for format in FORMATS}


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"body": "a text under another name"},
        {"prompt": "no completion", "completion": None},
        {"prompt": "", "completion": "no prompt"},
        {"prompt": 7, "completion": "a"},
        {"instruction": "nothing answered", "instances": [{"input": "a"}]},
        {"instruction": "odd", "instances": "none"},
        {"question": "no answer", "choices": ["a", "b"]},
        {"question": "outside", "choices": ["a", "b"], "label": 2},
        {"question": "true is no index", "choices": ["a", "b"], "label": True},
        {"question": [[{"role": "user"}]], "answer": "a"},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": []},
        {"conversations": "text"},
        {"turns": ["a", "b"]},
    ],
)
def test_what_fits_nothing_is_not_guessed(row):
    assert render(row) is None


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
                    assert found is None or found[1].strip()


def test_examples_in_docstrings():
    assert doctest.testmod(formats).failed == 0

"""Requests, replies, checks and rendering of nlp_tasks/restructure, without a teacher."""

from __future__ import annotations

import json
import random
import re
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import NlpTasks, Restructuring
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.nlp_tasks import from_structure
from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.restructure import checks, replies, requests, schemas, tasks
from data_pipeline.nlp_tasks.restructure.prompts import EXAMPLES, SYSTEM, WORDINGS
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import seeded_random

KINDS = tuple(schemas.SCHEMAS)
ENCODE = MixtureTokenizer().encode
DECIDE = tasks.build(Restructuring(), lambda text: len(ENCODE(text)))
TIDES = """# Tides

The tide is the rise and fall of the sea, caused mostly by the pull of the Moon. At most coasts the
water rises twice a day. When Sun and Moon pull in one line, at new and at full Moon, the tides are
highest; sailors call them spring tides. In the Bay of Fundy the water rises by 16 metres.
"""
# Of each kind an object that passes, and others with the reason for which they do not.
GOOD: dict[str, dict[str, Any]] = {
    "question_answering": {
        "question": "When are the tides of the sea highest?",
        "answer": "At new and at full Moon, when Sun and Moon pull in one line.",
        "needs_passage": False,
    },
    "multiple_choice": {
        "question": "By how many metres does the water rise in the Bay of Fundy?",
        "options": ["16 metres", "2 metres", "40 metres", "7 metres"],
        "answer": "16 metres",
        "needs_passage": False,
    },
    "cloze": {"sentence": "At most coasts the water rises ____ a day.", "answer": "twice"},
    "summary": {"summary": "The Moon's pull, helped by the Sun, moves the sea up and down."},
    "true_false": {
        "statement": "Spring tides come at half Moon.",
        "verdict": False,
        "reason": "They come at new and at full Moon, when Sun and Moon pull in one line.",
        "needs_passage": False,
    },
    "paraphrase": {
        "sentence": "At most coasts the water rises twice a day.",
        "paraphrase": "On nearly every coast there are two risings of the water daily.",
    },
    "keywords": {"keywords": ["tide", "Moon", "spring tides", "Bay of Fundy"]},
    "title": {"title": "What Moves the Sea"},
}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("question_answering", {"question": "Tides of the sea"}, "no_question"),
    ("question_answering", {"question": "The tides?"}, "too_short"),
    ("question_answering", {"question": "Who wrote the Iliad and Odyssey?"}, "off_topic"),
    ("question_answering", {"answer": "Zebras graze on African grassland."}, "unsupported"),
    ("question_answering", {"answer": "The water rises by 23 metres."}, "unsupported_number"),
    ("question_answering", {"answer": "The tides are highest."}, "answer_in_question"),
    ("question_answering", {"answer": "the tide " * 70}, "too_long_answer"),
    ("question_answering", {"answer": "This is not mentioned."}, "refusal"),
    ("question_answering", {"answer": "As an AI I do not swim."}, "refusal"),
    ("question_answering", {"answer": "  "}, "empty_field"),
    ("question_answering", {"answer": "the\x00Moon"}, "control_character"),
    ("question_answering", {"answer": "潮汐由月球引起。"}, "unsupported"),
    (
        "multiple_choice",
        {"options": ["16 metres", "16  Metres.", "a", "b"]},
        "options_not_distinct",
    ),
    ("multiple_choice", {"answer": "17 metres"}, "answer_not_an_option"),
    ("multiple_choice", {"answer": "E"}, "answer_not_an_option"),
    (
        "multiple_choice",
        {"options": ["16 metres", "2 metres", "40 metres", "None of the above"]},
        "relative_option",
    ),
    ("multiple_choice", {"answer": "40 metres"}, "unsupported_number"),
    ("multiple_choice", {"question": "Name the metres of the water."}, "no_question"),
    (
        "multiple_choice",
        {
            "options": [
                "When Sun and Moon pull in one line, at new and at full Moon",
                "a",
                "b",
                "c",
            ],
            "answer": "When Sun and Moon pull in one line, at new and at full Moon",
        },
        "telling_length",
    ),
    ("cloze", {"sentence": "At most coasts the water rises twice a day."}, "gaps"),
    ("cloze", {"sentence": "At ____ coasts the water rises ____ a day."}, "gaps"),
    ("cloze", {"answer": "thrice"}, "not_in_passage"),
    ("cloze", {"sentence": "At many coasts the water rises ____ a day."}, "not_in_passage"),
    ("cloze", {"sentence": "rises ____", "answer": "twice"}, "too_short"),
    (
        "cloze",
        {"sentence": "At most coasts ____ water rises twice a day.", "answer": "the"},
        "trivial_answer",
    ),
    (
        "cloze",
        {"sentence": "The tide is the rise and fall of ____ sea", "answer": "the"},
        "answer_shown",
    ),
    (
        "cloze",
        {"sentence": "At most ____ day.", "answer": "coasts the water rises twice a"},
        "too_long_answer",
    ),
    ("summary", {"summary": " ".join(TIDES.split()[2:60])}, "too_long_answer"),
    ("summary", {"summary": "The sea moves."}, "too_short"),
    (
        "summary",
        {"summary": "The rise and fall of the sea, caused mostly by the pull of the Moon."},
        "copied",
    ),
    (
        "summary",
        {"summary": "Elephants live in herds and eat leaves and bark all day."},
        "unsupported",
    ),
    (
        "summary",
        {"summary": "The Moon pulls the water up by 99 metres each day."},
        "unsupported_number",
    ),
    ("true_false", {"statement": "Do spring tides come at half Moon?"}, "no_statement"),
    ("true_false", {"statement": "Zebras graze in Kenya every year."}, "off_topic"),
    ("true_false", {"statement": "At most coasts the water rises twice a day."}, "contradiction"),
    ("true_false", {"reason": "True, since the Moon is full."}, "contradiction"),
    ("true_false", {"reason": "It is wrong."}, "no_reason"),
    ("true_false", {"reason": "Spring tides come at half Moon."}, "no_reason"),
    ("true_false", {"reason": "Zebras never graze near any African lighthouse."}, "unsupported"),
    ("paraphrase", {"sentence": "At most coasts the water falls twice a day."}, "not_in_passage"),
    (
        "paraphrase",
        {"paraphrase": "At most coasts, the water rises twice a day!"},
        "hardly_changed",
    ),
    ("paraphrase", {"paraphrase": "Water."}, "length_differs"),
    ("paraphrase", {"paraphrase": "Elephants and zebras graze near trees."}, "too_different"),
    (
        "paraphrase",
        {"paraphrase": "On 9 of 10 coasts there are two risings of water daily."},
        "numbers_differ",
    ),
    ("paraphrase", {"sentence": "# Tides", "paraphrase": "About tides"}, "too_short"),
    ("keywords", {"keywords": ["tide", "Tide", "Moon"]}, "keywords_not_distinct"),
    ("keywords", {"keywords": ["tide", "Moon", "zebra"]}, "not_in_passage"),
    ("keywords", {"keywords": ["tide", "Moon", "ring t"]}, "not_in_passage"),
    ("keywords", {"keywords": ["tide", "Moon", "the"]}, "trivial_answer"),
    ("keywords", {"keywords": ["tide", "Moon", "the rise and fall of the sea"]}, "too_long_answer"),
    ("title", {"title": "Tides"}, "too_short"),
    ("title", {"title": "The Sea and the Moon " * 4}, "too_long_answer"),
    ("title", {"title": "Zebras in Winter"}, "off_topic"),
    ("title", {"title": "At most coasts the water rises twice"}, "copied"),
]
TIDES_TITLED = TIDES + "\nAt most coasts the water rises twice\n"

WRONG_SCHEMA = [
    ("question_answering", {"question": "What?", "answer": "Yes."}, ""),
    ("question_answering", GOOD["question_answering"] | {"comment": "none"}, ""),
    ("question_answering", GOOD["question_answering"] | {"needs_passage": "no"}, "/needs_passage"),
    ("multiple_choice", GOOD["multiple_choice"] | {"options": ["a", "b", "c"]}, "/options"),
    ("multiple_choice", GOOD["multiple_choice"] | {"options": [1, "b", "c", "d"]}, "/options/0"),
    ("true_false", GOOD["true_false"] | {"verdict": "false"}, "/verdict"),
    ("true_false", GOOD["true_false"] | {"verdict": 0}, "/verdict"),
    ("keywords", {"keywords": ["tide", "Moon"]}, "/keywords"),
    ("keywords", {"keywords": "tide, Moon, sea"}, "/keywords"),
    ("title", {"title": ""}, "/title"),
    ("title", {"title": ["Tides", "Moon"]}, "/title"),
]


def reply(kind: str, text: str, number: int = 0, **meta: Any) -> Document:
    told = {
        "task": kind,
        "from": "sea/1",
        "from_source": "sea",
        "category": "wiki",
        "passage": TIDES_TITLED if 'At most coasts the water rises twice"' in text else TIDES,
        "finish": "stop",
    }
    name = f"restructured/{kind}/sea/1@{number}"
    return Document(name, text, "restructured", "tasks", told | meta)


def decide(kind: str, text: str, number: int = 0, **meta: Any) -> Document | Dropped:
    return DECIDE(reply(kind, text, number, **meta))


def kept(kind: str, item: dict[str, Any], number: int = 0) -> Document:
    answer = decide(kind, json.dumps(item), number)
    assert isinstance(answer, Document), answer
    return answer


def reason(answer: Document | Dropped) -> str:
    assert isinstance(answer, Dropped), answer
    return answer.reason


# ---- requests


def document(name: str = "sea/1", category: str = "wiki") -> Document:
    return Document(name, TIDES * 6, "sea", category)


def asked(one: Document, topic: str = "", **changes: Any) -> list[Document]:
    config = Restructuring(**({"min_words": 20, "max_words": 90} | changes))
    return requests.build(config)(one, topic)


def test_request_contains_its_passage_topic_and_task() -> None:
    made = [one for k in range(30) for one in asked(document(f"sea/{k}"), "tides, moon, coast")]
    assert len({one.id for one in made}) == len(made) == 30 * 4
    assert {one.meta["task"] for one in made} == set(KINDS)
    for one in made:
        passage = one.meta["passage"]
        assert one.text.endswith(f"Passage:\n{passage}\n\nJSON:") and passage in TIDES * 6
        start = int(one.id.rpartition("@")[2])
        assert (TIDES * 6)[start:].startswith(passage)
        assert "belongs to the topic: tides, moon, coast" in one.text
        assert one.text.count("Passage:\n") == 3  # two examples
        for key in schemas.SCHEMAS[one.meta["task"]]["properties"]:
            assert f'"{key}"' in one.text
    assert "topic" not in asked(document())[0].text
    assert "JSON" in SYSTEM


def test_wordings_and_examples_are_random_but_repeatable() -> None:
    openings = {
        (one.meta["task"], one.text.split("\n")[0])
        for k in range(60)
        for one in asked(document(f"sea/{k}"))
    }
    assert len(openings) == sum(len(wording.instructions) for wording in WORDINGS.values()) == 24
    assert asked(document()) == asked(document())
    assert asked(document(), seed=1) != asked(document())


def test_kinds_and_counts_are_settings() -> None:
    only = asked(document(), kinds=("title",), per_document=3, per_passage=5)
    assert [one.meta["task"] for one in only] == ["title"] * 3
    assert asked(document(category="news")) == []
    assert asked(document(category="news"), categories={"news": "wiki"}) != []
    code = Document("c", "def run(hare):\n    return fast(hare)\n\n\n" * 30, "code", "code")
    assert "Ask about what it does" in asked(code)[0].text
    assert all(one.meta["passage"].startswith("def run") for one in asked(code, per_document=9))


@pytest.mark.parametrize("kind", KINDS)
def test_examples_of_prompts_pass_the_checks(kind: str) -> None:
    assert len(EXAMPLES[kind]) == 3
    for passage, item in EXAMPLES[kind]:
        assert schemas.violation(kind, item) is None
        assert (
            checks.first_failure(kind, tasks.normalize(kind, item), checks.SourcePassage(passage))
            is None
        )


# ---- replies


FRAMES = [
    "{}",
    "```json\n{}\n```",
    "Sure! Here it is:\n\n{}\n\nI hope this helps.",
    '<think>Maybe {{"title": "No"}}?</think>\n{}',
    "{}\n{}",
    "[{}]",
    "The JSON {{object}} is {}",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frame", FRAMES)
def test_json_is_found_inside_other_text(kind: str, frame: str) -> None:
    whole = json.dumps(GOOD[kind])
    plain = decide(kind, whole)
    assert isinstance(plain, Document)
    assert decide(kind, frame.format(*[whole] * frame.count("{}"))) == plain
    spread = json.dumps(GOOD[kind], indent=2).replace("\n}", ",\n}").replace("\n  ]", ",\n  ]")
    assert json.dumps(GOOD[kind], indent=2) != spread
    assert decide(kind, frame.format(*[spread] * frame.count("{}"))) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_reply_is_never_completed(kind: str) -> None:
    whole = json.dumps(GOOD[kind])
    for end in range(len(whole)):
        dropped = decide(kind, whole[:end])
        assert reason(dropped) == "invalid_json"
        assert isinstance(dropped, Dropped) and dropped.document.text == whole[:end]
    assert reason(decide(kind, whole[:-1], finish="length")) == "reply_cut"


@given(st.text(alphabet='{}[]",:\\ \n' + "abtrue1", max_size=60))
@settings(max_examples=300)
def test_any_text_is_parsed_without_error_or_guessing(text: str) -> None:
    for value in replies.objects(text):
        assert isinstance(value, dict)
        for key in value:
            assert json.dumps(key) in text or "\\" in text or "\n" in key


@given(st.recursive(st.text() | st.integers() | st.booleans() | st.none(), st.lists, max_leaves=5))
@settings(max_examples=100)
def test_json_round_trip(value: Any) -> None:
    item = {"one": value, "two": [value, {"x": value}]}
    assert replies.objects(f"Answer: {json.dumps(item)}.") == [item]
    assert replies.objects(json.dumps(item, ensure_ascii=False)) == [item]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am sorry, but I cannot do that.",
        "{'title': 'What Moves the Sea'}",
        '{"title": "What Moves the Sea", "title": "Another Title of the Sea"}',
        '{"title": NaN}',
        '{"title": "What Moves \\ud83d the Sea"}',
        "{" * 5000,
        '{"' * 2000,
        "[" * 5000 + "]" * 5000,
        '<think>{"title": "What Moves the Sea"}',
    ],
)
def test_values_that_are_not_json_objects_are_ignored(text: str) -> None:
    assert reason(decide("title", text)) == "invalid_json"


def test_several_valid_answers_are_dropped() -> None:
    one, other = '{"title": "What Moves the Sea"}', '{"title": "The Sea and the Moon"}'
    assert reason(decide("title", one + other)) == "several_answers"
    assert decide("title", one + '{"heading": "The Sea"}') == decide("title", one)


# ---- schemas and checks


@pytest.mark.parametrize(("kind", "item", "at"), WRONG_SCHEMA)
def test_schema_violation_is_dropped_with_its_path(
    kind: str, item: dict[str, Any], at: str
) -> None:
    dropped = decide(kind, json.dumps(item))
    assert reason(dropped) == "wrong_schema"
    assert isinstance(dropped, Dropped)
    assert dropped.evidence["at"] == at and dropped.evidence["detail"]
    assert dropped.document.text == json.dumps(item)


@pytest.mark.parametrize(("kind", "change", "expected"), BAD)
def test_failed_check_is_dropped_with_its_reason(
    kind: str, change: dict[str, Any], expected: str
) -> None:
    item = GOOD[kind] | change
    dropped = decide(kind, json.dumps(item))
    assert reason(dropped) == expected
    assert isinstance(dropped, Dropped)
    assert dropped.document.text == json.dumps(item)
    json.dumps(dropped.evidence)


def test_new_numbers_are_permitted_in_code_and_math() -> None:
    item = GOOD["question_answering"] | {"answer": "The water of the Moon rises 32 metres."}
    text = json.dumps(item)
    assert reason(decide("question_answering", text)) == "unsupported_number"
    assert isinstance(decide("question_answering", text, category="math"), Document)


def test_copied_example_is_dropped() -> None:
    for kind in KINDS:
        for passage, item in EXAMPLES[kind]:
            assert reason(decide(kind, json.dumps(item), passage=passage)) == "copied_example"


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["A. 16 metres", "B. 2 metres", "C. 40 metres", "D. 7 metres"], "A. 16 metres"),
        (["A) 16 metres", "B) 2 metres", "C) 40 metres", "D) 7 metres"], "A"),
        (["16 metres", "2 metres", "40 metres", "7 metres"], "A"),
        (["2 metres", "16 metres ", "40 metres", "7 metres"], "(B)"),
        (["2 metres", "A. 16 metres", "40 metres", "7 metres"], "A. 16 metres"),
    ],
)
def test_an_option_may_be_named_by_its_letter(options: list[str], answer: str) -> None:
    task = kept("multiple_choice", GOOD["multiple_choice"] | {"options": options, "answer": answer})
    shown = dict(re.findall(r"^\(?([A-D])[.)] (.+)$", task.text, re.M))
    (letter,) = re.findall(r"^\(?([A-D])\b", task.meta["answer"])
    assert shown[letter].endswith("16 metres")


# ---- rendering


@pytest.mark.parametrize("kind", KINDS)
def test_task_ends_with_its_answer_and_contains_its_fields(kind: str) -> None:
    item, texts = GOOD[kind], set()
    for number in range(60):
        task = kept(kind, item, number)
        assert task.id == f"restructured/{kind}/sea/1@{number}"
        assert (task.source, task.category) == ("restructured", "tasks")
        assert {k: task.meta[k] for k in ("task", "from", "from_source")} == {
            "task": kind,
            "from": "sea/1",
            "from_source": "sea",
        }
        answer = task.meta["answer"]
        assert task.text.endswith(answer)
        prompt = task.text.removesuffix(answer)
        assert prompt.strip() and len(ENCODE(task.text)) <= 512
        for part in ("question", "statement", "sentence"):
            assert item.get(part, "") in prompt
        assert all(option in prompt for option in item.get("options", []))
        if kind in ("summary", "keywords"):
            assert TIDES in prompt
        if kind == "title":  # without the heading that the passage has
            assert TIDES.removeprefix("# Tides\n\n") in prompt and "# Tides" not in prompt
        if kind == "cloze":
            assert prompt.count("____") == 1 and "twice" not in prompt
        if kind == "true_false":
            assert re.fullmatch(r"(False|No|Incorrect|wrong)\. They come at new .*", answer)
        if kind == "keywords":
            assert re.split(r", |; |\n", answer) == item["keywords"]
        texts.add(task.text)
    assert len(texts) >= 6


@pytest.mark.parametrize("kind", ["question_answering", "multiple_choice", "true_false"])
def test_the_passage_is_left_out_only_where_the_task_stands_alone(kind: str) -> None:
    shown = {TIDES.strip() in kept(kind, GOOD[kind], k).text for k in range(60)}
    assert shown == {True, False}
    needing = GOOD[kind] | {"needs_passage": True}
    assert all(TIDES.strip() in kept(kind, needing, k).text for k in range(60))
    part = "statement" if kind == "true_false" else "question"
    for change in ("According to the passage, ", "As the author says, ", "In this text, "):
        pointing = GOOD[kind] | {part: change + GOOD[kind][part]}
        assert all(TIDES.strip() in kept(kind, pointing, k).text for k in range(40))


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_keys_does_not_matter(kind: str) -> None:
    for seed in range(5):
        keys = list(GOOD[kind])
        random.Random(seed).shuffle(keys)
        assert kept(kind, {key: GOOD[kind][key] for key in keys}) == kept(kind, GOOD[kind])


def test_a_task_of_too_many_tokens_is_shown_alone_or_dropped() -> None:
    long = TIDES + "The sea is wide. " * 200
    for number in range(10):
        text = json.dumps(GOOD["question_answering"])
        short = decide("question_answering", text, number, passage=long)
        assert isinstance(short, Document) and "wide" not in short.text
    dropped = decide("title", json.dumps(GOOD["title"]), passage=long)
    assert reason(dropped) == "too_many_tokens"
    assert isinstance(dropped, Dropped) and dropped.evidence["tokens"] > 512


def forms() -> list[tuple[str, list[str]]]:
    found = []
    for name, value in vars(templates).items():
        if name.isupper():
            found.append((name, [v if isinstance(v, str) else v.template for v in value]))
    return found


@pytest.mark.parametrize(("name", "texts"), forms())
def test_templates_of_a_kind_have_the_same_fields_and_end_with_the_answer(
    name: str, texts: list[str]
) -> None:
    assert len(texts) == len(set(texts)) >= 6
    parts = {frozenset(p for _, p, _, _ in string.Formatter().parse(t) if p) for t in texts}
    assert len({some - {"name"} for some in parts}) == 1  # a function's name stands in its code
    for text in texts:
        assert text.endswith("{answer}") and text.count("{answer}") == 1
        assert text == text.strip() and "  " not in text


def test_rules_and_teacher_share_templates() -> None:
    """One set of templates: what frames a task by a teacher frames one by rules, too."""
    text = "A form is a bed.\n\n" + " ".join(
        f"A {n} is a young animal of the kind number {k} that lives alone in open country."
        for k, n in enumerate(("leveret", "kit", "fawn", "cub", "calf", "foal"))
    )
    by_rules: set[str] = set()
    for seed in range(60):
        config = NlpTasks(kinds=("question_answering", "true_false"), seed=seed)
        for task in from_structure.build(config)(Document("d", text, "d", "wiki")):
            by_rules.add(task.text.split(" ")[0])
    by_teacher = {
        rendering.question("Why?", "So.", context, seeded_random.seeded(k, "x")).text.split(" ")[0]
        for k in range(60)
        for context in ("", "Text.")
    }
    assert {"Q:", "Question:", "User:", "Answer"} <= by_rules & (by_teacher | {"Answer"})

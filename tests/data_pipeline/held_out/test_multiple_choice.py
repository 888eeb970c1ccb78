from __future__ import annotations

import json
import random
import re
from collections import Counter
from pydoc_data.topics import topics

import pytest

from data_pipeline.config import HeldOut
from data_pipeline.held_out import multiple_choice
from data_pipeline.held_out.multiple_choice import MultipleChoiceItem
from data_pipeline.reading.demo import school_math
from data_pipeline.storage.document import Document
from tests.builders import python_output


def documents() -> list[Document]:
    names = sorted(topics, key=lambda name: -len(topics[name]))[:24]
    return [
        *(
            Document(f"reference/{name}", topics[name], "reference", "reference")
            for name in names[:12]
        ),
        *(Document(f"topics/{name}", topics[name], "topics", "reference") for name in names[12:]),
        *(Document(f"math/{i}", school_math.text(i), "math", "math") for i in range(60)),
    ]


@pytest.fixture(scope="module")
def made() -> list[MultipleChoiceItem]:
    return multiple_choice.make_items(documents(), HeldOut())


def test_contract(made: list[MultipleChoiceItem]) -> None:
    assert len({item.id for item in made}) == len(made)
    texts = {document.id: document for document in documents()}
    for item in made:
        value = json.loads(json.dumps(item.to_json()))
        assert list(value) == ["id", "task", "source", "document", "context", "choices", "answer"]
        assert value["source"] == texts[item.document].source
        assert len(item.choices) == 4 == len(set(item.choices))
        assert 0 <= item.answer < 4
        assert all(re.match(r" \S", choice) for choice in item.choices)
        assert item.context and not item.context[-1].isspace()
        # context and the right choice are the document's own text
        assert item.context + item.choices[item.answer] in texts[item.document].text


def test_as_many_as_wanted_of_each_task_spread_over_the_documents(
    made: list[MultipleChoiceItem],
) -> None:
    counts = Counter((item.source, item.task) for item in made)
    assert counts == {
        (source, task): 40
        for source in ("reference", "topics")
        for task in ("cloze", "continuation")
    } | {("math", "arithmetic"): 40}
    of_document = Counter(item.document for item in made if item.task == "continuation")
    assert len(of_document) == 24 and max(of_document.values()) <= 4
    few = multiple_choice.make_items(documents(), HeldOut(items=3, choices=2))
    assert set(Counter((item.source, item.task) for item in few).values()) == {3}
    assert all(len(item.choices) == 2 for item in few)


def test_the_right_choice_has_no_favorite_place(made: list[MultipleChoiceItem]) -> None:
    places = Counter(item.answer for item in made)
    assert all(30 < places[place] < 70 for place in range(4)), places  # of 200


def test_cloze(made: list[MultipleChoiceItem]) -> None:
    texts = {document.id: document for document in documents()}
    for item in (item for item in made if item.task == "cloze"):
        assert 20 <= len(item.context.split()) <= 60
        right = item.choices[item.answer].strip()
        for choice in map(str.strip, item.choices):
            assert not re.search(rf"\b{re.escape(choice)}\b", item.context, re.IGNORECASE)
            assert choice[0].isupper() == right[0].isupper()
            assert choice.isdigit() == right.isdigit()
            assert abs(len(choice) - len(right)) <= 4
            if choice != right:  # from another document of the source
                others = [
                    d for d in texts.values() if d.source == item.source and d.id != item.document
                ]
                assert any(choice in other.text for other in others)


def test_continuation(made: list[MultipleChoiceItem]) -> None:
    texts = {document.id: document for document in documents()}
    for item in (item for item in made if item.task == "continuation"):
        assert len(item.context.split()) == 50
        lengths = {len(choice.split()) for choice in item.choices}
        assert len(lengths) == 1 and 12 <= lengths.pop() <= 20
        for place, choice in enumerate(item.choices):
            if place != item.answer:
                others = [
                    d for d in texts.values() if d.source == item.source and d.id != item.document
                ]
                assert any(choice in other.text for other in others)


def test_arithmetic(made: list[MultipleChoiceItem]) -> None:
    copied = 0
    for item in (item for item in made if item.task == "arithmetic"):
        assert item.context.endswith("The answer is")
        numbers = [float(choice.replace(",", "")) for choice in item.choices]
        assert len(set(numbers)) == 4
        wrong = [c.strip() for i, c in enumerate(item.choices) if i != item.answer]
        copied += any(
            re.search(rf"(?<!\d){re.escape(number)}(?!\d)", item.context) for number in wrong
        )
    assert copied > 20  # a number of the problem is no way to the answer


def test_order_of_documents_does_not_matter(made: list[MultipleChoiceItem]) -> None:
    shuffled = documents()
    random.Random(0).shuffle(shuffled)
    assert multiple_choice.make_items(shuffled, HeldOut()) == made
    assert multiple_choice.make_items(shuffled, HeldOut(seed=1)) != made


def test_too_little_to_choose_from() -> None:
    assert multiple_choice.make_items([], HeldOut()) == []
    alone = Document("a", topics["yield"], "reference", "reference")
    assert {item.task for item in multiple_choice.make_items([alone], HeldOut())} <= {"cloze"}
    assert multiple_choice.make_items([Document("a", "Too short.", "web", "web")], HeldOut()) == []


def test_another_process_gives_the_same(made: list[MultipleChoiceItem]) -> None:
    script = (
        "from tests.data_pipeline.held_out.test_multiple_choice import *\n"
        "items = multiple_choice.make_items(documents(), HeldOut())\n"
        "print(json.dumps([item.to_json() for item in items]))"
    )
    output = python_output(script, hash_seed="12345")
    assert json.loads(output) == [item.to_json() for item in made]

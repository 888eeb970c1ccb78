"""What matches is cut out with its sentences; the rest stays as it was, and is clean."""

import random

import pytest

from data_pipeline.config import CutSpans, Decontamination
from data_pipeline.decontamination import cut_spans, rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import build_index
from data_pipeline.storage.document import Document, Dropped
from tests.data_pipeline.builders import nonsense

QUESTION = (
    "A hare runs twice around a field of ninety metres while the tortoise sleeps under an old "
    "willow. How many metres does the hare run before the tortoise wakes?"
)
SECOND = "Seven brothers carry eleven lanterns across the frozen harbour before the bakery opens?"
ITEMS = [
    BenchmarkItem("tales/test/0", "tales", {"question": QUESTION}),
    BenchmarkItem("tales/test/1", "tales", {"question": SECOND}),
]
CONFIG = Decontamination(cut_spans=CutSpans(enabled=True, margin_sentences=1))
FIND = rules.build_find(CONFIG, build_index(ITEMS, 13, CONFIG))


def sentences(number: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [
        nonsense(12, seed * 1000 + k) + end
        for k, end in enumerate(rng.choices([". ", "!  ", "?\n\n", ".” ", "\n"], k=number))
    ]


def decide(text: str, knobs: CutSpans = CONFIG.cut_spans) -> Document | Dropped:
    document = Document("web/1", text, "web", "web", {"file": "a"})
    (answer,) = cut_spans.build_decide(knobs, FIND)([document])
    return answer


@pytest.mark.parametrize("place", [0, 1, 30, 59, 60])
def test_a_passage_goes_with_a_sentence_on_both_sides_and_nothing_else_changes(place: int) -> None:
    around = sentences(60)
    pieces = [*around[:place], f"{QUESTION} ", *around[place:]]
    answer = decide("".join(pieces))
    assert isinstance(answer, Document)
    left = "".join(around[: max(0, place - 1)]) + "".join(around[place + 1 :])
    assert answer.text == left
    assert (answer.id, answer.meta["file"]) == ("web/1", "a")
    (evidence,) = answer.meta["cut_spans"]
    assert (evidence["item"], evidence["rule"]) == ("tales/test/0", "item_share")
    assert FIND([answer.text]) == {}


def test_every_passage_goes_whatever_their_number() -> None:
    around = sentences(200, 5)
    leaks = [f"{QUESTION} ", f"{SECOND} ", f"{QUESTION} ", f"{SECOND}\n"]
    text = "".join(x for k, leak in enumerate(leaks) for x in (*around[k * 50 : k * 50 + 50], leak))
    answer = decide(text)
    assert isinstance(answer, Document)
    assert len(answer.meta["cut_spans"]) == 4
    assert FIND([answer.text]) == {}
    assert QUESTION not in answer.text
    kept = [sentence for sentence in around if sentence in answer.text]
    assert "".join(kept) == answer.text


def test_a_short_document_and_one_that_would_lose_much_go_as_wholes() -> None:
    short = "".join(sentences(20)) + QUESTION
    answer = decide(short)
    assert isinstance(answer, Dropped)
    assert (answer.document.text, answer.reason) == (short, "contaminated")
    assert answer.evidence["item"] == "tales/test/0"
    once = f"{''.join(sentences(60))} {QUESTION}"
    assert isinstance(decide(once), Document)
    assert isinstance(decide(once, CutSpans(enabled=True, max_share=0.01)), Dropped)
    many = "".join(x for s in sentences(60) for x in (s, f"{QUESTION} "))
    assert isinstance(decide(many), Dropped)
    allowed = CutSpans(enabled=True, min_words=0, max_share=1.0)
    assert isinstance(decide(short, allowed), Document)


def test_text_without_sentences_is_cut_by_lines() -> None:
    lines = [s.strip(".!?” \n") + "\n" for s in sentences(80, 3)]
    lines[40:40] = [QUESTION.replace("? ", " ").replace(". ", " ") + "\n"]
    answer = decide("".join(lines))
    assert isinstance(answer, Document)
    assert answer.text == "".join([*lines[:39], *lines[42:]])


def test_what_folds_to_other_letters_does_not_move_the_cut() -> None:
    """Words are counted after normalization; the text itself is never normalized."""
    around = [f"ﬁne ½ ① e\u0301tude {sentence}" for sentence in sentences(60, 4)]
    answer = decide("".join([*around[:30], f"{QUESTION} ", *around[30:]]))
    assert isinstance(answer, Document)
    assert answer.text == "".join([*around[:29], *around[31:]])


def test_clean_documents_are_the_same_objects() -> None:
    documents = [Document(str(k), "".join(sentences(9, k)), "web", "web") for k in range(5)]
    answers = cut_spans.build_decide(CONFIG.cut_spans, FIND)(documents)
    assert all(a is d for a, d in zip(answers, documents, strict=True))

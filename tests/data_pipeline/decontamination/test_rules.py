"""Each rule finds what it should and only that; the index is the same wherever it is built."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.config import Decontamination, Rules
from data_pipeline.decontamination import rules
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import NgramIndex, build_index, word_bits
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import shared_ngrams
from data_pipeline.text.ngrams import words
from tests.builders import python_output
from tests.data_pipeline.builders import nonsense

QUESTION = (
    "A hare runs twice around a field of ninety metres while the tortoise sleeps under an old "
    "willow. How many metres does the hare run before the tortoise wakes?"
)
ANSWER = "Once around takes it ninety metres, so twice around is two times ninety, or 180 metres."
ITEM = BenchmarkItem("tales/test/0", "tales", {"question": QUESTION, "answer": ANSWER})

OFF: dict[str, Any] = {"item_share": 0.0, "sample_share": 0.0, "absolute_hits": 0}
ITEM_SHARE = Decontamination(**{**OFF, "item_share": 0.75})
SAMPLE_SHARE = Decontamination(**{**OFF, "sample_share": 0.5})
ABSOLUTE_HITS = Decontamination(**{**OFF, "absolute_hits": 8})
DEFAULT = Decontamination()


def check(
    texts: Sequence[str],
    config: Decontamination = DEFAULT,
    items: Sequence[BenchmarkItem] = (ITEM,),
    n: int = 13,
) -> list[dict[str, Any] | None]:
    """The evidence for each text, None for a clean one."""
    documents = [Document(str(k), text, "web", "web") for k, text in enumerate(texts)]
    answers = rules.build_decide(config, build_index(items, n, config))(documents)
    for answer, document in zip(answers, documents, strict=True):
        assert (answer.document if isinstance(answer, Dropped) else answer) is document
        assert not isinstance(answer, Dropped) or answer.reason == "contaminated"
    return [a.evidence if isinstance(a, Dropped) else None for a in answers]


def finds(text: str, config: Decontamination = DEFAULT, **more: Any) -> bool:
    return check([text], config, **more)[0] is not None


def replace_words(text: str, places: Sequence[int]) -> str:
    changed = text.split()
    for k, place in enumerate(places):
        changed[place] = nonsense(1, seed=10**9 + k)
    return " ".join(changed)


# ---- Each rule alone

WHOLE = f"{QUESTION}\n{ANSWER}"
INSIDE_300 = f"{nonsense(140)} {WHOLE} {nonsense(160, 1)}"


@pytest.mark.parametrize(
    ("text", "item_share", "sample_share", "absolute_hits"),
    [
        (WHOLE, True, True, True),
        (QUESTION, True, True, True),
        (ANSWER, True, True, False),  # 17 words are 5 n-grams
        (INSIDE_300, True, False, True),
        (f"{nonsense(5000)} {QUESTION} {nonsense(5000, 1)}", True, False, True),
        (replace_words(QUESTION, (3, 14, 25)), True, False, False),  # every tenth word
        (" ".join(QUESTION.split()[:12]), False, False, False),
        (nonsense(400), False, False, False),
        (" ".join(sorted(WHOLE.split())), False, False, False),  # the words, but not their order
        ("", False, False, False),
    ],
    ids=[
        "verbatim",
        "question",
        "answer",
        "inside 300 words",
        "inside 10000 words",
        "edited",
        "beginning",
        "clean",
        "bag of words",
        "empty",
    ],
)
def test_each_rule_finds_what_it_should_and_only_that(
    text: str, item_share: bool, sample_share: bool, absolute_hits: bool
) -> None:
    assert finds(text, ITEM_SHARE) == item_share
    assert finds(text, SAMPLE_SHARE) == sample_share
    assert finds(text, ABSOLUTE_HITS) == absolute_hits
    assert finds(text, DEFAULT) == (item_share or sample_share or absolute_hits)


def test_sample_share_alone_finds_a_patchwork_of_pieces_of_many_items() -> None:
    """The paper's rule: each piece is too small for the other rules, together they are the text."""
    items = [BenchmarkItem(f"b/test/{k}", "b", {"question": nonsense(60, k)}) for k in range(30)]
    patchwork = " ".join(" ".join(nonsense(60, k).split()[5:23]) for k in range(30))
    assert not finds(patchwork, ITEM_SHARE, items=items)
    assert not finds(patchwork, ABSOLUTE_HITS, items=items)
    assert finds(patchwork, Decontamination(**{**OFF, "sample_share": 0.3}), items=items)
    assert not finds(patchwork, SAMPLE_SHARE, items=items)  # 18 words give 6 n-grams of 13
    assert finds(patchwork, SAMPLE_SHARE, items=items, n=8)


def test_absolute_hits_alone_finds_a_piece_of_a_long_item() -> None:
    item = BenchmarkItem("books/test/0", "books", {"passage": nonsense(2000, 7)})
    piece = f"{nonsense(300)} {' '.join(nonsense(2000, 7).split()[900:925])} {nonsense(300, 1)}"
    assert finds(piece, ABSOLUTE_HITS, items=[item])
    assert not finds(piece, ITEM_SHARE, items=[item])
    assert not finds(piece, SAMPLE_SHARE, items=[item])
    exempt = BenchmarkItem(item.id, item.benchmark, item.parts, absolute_hits=False)
    assert not finds(piece, DEFAULT, items=[exempt])
    assert finds(nonsense(2000, 7), DEFAULT, items=[exempt]), "the other rules still apply"


def test_absolute_hits_count_different_ngrams() -> None:
    item = BenchmarkItem("books/test/0", "books", {"passage": nonsense(2000, 7)})
    piece = " ".join(nonsense(2000, 7).split()[100:115])  # 3 n-grams, again and again
    text = " ".join(f"{piece} {nonsense(20, 50 + k)}" for k in range(9))
    assert not finds(text, ABSOLUTE_HITS, items=[item])


def test_item_share_wants_the_words_in_one_passage() -> None:
    """A long document may hold all n-grams of an item here and there, and is no leak of it."""
    pieces = [" ".join(QUESTION.split()[k : k + 6]) for k in range(0, 27, 6)]
    scattered = " ".join(f"{piece} {nonsense(200, k)}" for k, piece in enumerate(pieces))
    assert not finds(scattered, ITEM_SHARE)
    assert finds(" ".join(f"{p} {nonsense(1, k)}" for k, p in enumerate(pieces)), ITEM_SHARE)


PART = nonsense(12, 77)  # twelve rare words
RARE_ITEM = BenchmarkItem("b/test/0", "b", {"question": PART})


def test_item_share_counts_an_ngram_once_in_a_passage() -> None:
    w = PART.split()
    phrase = " ".join(w[:5])
    repeated = f"{phrase} {w[11]} {phrase} {w[10]} {w[9]} {phrase} {w[8]} {w[7]} {w[6]}"
    assert not finds(repeated, ITEM_SHARE, items=[RARE_ITEM])
    assert finds(" ".join(w[:10]) + " other", ITEM_SHARE, items=[RARE_ITEM])


def test_item_share_does_not_add_up_ngrams_of_distant_passages() -> None:
    w = PART.split()
    shuffled = " ".join([*w[:5], *w[:4:-1]])  # all words, but one n-gram
    distant = " ".join(f"{' '.join(w[k : k + 5])} {nonsense(100, 200 + k)}" for k in range(1, 5))
    assert not finds(f"{shuffled} {nonsense(100, 300)} {distant}", ITEM_SHARE, items=[RARE_ITEM])


def test_item_share_does_not_look_into_the_documents_beside() -> None:
    w = PART.split()
    first, second = " ".join(w[:4]), " ".join(w[4:])
    assert check([first, second, first], ITEM_SHARE, items=[RARE_ITEM]) == [None] * 3
    assert finds(f"{first} {second}", ITEM_SHARE, items=[RARE_ITEM])


def test_layout_and_punctuation_do_not_hide_an_item() -> None:
    shouted = "\n> ".join(QUESTION.upper().replace(".", " ...").replace(" ", "  ").split("  "))
    assert finds(f"{nonsense(200)}\n{shouted}\n{nonsense(200, 1)}")


# ---- Short, common and repeated parts


def test_a_short_question_is_found_in_full_and_not_in_part() -> None:
    item = BenchmarkItem("b/test/0", "b", {"question": "Why do hares sleep with open eyes?"})
    assert finds(f"{nonsense(50)} Why do hares sleep with open eyes? {nonsense(50)}", items=[item])
    assert not finds(f"{nonsense(50)} Why do hares sleep with open {nonsense(50)}", items=[item])


def test_fragments_and_options_are_not_looked_for_alone() -> None:
    parts = {
        "question": "The Federal Open Market Committee",
        "choice_0": "sets the target for the federal funds rate each month",
        "question_answer": "The Federal Open Market Committee sets the target for the federal "
        "funds rate each month",
    }
    item = BenchmarkItem("b/test/0", "b", parts)
    assert not finds(f"{nonsense(50)} {parts['question']} {nonsense(50)}", items=[item])
    assert not finds(f"{nonsense(50)} {parts['choice_0']} {nonsense(50)}", items=[item])
    assert finds(f"{nonsense(50)} {parts['question_answer']} {nonsense(50)}", items=[item])


def test_items_without_any_part_to_look_for_are_counted() -> None:
    items = [
        BenchmarkItem("b/test/0", "b", {"question": "The Federal Open Market Committee"}),
        BenchmarkItem("b/test/1", "b", {"question": "Why?", "choice_0": "because"}),
        BenchmarkItem("b/test/2", "b", {"question": QUESTION}),
        ITEM,
    ]
    assert build_index(items, 13, DEFAULT).unindexed == {"b": 2}


def test_a_phrase_of_many_items_is_no_evidence() -> None:
    phrase = "which of the following best explains the result of the experiment described above"
    few = [
        BenchmarkItem(f"b/{k}", "b", {"question": f"{nonsense(9, k)} {phrase}?"}) for k in range(10)
    ]
    many = [*few, BenchmarkItem("b/10", "b", {"question": f"{nonsense(9, 10)} {phrase}?"})]
    config = Decontamination(**{**OFF, "absolute_hits": 1})
    assert finds(f"{nonsense(50, 99)} {phrase}", config, items=few)
    assert not finds(f"{nonsense(50, 99)} {phrase}", config, items=many)
    for item in many:
        assert finds(item.parts["question"], DEFAULT, items=many), "what is its own still counts"


def test_the_same_text_twice_in_a_benchmark_counts_once() -> None:
    items = [BenchmarkItem(f"b/{split}/0", "b", {"question": QUESTION}) for split in range(30)]
    found = check([QUESTION], items=items)[0]
    assert found is not None
    assert found["item"] == "b/0/0"


# ---- Evidence


def test_evidence_says_what_matched() -> None:
    (found,) = check([f"{nonsense(50)} -- {QUESTION}\n{nonsense(20, 1)}"])
    assert found == {
        "rule": "item_share",
        "benchmark": "tales",
        "item": "tales/test/0",
        "part": "question",
        "share": 1.0,
        "hits": 25,
        "span": QUESTION.rstrip("?")[:200],
    }


def test_evidence_of_the_other_rules() -> None:
    (found,) = check([INSIDE_300], ABSOLUTE_HITS)
    assert found is not None
    assert (found["rule"], found["part"], found["hits"], found["share"]) == (
        "absolute_hits",
        "question",
        17,
        1.0,
    )
    assert found["span"] == QUESTION.rstrip("?")[:200]
    (found,) = check([WHOLE], SAMPLE_SHARE)
    assert found is not None
    assert (found["rule"], found["part"]) == ("sample_share", "question")
    assert 0.6 < found["share"] < 1


def test_the_span_is_taken_from_the_right_document_and_place() -> None:
    texts = [
        nonsense(30, 1),
        "日本語 — “" + QUESTION + "” — é",
        nonsense(30, 2),
        f"{nonsense(9)} {ANSWER}",
    ]
    found = check(texts)
    assert [f is not None for f in found] == [False, True, False, True]
    assert found[1] is not None
    assert found[3] is not None
    assert found[1]["span"] == QUESTION.rstrip("?")
    assert found[3]["span"] == ANSWER.rstrip(".")


# ---- Properties


def random_items(seed: int, number: int) -> list[BenchmarkItem]:
    rng = random.Random(seed)
    return [
        BenchmarkItem(
            f"b{seed}/{k}",
            f"b{seed}",
            {"question": nonsense(rng.randrange(8, 60), seed * 1000 + k)},
        )
        for k in range(number)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_adding_items_never_acquits_a_document(seed: int) -> None:
    rng = random.Random(seed)
    items = random_items(seed, 40)
    texts = []
    for item in items:
        leaked = replace_words(item.parts["question"], [rng.randrange(8) for _ in range(seed)])
        texts.append(f"{nonsense(rng.randrange(60), 5)} {leaked} {nonsense(rng.randrange(60), 6)}")
    before = {k for k, found in enumerate(check(texts, items=items[:15])) if found}
    after = {k for k, found in enumerate(check(texts, items=items)) if found}
    more = {k for k, f in enumerate(check(texts, items=items + random_items(9, 200))) if f}
    assert before
    assert before <= after <= more
    assert len(after) > len(before)


def test_the_answer_for_a_document_does_not_depend_on_the_others() -> None:
    rng = random.Random(0)
    texts = [
        INSIDE_300,
        QUESTION,
        ANSWER,
        "",
        "...",
        nonsense(3000),
        *(nonsense(k) for k in range(40)),
    ]
    rng.shuffle(texts)
    alone = [check([text])[0] for text in texts]
    assert check(texts) == alone
    assert check(texts[::-1]) == alone[::-1]


def test_clean_text_is_kept() -> None:
    items = random_items(1, 300)
    assert check([nonsense(300, 10**6 + k) for k in range(200)], items=items) == [None] * 200


def test_an_index_survives_saving_in_the_same_bytes(tmp_path: Path) -> None:
    items = [*random_items(4, 50), ITEM, BenchmarkItem("b/0", "b", {"question": "Why?"})]
    index = build_index(items, 8, DEFAULT)
    for name in ("a.npz", "b.npz"):
        index.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    loaded = NgramIndex.load(tmp_path / "a.npz")
    assert (loaded.n, loaded.seed_n, loaded.parts, loaded.unindexed) == (
        index.n,
        index.seed_n,
        index.parts,
        index.unindexed,
    )
    for name in ("absolute_K", "seed_bits_G", "total_seed_bits_K"):
        assert np.array_equal(getattr(loaded, name), getattr(index, name)), name
    texts = [item.parts["question"] + nonsense(k) for k, item in enumerate(items)]
    documents = [Document(str(k), text, "web", "web") for k, text in enumerate(texts)]
    answers = [rules.build_decide(DEFAULT, which)(documents) for which in (index, loaded)]
    assert answers[0] == answers[1]
    assert sum(isinstance(a, Dropped) for a in answers[0]) > 40


def test_an_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    index = build_index([], 13, DEFAULT)
    index.save(tmp_path / "a.npz")
    document = Document("1", QUESTION, "web", "web")
    assert rules.build_decide(DEFAULT, NgramIndex.load(tmp_path / "a.npz"))([document]) == [
        document
    ]


PROGRAM = """
import hashlib, pathlib, sys
from data_pipeline.config import Decontamination
from data_pipeline.decontamination.benchmarks import BenchmarkItem
from data_pipeline.decontamination.index import build_index
questions = [f"Who is number {k} of all the hares of this field?" for k in range(20)]
items = [BenchmarkItem(f"b/{k}", "b", {"question": q}) for k, q in enumerate(questions)]
build_index(items, 13, Decontamination()).save(pathlib.Path(sys.argv[1]))
"""


def test_an_index_is_the_same_in_every_process(tmp_path: Path) -> None:
    for seed in ("0", "7"):
        python_output(PROGRAM, str(tmp_path / f"{seed}.npz"), hash_seed=seed)
    assert (tmp_path / "0.npz").read_bytes() == (tmp_path / "7.npz").read_bytes()


def test_rare_words_say_more_than_common_ones() -> None:
    bits = word_bits(words(["the hare of"]).hashes_W)
    assert bits.tolist() == [4.0, 14.0, 5.0]


# ---- Short items, options, templates, the paper's rule


def test_a_short_item_with_a_replaced_word_is_found_in_a_short_document() -> None:
    text = "Which gas do plants take in from the air during photosynthesis? carbon dioxide"
    item = BenchmarkItem("b/test/0", "b", {"question": text[:62], "question_answer": text})
    edited = text.replace("plants", "flowers").replace("air", "sky")
    (found,) = check([edited], items=[item])
    assert found is not None
    assert (found["rule"], found["part"]) == ("item_share", "question_answer")
    assert found["span"] == edited
    assert 0.75 <= found["share"] < 1
    assert not finds(f"{nonsense(200)} {edited} {nonsense(200, 1)}", items=[item])
    off = Decontamination(**{**OFF, "sample_share": 0.5})
    assert not finds(edited, off, items=[item])


def test_nearly_all_of_an_option_has_to_be_there() -> None:
    option = nonsense(20, 5)
    item = BenchmarkItem("b/test/0", "b", {"question": "Why?", "choice_0": option})
    most = " ".join(option.split()[:17])  # .85 of it
    for found, text in ((True, option), (False, most)):
        assert finds(f"{nonsense(99)} {text} {nonsense(99, 1)}", ITEM_SHARE, items=[item]) == found
    question = BenchmarkItem("b/test/0", "b", {"question": option})
    assert finds(f"{nonsense(99)} {most} {nonsense(99, 1)}", ITEM_SHARE, items=[question])


def test_a_long_phrase_does_not_hide_what_an_item_has_for_itself() -> None:
    """As in a task whose every question begins with the same forty words."""
    phrase = nonsense(40, 3)
    items = [
        BenchmarkItem(f"b/{k}", "b", {"question": f"{phrase} {nonsense(15, 100 + k)}"})
        for k in range(30)
    ]
    edited = replace_words(items[7].parts["question"], (3, 30, 49))
    (found,) = check([f"{nonsense(60)} {edited} {nonsense(60, 1)}"], ITEM_SHARE, items=items)
    assert found is not None
    assert found["item"] == "b/7"
    assert not finds(f"{phrase} {nonsense(15, 99)}", ITEM_SHARE, items=items)


def test_what_a_held_out_document_has_from_a_template_is_no_evidence() -> None:
    frame = [nonsense(30, 700 + k) for k in range(6)]

    def page(k: int, own: int) -> str:
        return "\n".join(f"{part} {nonsense(own, 100 * k + j)}" for j, part in enumerate(frame))

    pages = [Document(f"web/{k}", page(k, 9), "web", "web") for k in range(1, 5)]
    item = BenchmarkItem(
        "web/1", "held_out_documents", {"document": pages[0].text}, absolute_hits=False
    )
    templates = {n: shared_ngrams.shared_ngrams(pages, n) for n in (5, 13)}
    other = Document("web/9", page(9, 9), "web", "web")
    leak = Document("web/10", f"{nonsense(50)} {pages[0].text} {nonsense(50, 1)}", "web", "web")
    for given, expected in ((None, [True, True]), (templates, [False, True])):
        answers = rules.build_decide(DEFAULT, build_index([item], 13, DEFAULT, given))(
            [other, leak]
        )
        assert [isinstance(answer, Dropped) for answer in answers] == expected
    benchmark = BenchmarkItem("b/1", "b", {"question": frame[0]})
    index = build_index([benchmark], 13, DEFAULT, templates)
    answers = rules.build_decide(DEFAULT, index)([other])
    assert isinstance(answers[0], Dropped), "a benchmark's text stays evidence, wherever it stands"


def test_the_papers_rule_is_one_setting() -> None:
    papers = Decontamination(rules=Rules.PAPER).resolved()
    assert papers.ngram_words == {"D1": 13, "D2": 10, "D3": 4}
    items = [BenchmarkItem(f"b/{k}", "b", {"question": nonsense(60, k)}) for k in range(20)]
    inside = f"{nonsense(100, 98)} {nonsense(60, 3)} {nonsense(200, 99)}"
    mostly = f"{nonsense(60, 3)} {nonsense(20, 99)}"
    for n in papers.ngram_words.values():
        assert not finds(inside, papers, items=items, n=n)
        (found,) = check([mostly], papers, items=items, n=n)
        assert found is not None
        assert found["rule"] == "sample_share"
    same = [
        BenchmarkItem(f"b/{k}", "b", {"question": f"{nonsense(60)} {nonsense(9, k)}"})
        for k in range(30)
    ]
    assert finds(nonsense(60), papers, items=same, n=10), "nothing is excused as a phrase"
    assert Decontamination().resolved() == Decontamination()

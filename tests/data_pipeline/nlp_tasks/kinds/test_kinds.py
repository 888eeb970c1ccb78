from __future__ import annotations

import re
from collections import Counter
from pydoc_data.topics import topics

import pytest

from data_pipeline.config import NlpTasks
from data_pipeline.nlp_tasks.from_structure import KINDS, build
from data_pipeline.nlp_tasks.kinds.templates import CLOZE
from data_pipeline.storage.document import Document
from tests.builders import python_output

HARES = """# The life of hares

A hare is a mammal that lives alone in open country. The mountain hare was described in 1758 and
still lives in Scotland. Females have three litters, which are born in shallow forms. Farmers
often watched hares and rabbits in the evening, when both animals leave their shelter to eat
grass.

## How hares escape

Hares trust to their speed when a fox comes near. A fox can follow a hare for several hundred
metres before it gives up the hunt. The hare runs uphill, since its long hind legs push better
than those of the fox. When the hunter comes too close, the hare turns at once and runs back
along its own track. Young hares stay in the grass and do not move, because their coats hide
them from every enemy above.

A form is a shallow bed that a hare scrapes in the grass. A leveret is a young hare in the first
year of its life. A warren is a system of tunnels in which rabbits live together. A burrow is a
hole that an animal digs in order to live there.

Rabbits dig tunnels and live in large groups. Owls hunt both animals at night, mostly in winter.
The Romans brought rabbits from Spain to Italy, where they kept them behind walls. Germany
counted about two million hares in the year 1980.
"""
PAIRS = """Question: What is (are) hares ?
Answer: Hares are mammals.

Q: Do they dig?
A: No. They rest in forms."""
PROBLEM = """Question: Mary has 12 apples and finds 3 more of them under the trees in the garden.
How many apples does Mary have at the end?
Answer: Mary begins with all the apples that are in her basket when the day starts. At the end of
the day she has 12 + 3 = 15 apples. The answer is 15."""
CODE = '''def twice(values):
    """Double every value of a list.

    >>> twice([1])
    """
    return [2 * value for value in values]


class Hare:
    def run(self):
        return "fast"
'''
DOCSTRINGS = (
    "# animals\n\n## animals.hare_speed\n\nReturn the speed of a hare in metres per second.\n"
)


def document(text: str, name: str = "d", source: str = "web") -> Document:
    return Document(name, text, source, "web")


def everything() -> list[Document]:
    texts = [HARES, PAIRS, PROBLEM, CODE, DOCSTRINGS, *(topics[name] for name in sorted(topics))]
    return [document(text, f"d{i}") for i, text in enumerate(texts)]


def make(config: NlpTasks | None = None) -> list[Document]:
    task_maker = build(config or NlpTasks())
    return [task for one in everything() for task in task_maker(one)]


@pytest.fixture(scope="module")
def tasks() -> list[Document]:
    return make()


def of_kind(tasks: list[Document], kind: str) -> list[Document]:
    return [task for task in tasks if task.meta["task"] == kind]


def prompt(task: Document) -> str:
    assert task.text.endswith(task.meta["answer"])
    return task.text[: len(task.text) - len(task.meta["answer"])]


def test_every_kind_is_made_and_described(tasks: list[Document]) -> None:
    assert {task.meta["task"] for task in tasks} == set(KINDS)
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert (task.source, task.category) == ("nlp_tasks", "tasks")
        assert re.fullmatch(rf"nlp_tasks/{task.meta['task']}/{task.meta['from']}/\d+", task.id)
        assert task.meta["from_source"] == "web"
        assert prompt(task).strip() and task.meta["answer"].strip()


def test_limits() -> None:
    few = make(NlpTasks(per_document=2, max_words=60, kinds=("cloze", "summary")))
    counts = Counter((task.meta["from"], task.meta["task"]) for task in few)
    assert max(counts.values()) == 2 and {kind for _, kind in counts} == {"cloze", "summary"}
    assert max(len(task.text.split()) for task in few) <= 60
    assert make(NlpTasks(enabled=False)) == []


def passage(shown: str) -> str:
    """The passage of a cloze prompt: what its template says ("left out") may be the word, too."""
    shown = shown.rstrip()
    for template in CLOZE:
        before, after = template.split("{text}")
        after = after.removesuffix("{answer}").rstrip()
        if shown.startswith(before) and shown.endswith(after):
            return shown.removeprefix(before).removesuffix(after)
    raise AssertionError(f"no template of cloze: {shown}")


def test_cloze_hides_one_word_that_the_passage_does_not_show(tasks: list[Document]) -> None:
    sources = {one.id: one.text for one in everything()}
    for task in of_kind(tasks, "cloze"):
        answer, shown = task.meta["answer"], prompt(task)
        assert shown.count("____") == 1
        assert not re.search(rf"\b{re.escape(answer)}\b", passage(shown), re.IGNORECASE)
        # put back, the sentence is one of the document
        around = re.search(r"(\S+) \S*____", shown)
        original = re.sub(r"[\s*`]+", " ", sources[task.meta["from"]])
        assert answer in original
        if around and "`" not in around[1]:
            assert around[1].strip("*`") in original


def test_multiple_choice_has_four_options_and_the_right_letter(tasks: list[Document]) -> None:
    letters = Counter()
    for task in of_kind(tasks, "multiple_choice"):
        options = re.findall(r"^\(?([A-D])[.)] (.+)$", prompt(task), re.M)
        assert [letter for letter, _ in options] == list("ABCD"), task.text
        assert len({text.lower() for _, text in options}) == 4
        letter = re.match(r"\(?([A-D])", task.meta["answer"])
        assert letter is not None
        right = dict(options)[letter[1]]
        if len(task.meta["answer"]) > 1:
            assert task.meta["answer"].endswith(right)
        letters[letter[1]] += 1
        question = re.sub(r"^\(?[A-D][.)] .+$", "", prompt(task), flags=re.M)
        if "____" in question:
            assert not re.search(rf"\b{re.escape(right)}\b", question, re.IGNORECASE)
    total = sum(letters.values())
    assert total > 100
    assert all(0.15 < letters[letter] / total < 0.35 for letter in "ABCD")


def test_multiple_choice_answers_are_true() -> None:
    found = {"next": 0, "definition": 0, "word": 0}
    flat = " ".join(HARES.split())
    maker = build(NlpTasks(kinds=("multiple_choice",), per_document=30))
    for task in maker(document(HARES)):
        options = dict(re.findall(r"^\(?([A-D])[.)] (.+)$", prompt(task), re.M))
        right = options[re.findall("[A-D]", task.meta["answer"])[0]]
        if sentence := re.search(r"^(.*)____(.*)$", prompt(task), re.M):
            assert sentence[1] + right + sentence[2] in flat
            assert all(
                sentence[1] + o + sentence[2] not in flat for o in options.values() if o != right
            )
            found["word"] += 1
        elif asked := re.search(r"What is (.+)\?", prompt(task)):
            assert f"{asked[1]} is {right}".lower() in flat.lower()
            found["definition"] += 1
        else:
            lines = [line.removeprefix("Beginning: ") for line in prompt(task).split("\n")]
            assert any(line and f"{line} {right}" in flat for line in lines), task.text
            found["next"] += 1
    assert min(found.values()) >= 2, found


def test_questions() -> None:
    ask = build(NlpTasks(kinds=("question_answering",), per_document=50))
    written = {task.text for task in ask(document(PAIRS))}
    assert any("What is hares?" in text and "Hares are mammals." in text for text in written)
    assert any("Do they dig?" in text and "No. They rest in forms." in text for text in written)

    (restated,) = ask(document("Question: What hunts hares?\nAnswer: What hunts hares? Foxes do."))
    assert restated.meta["answer"] == "Foxes do."

    (problem,) = build(NlpTasks())(document(PROBLEM))  # a worked problem is one task and no more
    assert problem.meta["answer"].endswith("12 + 3 = 15 apples. The answer is 15.")
    assert "in the garden. How many apples does Mary have at the end?" in prompt(problem)

    (code,) = ask(document(CODE))
    assert "def twice(values):\n    return [2 * value" in code.text  # without its docstring
    assert code.meta["answer"] == "Double every value of a list."

    (named,) = ask(document(DOCSTRINGS))
    assert "`animals.hare_speed`" in prompt(named)
    assert named.meta["answer"] == "Return the speed of a hare in metres per second."

    asked = "\n".join(task.text for task in ask(document(HARES)))
    for question in ("hat is a leveret?", "hat is a warren?", "ow many litters do Females have?"):
        assert question in asked
    assert "hat is it?" not in asked and "hat is the" not in asked.lower()


def test_vague_subjects_and_judgments_give_no_questions() -> None:
    ask = build(NlpTasks(kinds=("question_answering",), per_document=50))
    text = (
        "It is a mammal that lives alone in open country. The reason is a law that nobody has "
        "read. "
        "Quite often a hare is a sign that spring has come. A walk is a good thing for everybody. "
        "What follows is a list of animals that dig holes. Speed is the most important thing for a "
        "hare."
    )
    assert ask(document(text)) == []


def test_summaries(tasks: list[Document]) -> None:
    assert len(of_kind(tasks, "summary")) > 5
    for task in of_kind(tasks, "summary"):
        assert task.meta["answer"] not in prompt(task)
    lead = "Owls hunt mice and voles at night during the cold months of winter. "
    unrelated = lead + "The tortoise won this race very slowly today. " * 6
    assert build(NlpTasks(kinds=("summary",)))(document(unrelated)) == []
    abstract = (
        "BACKGROUND: Hares are fast. " + "They were timed on a track of some length. " * 6
        + "\nCONCLUSION: Hares are faster than tortoises on every track that we have looked at."
    )  # fmt: skip
    (conclusion, *_) = build(NlpTasks(kinds=("summary",)))(document(abstract))
    assert conclusion.meta["answer"].startswith("Hares are faster than tortoises")
    assert "CONCLUSION" not in conclusion.text


def test_titles_are_headings_and_neither_half_shows_the_other() -> None:
    titles = {"The life of hares", "How hares escape"}
    found = set()
    for seed in range(20):
        for task in build(NlpTasks(kinds=("title",), seed=seed))(document(HARES)):
            (title,) = (title for title in titles if title in task.text)
            found.add((title, task.meta["answer"] == title))
            assert task.text.count(title) == 1
    assert found == {(title, asked) for title in titles for asked in (True, False)}


def test_true_or_false_statements_agree_with_the_text() -> None:
    counted = (
        "The field at the river is cut in the month of June. A hunter counted 14 hares on it. "
        "The farmers took the hay away, and the rain came. Another man counted only 21 hares there."
    )
    text = HARES + "\n" + counted
    flat = " ".join(text.split())
    found: Counter[tuple[bool, str]] = Counter()
    for seed in range(20):
        make_one = build(NlpTasks(kinds=("true_false",), per_document=50, seed=seed))
        for task in make_one(document(text)):
            verdict, reason = re.match(r"(\w+)\. (.+)\Z", task.meta["answer"], re.S).groups()
            (sentence,) = re.fullmatch(r'The text says: "(.+)"', reason).groups()
            assert sentence in flat and sentence in prompt(task)
            shown = prompt(task).replace(sentence, "", 1)
            said = verdict in ("True", "Yes", "Correct")
            assert said or verdict in ("False", "No", "Incorrect")
            assert (sentence in shown) == said, task.text  # the text has it once already
            found[said, "number" if re.search(r"\d", sentence) else "term"] += 1
    assert len(found) == 4 and min(found.values()) > 5, found


def test_sentences_that_are_not_statements_are_not_used() -> None:
    rest = "The village lies at the river and is very old."
    text = "\n\n".join(
        f"{sentence} {rest}"
        for sentence in (
            "The results of all the trials are shown in Table 13.",
            "The details of all this are in Section 12 of the book.",
            "Most of my friends have 14 hares at home.",
            "The old farmers had 15 of your hares there.",
            "Version 16 is older than Version 17 of the same.",
        )
    )
    assert build(NlpTasks(kinds=("true_false",), per_document=50))(document(text)) == []
    stated = text.replace("my friends", "the friends")
    assert build(NlpTasks(kinds=("true_false",), per_document=50))(document(stated)) != []


@pytest.mark.parametrize(
    "text", ["", "\n\n", "x" * 100_000, "| a | b |\n" * 500, "\\frac{a}{b} " * 999]
)
def test_empty_document_gives_no_tasks(text: str) -> None:
    assert build(NlpTasks())(document(text)) == []


def test_a_long_document_gives_tasks_of_its_middle() -> None:
    # The same words everywhere, so only the numbers tell where a task is from.
    text = "\n\n".join(
        f"Hare number {i} ran across the field to the old oak tree." for i in range(9000)
    )
    made = build(NlpTasks(kinds=("cloze",), per_document=4))(document(text))
    assert made and all(int(re.findall(r"number (\d+)", task.text)[0]) > 600 for task in made)


def test_tasks_are_the_same_in_another_process(tasks: list[Document]) -> None:
    assert make() == tasks
    assert make(NlpTasks(seed=1)) != tasks
    script = (
        "from tests.data_pipeline.nlp_tasks.kinds import test_kinds\n"
        "print([repr(task) for task in test_kinds.make()])"
    )
    for seed in ("0", "12345"):
        assert python_output(script, hash_seed=seed) == f"{[repr(task) for task in tasks]}\n"

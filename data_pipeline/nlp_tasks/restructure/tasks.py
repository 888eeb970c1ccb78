"""Conversion of a teacher's reply to a task, or to a drop reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from data_pipeline.config import Restructuring
from data_pipeline.nlp_tasks.kinds import rendering, templates
from data_pipeline.nlp_tasks.kinds.source_text import NlpTask
from data_pipeline.nlp_tasks.restructure import checks, replies
from data_pipeline.nlp_tasks.restructure.prompts import EXAMPLES
from data_pipeline.nlp_tasks.restructure.schemas import violation
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import prose
from data_pipeline.text.seeded_random import seeded

_LETTERS = "ABCDEFGH"
_LABEL = re.compile(r"\(?([A-H])[.):]\s+(?=\S)")
_HEADING = re.compile(r"\A\s*#{1,6} [^\n]+\n+(?=\S)")  # it would give a title task's answer away
_UNDERSCORES = re.compile(r"_{2,}")
_QUOTED = re.compile(r"[\"“‘'](.*)[\"”’']", re.S)

Decide = Callable[[Document], Document | Dropped]


def build(config: Restructuring, count_tokens: Callable[[str], int]) -> Decide:
    """Returns a pure function from a reply to a task of at most `max_tokens` tokens, or a drop.

    A reply is a document whose text is the teacher's output. Its meta has the kind ("task"), the
    "passage" and its "category", and the finish reason ("finish"). The task has the same id and,
    like the tasks of rules, its answer, which is the end of its text ("answer").

    Args:
      config: the limit, and the seed of the random rendering.
      count_tokens: the number of tokens of a text.
    """

    def decide(reply: Document) -> Document | Dropped:
        kind = reply.meta["task"]
        passage = checks.SourcePassage(reply.meta["passage"], reply.meta["category"])
        item = parse(reply, kind)
        if isinstance(item, Dropped):
            return item
        item = normalize(kind, item)
        if failure := checks.first_failure(kind, item, passage):
            return Dropped(reply, *failure)
        if any(item == normalize(kind, example) for _, example in EXAMPLES[kind]):
            return Dropped(reply, "copied_example", {})
        random_ = seeded(config.seed, "render", reply.id)
        tokens = []
        for task in renderings(kind, item, passage.text, random_):
            tokens.append(count_tokens(task.text))
            if tokens[-1] <= config.max_tokens:
                return _document(reply, task, config)
        evidence = {"tokens": min(tokens), "max_tokens": config.max_tokens}
        return Dropped(reply, "too_many_tokens", evidence)

    return decide


def parse(reply: Document, kind: str) -> dict[str, Any] | Dropped:
    """Returns the only object of a reply that matches the schema of its kind, or a drop."""
    values = replies.objects(reply.text)
    if not values:
        is_truncated = reply.meta["finish"] == "length"
        reason = "reply_cut" if is_truncated else "invalid_json"
        return Dropped(reply, reason, {"finish": reply.meta["finish"]})
    valid = [value for value in values if violation(kind, value) is None]
    if not valid:
        first = violation(kind, values[0])
        assert first is not None
        return Dropped(reply, "wrong_schema", first._asdict())
    if len(valid) > 1:
        return Dropped(reply, "several_answers", {"answers": len(valid)})
    return valid[0]


def normalize(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """Removes surrounding whitespace, option labels and quotes.

    >>> options = ["A) tin", "B) lead", "C) zinc", "D) iron"]
    >>> normalize("multiple_choice", {"options": options, "answer": "C"})
    {'options': ['tin', 'lead', 'zinc', 'iron'], 'answer': 'zinc'}
    """
    item = {key: _stripped(value) for key, value in item.items()}
    if kind == "multiple_choice":
        item |= _without_labels(item["options"], item["answer"])
    elif kind == "cloze":
        item["sentence"] = _UNDERSCORES.sub(rendering.BLANK, item["sentence"])
    elif kind == "title":
        if match := _QUOTED.fullmatch(item["title"]):
            item["title"] = match[1].strip()
        item["title"] = item["title"].removesuffix(".")
    return item


def _without_labels(options: list[str], answer: str) -> dict[str, Any]:
    """Returns the options without their letters, and the option that the answer names."""
    letters = _LETTERS[: len(options)]
    labels = "".join(match[1] if (match := _LABEL.match(option)) else "" for option in options)
    if labels == letters:
        unlabeled = [_LABEL.sub("", option, count=1) for option in options]
        by_labeled = dict(zip(options, unlabeled, strict=True))
        options, answer = unlabeled, by_labeled.get(answer, answer)
    letter = answer.strip("().: ")
    if answer not in options and len(letter) == 1 and letter in letters:
        answer = options[letters.index(letter)]
    return {"options": options, "answer": answer}


def _stripped(value: Any) -> Any:
    """Returns a text, or each text of a list, without surrounding whitespace."""
    if isinstance(value, list):
        return [_stripped(entry) for entry in value]
    return value.strip() if isinstance(value, str) else value


def renderings(kind: str, item: dict[str, Any], text: str, random_: random.Random) -> list[NlpTask]:
    """Returns renderings of a task: a random one first, then a shorter one if there is any.

    Args:
      kind: the kind of the task.
      item: its normalized object.
      text: the passage.
      random_: selects templates, and whether the passage is shown if it need not be.
    """
    if kind in ("question_answering", "multiple_choice", "true_false"):
        question = item["statement"] if kind == "true_false" else item["question"]
        texts = [question, *item.get("options", []), item.get("reason", item.get("answer", ""))]
        # The teacher's own flag is not trusted if a text refers to the passage.
        refers = not prose.stands_alone(question) or any(map(checks.refers_to_passage, texts))
        stands_alone = not item["needs_passage"] and not refers
        contexts = [text, ""] if stands_alone else [text]
        if stands_alone and random_.random() < 0.5:
            contexts = [""]
        return [_with_context(kind, item, context, random_) for context in contexts]
    if kind == "cloze":
        return _cloze_renderings(item, text, random_)
    if kind == "summary":
        return [rendering.summary(text, item["summary"], random_)]
    if kind == "paraphrase":
        return [rendering.paraphrase(item["sentence"], item["paraphrase"], random_)]
    if kind == "keywords":
        return [rendering.keywords(text, item["keywords"], random_)]
    return [rendering.title(_HEADING.sub("", text), item["title"], random_)]


def _with_context(kind: str, item: dict[str, Any], context: str, random_: random.Random) -> NlpTask:
    """Renders a question, a choice or a statement; `context` is the passage, or "" without it."""
    if kind == "question_answering":
        return rendering.question(item["question"], item["answer"], context, random_)
    if kind == "true_false":
        statement, verdict, reason = item["statement"], item["verdict"], item["reason"]
        return rendering.true_false(statement, verdict, reason, context, random_)
    wrong = [option for option in item["options"] if option != item["answer"]]
    fields = {"question": item["question"]} | ({"context": context} if context else {})
    templates_ = templates.CHOICE_WITH_TEXT if context else templates.CHOICE_ALONE
    return rendering.choice(templates_, item["answer"], wrong, random_, **fields)


def _cloze_renderings(item: dict[str, Any], text: str, random_: random.Random) -> list[NlpTask]:
    """Returns the cloze sentence alone and, maybe first, inside its passage.

    The passage is not shown if it contains the answer elsewhere.
    """
    sentence, answer = item["sentence"], item["answer"]
    tasks = [rendering.cloze(sentence, answer, random_)]
    match = checks.find(sentence.replace(rendering.BLANK, answer), text)
    assert match is not None
    before, after = text[: match.start()], text[match.end() :]
    if checks.find(answer, f"{before} {after}", whole_words=True) is None:
        inside = rendering.cloze(f"{before}{sentence}{after}", answer, random_)
        if random_.random() < 0.5 or not prose.stands_alone(sentence):
            tasks.insert(0, inside)
    return tasks


def _document(reply: Document, task: NlpTask, config: Restructuring) -> Document:
    """Returns a task as a document with the id of its reply."""
    inherited = ("task", "from", "from_source", "topic")
    meta = {key: reply.meta[key] for key in inherited if key in reply.meta}
    return Document(reply.id, task.text, config.source, "tasks", meta | {"answer": task.answer})

"""From a teacher's reply to a task in natural language, or to the reason why there is none."""

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
from data_pipeline.nlp_tasks.restructure.schemas import breach
from data_pipeline.storage.document import Document, Dropped
from data_pipeline.text import prose
from data_pipeline.text.seeded_random import seeded

_LETTERS = "ABCDEFGH"
_LABEL = re.compile(r"\(?([A-H])[.):]\s+(?=\S)")
_HEADING = re.compile(r"\A\s*#{1,6} [^\n]+\n+(?=\S)")  # that a task for a title must not show
_RUN = re.compile(r"_{2,}")
_QUOTED = re.compile(r"[\"“‘'](.*)[\"”’']", re.S)

Decide = Callable[[Document], Document | Dropped]


def build(config: Restructuring, count_tokens: Callable[[str], int]) -> Decide:
    """A pure function from a reply to a task of at most `config.max_tokens` tokens, or a drop.

    A reply is a document whose text is what the teacher wrote and whose meta tells what for: the
    kind ("task"), the "passage" and its "category", how the answer ended ("finish"). The task keeps
    its id and, as those that are made by rules, tells its "answer", the end of its text.
    """

    def decide(reply: Document) -> Document | Dropped:
        kind = reply.meta["task"]
        passage = checks.SourcePassage(reply.meta["passage"], reply.meta["category"])
        item = read(reply, kind)
        if isinstance(item, Dropped):
            return item
        item = tidy(kind, item)
        if objection := checks.object_to(kind, item, passage):
            return Dropped(reply, *objection)
        if any(item == tidy(kind, example) for _, example in EXAMPLES[kind]):
            return Dropped(reply, "copied_example", {})
        random_ = seeded(config.seed, "render", reply.id)
        tokens = []
        for task in forms(kind, item, passage.text, random_):
            tokens.append(count_tokens(task.text))
            if tokens[-1] <= config.max_tokens:
                return _document(reply, task, config)
        return Dropped(reply, "too_many_tokens", {"tokens": min(tokens), "most": config.max_tokens})

    return decide


def read(reply: Document, kind: str) -> dict[str, Any] | Dropped:
    """The one object of a reply that fits the schema of its kind."""
    found = replies.objects(reply.text)
    if not found:
        cut = reply.meta["finish"] == "length"
        return Dropped(
            reply, "reply_cut" if cut else "invalid_json", {"finish": reply.meta["finish"]}
        )
    fitting = [value for value in found if breach(kind, value) is None]
    if not fitting:
        wrong = breach(kind, found[0])
        assert wrong is not None
        return Dropped(reply, "wrong_schema", wrong._asdict())
    if len(fitting) > 1:
        return Dropped(reply, "several_answers", {"answers": len(fitting)})
    return fitting[0]


def tidy(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """The same without white space, labels and quotes around it.

    >>> options = ["A) tin", "B) lead", "C) zinc", "D) iron"]
    >>> tidy("multiple_choice", {"options": options, "answer": "C"})
    {'options': ['tin', 'lead', 'zinc', 'iron'], 'answer': 'zinc'}
    """
    item = {key: _stripped(value) for key, value in item.items()}
    if kind == "multiple_choice":
        item |= _unlabelled(item["options"], item["answer"])
    elif kind == "cloze":
        item["sentence"] = _RUN.sub(rendering.BLANK, item["sentence"])
    elif kind == "title":
        if match := _QUOTED.fullmatch(item["title"]):
            item["title"] = match[1].strip()
        item["title"] = item["title"].removesuffix(".")
    return item


def _unlabelled(options: list[str], answer: str) -> dict[str, Any]:
    """Options without the letters before them, and the option that the answer names."""
    letters = _LETTERS[: len(options)]
    labels = "".join(match[1] if (match := _LABEL.match(option)) else "" for option in options)
    if labels == letters:
        bare = [_LABEL.sub("", option, count=1) for option in options]
        by_name = dict(zip(options, bare, strict=True))
        options, answer = bare, by_name.get(answer, answer)
    letter = answer.strip("().: ")
    if answer not in options and len(letter) == 1 and letter in letters:
        answer = options[letters.index(letter)]
    return {"options": options, "answer": answer}


def _stripped(value: Any) -> Any:
    if isinstance(value, list):
        return [_stripped(entry) for entry in value]
    return value.strip() if isinstance(value, str) else value


def forms(kind: str, item: dict[str, Any], text: str, random_: random.Random) -> list[NlpTask]:
    """The task in words: as chosen by chance, then shorter where there is a shorter way."""
    if kind in ("question_answering", "multiple_choice", "true_false"):
        asked = item["statement"] if kind == "true_false" else item["question"]
        said = [asked, *item.get("options", []), item.get("reason", item.get("answer", ""))]
        leans = not prose.stands_alone(asked) or any(map(checks.refers, said))
        alone = not item["needs_passage"] and not leans
        contexts = [text, ""] if alone else [text]
        if alone and random_.random() < 0.5:
            contexts = [""]
        return [_asked(kind, item, context, random_) for context in contexts]
    if kind == "cloze":
        return _gapped(item, text, random_)
    if kind == "summary":
        return [rendering.summary(text, item["summary"], random_)]
    if kind == "paraphrase":
        return [rendering.paraphrase(item["sentence"], item["paraphrase"], random_)]
    if kind == "keywords":
        return [rendering.keywords(text, item["keywords"], random_)]
    return [rendering.title(_HEADING.sub("", text), item["title"], random_)]


def _asked(kind: str, item: dict[str, Any], context: str, random_: random.Random) -> NlpTask:
    if kind == "question_answering":
        return rendering.question(item["question"], item["answer"], context, random_)
    if kind == "true_false":
        statement, verdict, reason = item["statement"], item["verdict"], item["reason"]
        return rendering.true_false(statement, verdict, reason, context, random_)
    wrong = [option for option in item["options"] if option != item["answer"]]
    parts = {"question": item["question"]} | ({"context": context} if context else {})
    templates_ = templates.CHOICE_WITH_TEXT if context else templates.CHOICE_ALONE
    return rendering.choice(templates_, item["answer"], wrong, random_, **parts)


def _gapped(item: dict[str, Any], text: str, random_: random.Random) -> list[NlpTask]:
    """The sentence within its passage, if that does not give the answer away, or alone."""
    sentence, answer = item["sentence"], item["answer"]
    made = [rendering.cloze(sentence, answer, random_)]
    where = checks.find(sentence.replace(rendering.BLANK, answer), text)
    assert where is not None
    before, after = text[: where.start()], text[where.end() :]
    if checks.find(answer, f"{before} {after}", whole_words=True) is None:
        inside = rendering.cloze(f"{before}{sentence}{after}", answer, random_)
        if random_.random() < 0.5 or not prose.stands_alone(sentence):
            made.insert(0, inside)
    return made


def _document(reply: Document, task: NlpTask, config: Restructuring) -> Document:
    kept = ("task", "from", "from_source", "topic")
    meta = {key: reply.meta[key] for key in kept if key in reply.meta}
    return Document(reply.id, task.text, config.source, "tasks", meta | {"answer": task.answer})

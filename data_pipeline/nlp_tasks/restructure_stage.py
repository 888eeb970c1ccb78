"""D3 by a teacher: passages are turned into exercises, which are checked and put into words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.config import Recipe, Restructuring, Tier
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.shard_output import ShardOutput, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.mixture.tokenizer import open_tokenizer
from data_pipeline.nlp_tasks.restructure import requests, tasks
from data_pipeline.nlp_tasks.restructure.prompts import SYSTEM
from data_pipeline.nlp_tasks.restructure.schemas import SCHEMAS
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_rows
from data_pipeline.teacher import wire
from data_pipeline.teacher.ask_shard import ask_shard
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest
from data_pipeline.topics.stage import NAMES

TOPIC_TERMS = 5  # of a topic, that a prompt names


@dataclass(frozen=True, slots=True)
class TopicFiles:
    """The topics of a shard's documents: a description of each topic, and a table by document.

    `table` is None for a shard that has none, whose documents may name their topics themselves.
    """

    names: ShardFile
    table: ShardFile | None


@dataclass(frozen=True, slots=True)
class RestructureRequestSettings:
    """The settings of a worker that sends requests; `cache` is the folder of replies."""

    restructuring: Restructuring
    cache: Path


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """The settings of a worker that makes tasks from replies; `tokenizer` counts their tokens."""

    restructuring: Restructuring
    tokenizer: str


def restructure(
    recipe: Recipe,
    runner: Runner,
    documents: Sequence[Directory],
    cache: Path,
    topics: Directory | None = None,
) -> Directory:
    """D3: tasks in natural language that a teacher made from passages of these documents.

    Three stages: what is asked, what the teacher says, what is made of it. Only the second one
    needs the teacher; it has one shard at a time, so that the teacher's limits hold.

    Args:
      cache: the folder of the teacher's answers, unless its configuration names another one.
      topics: the table of some of the documents' topics (topics/stage.py), which prompts name.

    Raises:
      ValueError: the source's name is taken.
      TeacherError: there is no use in asking on, or too much of a shard got no answer; what was
        answered is kept.
    """
    config = recipe.restructuring
    tiers = {config.source: Tier.D3.value}
    if any(tiers.keys() & directory.counts().keys() for directory in documents):
        raise ValueError(f"restructuring.source: {config.source!r} is the name of another source")
    known = [topics, _model_of(topics, runner)] if topics is not None else []
    shards = [
        task.with_side(_topics_of(task.shard, directory, known))
        for directory in documents
        for task in one_task_per_shard(directory, config)
    ]
    asked = runner.stage(
        "restructuring_requests",
        write_requests,
        [
            replace(task, tiers=task.tiers | tiers, shard=f"{config.source}-{number:05d}")
            for number, task in enumerate(shards)
        ],
        config=_settings(config, "kinds categories per_document per_passage min_words max_words"),
        inputs=[*documents, *known],
    )
    told = runner.stage(
        "restructure",
        ask_teacher,
        one_task_per_shard(asked, RestructureRequestSettings(config, cache)),
        config=[wire.identity(config.teacher), config.answer_tokens],
        inputs=[asked],
        max_parallel=1,
    )
    return runner.stage(
        "restructured_tasks",
        write_tasks,
        one_task_per_shard(told, ParseSettings(config, recipe.baking.tokenizer)),
        config=_settings(config, "max_tokens"),
        inputs=[told],
        extra=open_tokenizer(recipe.baking.tokenizer).sha256,
    )


def _settings(config: Restructuring, names: str) -> dict[str, object]:
    """The part of the configuration that a stage depends on."""
    return {name: getattr(config, name) for name in ("source", "seed", *names.split())}


def _model_of(topics: Directory, runner: Runner) -> Directory:
    """Where the topics are described that a table tells by number."""
    inputs = topics.manifest["inputs"]
    return next(
        directory
        for directory in runner.directories
        if directory.path.name in inputs and directory.manifest["stage"] == "topic_model"
    )


def _topics_of(shard: str, directory: Directory, known: Sequence[Directory]) -> TopicFiles | None:
    """What tells the topics of a shard's documents: the names of topics, and a table if it has one.

    A document without an entry in a table may tell the number of its topic itself, as D2 does.
    """
    if not known:
        return None
    topics, model = known
    table = None
    if directory.path.name in topics.manifest["inputs"]:
        table = next(file for file in topics.files() if file.name == shard)
    return TopicFiles(model.file(NAMES), table)


def write_requests(task: Task[Restructuring, TopicFiles | None]) -> Ledger:
    """Prompts about passages of the documents of D1 and D2."""
    make = requests.build(task.settings)
    topic_of = _topic_names(task.side)
    with ShardOutput(task, "restructuring_requests") as output:
        for document in documents_of(task):
            if task.tiers[document.source] == Tier.D3.value:
                continue
            for request in make(document, topic_of(document)):
                output.count_input(request)
                output.write(request)
    return output.ledger


def _topic_names(topics: TopicFiles | None) -> Callable[[Document], str]:
    """What a document is about in a few terms, or "" where nobody knows."""
    if topics is None:
        return lambda document: ""
    with topics.names.verified() as path:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = {row["topic"]: ", ".join(row["terms"][:TOPIC_TERMS]) for row in rows}
    numbers: dict[str, int] = {}
    if topics.table is not None:
        with topics.table.verified() as path:
            numbers = {row["id"]: row["topic"] for row in read_rows(path)}
    return lambda document: names.get(numbers.get(document.id, document.meta.get("topic")), "")


def ask_teacher(task: Task[RestructureRequestSettings, None]) -> Ledger:
    """The teacher's replies, each with what it was asked for; the reply is the document's text."""
    config = task.settings.restructuring

    def request_of(document: Document) -> TeacherRequest:
        messages = (("system", SYSTEM), ("user", document.text))
        schema = SCHEMAS[document.meta["task"]]
        return TeacherRequest(document.id, messages, config.answer_tokens, schema)

    return ask_shard(task, "restructure", config.teacher, task.settings.cache, request_of, _told)


def _told(document: Document, reply: TeacherReply) -> Document:
    usage = {"finish": reply.finish, "tokens": reply.completion_tokens}
    return replace(document, meta=document.meta | usage)


def write_tasks(task: Task[ParseSettings, None]) -> Ledger:
    """Replies to tasks; what is no good task is set aside with the reply, and why."""
    encode = open_tokenizer(task.settings.tokenizer).encode
    decide = tasks.build(task.settings.restructuring, lambda text: len(encode(text)))
    kinds: dict[str, Counter[str]] = {}
    with ShardOutput(task, "restructured_tasks") as output:
        for reply in documents_of(task):
            answer = decide(reply)
            output.count_input(reply)
            output.write(answer)
            became = "kept" if isinstance(answer, Document) else answer.reason
            kinds.setdefault(reply.meta["task"], Counter())[became] += 1
        output.ledger.extra["kinds"] = {kind: dict(kinds[kind]) for kind in sorted(kinds)}
    return output.ledger

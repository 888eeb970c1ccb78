"""Tasks that a teacher writes from passages (tier D3): requests, replies, checked tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.config import Recipe, Restructuring, Tier
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
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

TOPIC_TERMS = 5  # terms of a topic in a prompt


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
    """Returns the tasks that a teacher writes from passages of documents.

    Three stages write requests, replies and tasks. Only the second one uses the teacher. It
    processes one shard at a time, so that the teacher's limits apply to the whole run.

    Args:
      recipe: the recipe.
      runner: runs the stages.
      documents: the decontaminated documents of tiers D1 and D2.
      cache: folder of the teacher's replies, unless its configuration names one.
      topics: the table of topics (topics/stage.py) of some of the documents, for their prompts.

    Raises:
      ValueError: the documents already have a source of this name.
      TeacherError: the teacher cannot be used, or too many requests failed; replies are kept.
    """
    config = recipe.restructuring
    topic_inputs = [topics, _model_of(topics, runner)] if topics is not None else []
    prompts = runner.run(
        StageSpec(
            "restructuring_requests",
            write_requests,
            _prompt_tasks(config, documents, topic_inputs),
            config=_settings(
                config, "kinds categories per_document per_passage min_words max_words"
            ),
            inputs=[*documents, *topic_inputs],
        )
    )
    replies = runner.run(
        StageSpec(
            "restructure",
            request_shard,
            one_task_per_shard(prompts, RestructureRequestSettings(config, cache)),
            config=[wire.identity(config.teacher), config.answer_tokens],
            inputs=[prompts],
            max_parallel=1,
        )
    )
    return runner.run(
        StageSpec(
            "restructured_tasks",
            write_tasks,
            one_task_per_shard(replies, ParseSettings(config, recipe.baking.tokenizer)),
            config=_settings(config, "max_tokens"),
            inputs=[replies],
            extra=open_tokenizer(recipe.baking.tokenizer).sha256,
        )
    )


def _prompt_tasks(
    config: Restructuring, documents: Sequence[Directory], topic_inputs: Sequence[Directory]
) -> list[Task[Restructuring, TopicFiles | None]]:
    """Returns a task per shard of all documents; shards are numbered over all directories.

    Args:
      config: the section of the recipe.
      documents: the directories of documents.
      topic_inputs: the table of topics and the topic model, or nothing.

    Raises:
      ValueError: the documents already have a source with the name of the tasks' source.
    """
    tiers = {config.source: Tier.D3.value}
    if any(tiers.keys() & directory.counts().keys() for directory in documents):
        raise ValueError(
            f"restructuring.source: got {config.source!r}, but documents already have a source of "
            "this name; choose another name"
        )
    shards = [
        task.with_side(_topics_of(task.shard, directory, topic_inputs))
        for directory in documents
        for task in one_task_per_shard(directory, config)
    ]
    return [
        replace(task, tiers=task.tiers | tiers, shard=f"{config.source}-{number:05d}")
        for number, task in enumerate(shards)
    ]


def _settings(config: Restructuring, names: str) -> dict[str, object]:
    """Returns the settings that determine a stage's address: `names`, the source and the seed."""
    return {name: getattr(config, name) for name in ("source", "seed", *names.split())}


def _model_of(topics: Directory, runner: Runner) -> Directory:
    """Returns the stage with the topic model by which the table was computed."""
    inputs = topics.manifest["inputs"]
    return next(
        directory
        for directory in runner.directories
        if directory.path.name in inputs and directory.manifest["stage"] == "topic_model"
    )


def _topics_of(
    shard: str, directory: Directory, topic_inputs: Sequence[Directory]
) -> TopicFiles | None:
    """Returns the topic files of a shard, or None without topics.

    Args:
      shard: name of the shard.
      directory: its directory. Its shards have tables if the table of topics was made from it.
      topic_inputs: the table of topics and the topic model, or nothing.
    """
    if not topic_inputs:
        return None
    topics, model = topic_inputs
    table = None
    if directory.path.name in topics.manifest["inputs"]:
        table = next(file for file in topics.files() if file.name == shard)
    return TopicFiles(model.file(NAMES), table)


def write_requests(task: Task[Restructuring, TopicFiles | None]) -> Ledger:
    """Writes prompts about passages of the documents of tiers D1 and D2."""
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
    """Returns a function from a document to the terms of its topic, "" if it has none.

    The table determines the topic of a document. One without a row may have it in its meta, as
    synthetic texts do.
    """
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


def request_shard(task: Task[RestructureRequestSettings, None]) -> Ledger:
    """Writes the replies to a shard of prompts: the text is the reply, meta that of the request."""
    config = task.settings.restructuring

    def request_of(document: Document) -> TeacherRequest:
        messages = (("system", SYSTEM), ("user", document.text))
        schema = SCHEMAS[document.meta["task"]]
        return TeacherRequest(document.id, messages, config.answer_tokens, schema)

    return ask_shard(
        task, "restructure", config.teacher, task.settings.cache, request_of, _with_reply
    )


def _with_reply(document: Document, reply: TeacherReply) -> Document:
    """Returns a request with the finish reason and the tokens of its reply."""
    usage = {"finish": reply.finish, "tokens": reply.completion_tokens}
    return replace(document, meta=document.meta | usage)


def write_tasks(task: Task[ParseSettings, None]) -> Ledger:
    """Writes the tasks of a shard of replies; a reply that fails a check is dropped.

    The ledger's extra counts the replies by kind and by what became of them: "kept" or a reason.
    """
    encode = open_tokenizer(task.settings.tokenizer).encode
    decide = tasks.build(task.settings.restructuring, lambda text: len(encode(text)))
    kinds: dict[str, Counter[str]] = {}
    with ShardOutput(task, "restructured_tasks") as output:
        for reply in documents_of(task):
            decision = decide(reply)
            output.count_input(reply)
            output.write(decision)
            outcome = "kept" if isinstance(decision, Document) else decision.reason
            kinds.setdefault(reply.meta["task"], Counter())[outcome] += 1
        output.ledger.extra["kinds"] = {kind: dict(kinds[kind]) for kind in sorted(kinds)}
    return output.ledger

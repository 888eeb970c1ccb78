"""Synthesis of tier D2: prompts with passages, replies of a teacher, and output filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.cleaning.personal_information import replace_personal_information
from data_pipeline.config import CleaningProfile, OutputFilters, Recipe, Synthesis
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner, StageSpec
from data_pipeline.execution.shard_output import ShardOutput, documents_in, documents_of
from data_pipeline.execution.task import Task, one_task_per_shard
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import numbered
from data_pipeline.synthesis import output_filters
from data_pipeline.synthesis import prompts as choice
from data_pipeline.synthesis.seeds_stage import draw_seeds, tiers_of
from data_pipeline.teacher import wire
from data_pipeline.teacher.ask_shard import ask_shard
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest


@dataclass(frozen=True, slots=True)
class SynthesisRequestSettings:
    """The settings of a worker that sends requests; `cache` is the folder of replies."""

    synthesis: Synthesis
    cache: Path


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """The settings of a worker that filters replies.

    `profiles`: by category, the rules that replace personal information.
    """

    output_filters: OutputFilters
    profiles: dict[str, CleaningProfile]


@dataclass(frozen=True, slots=True)
class FilterInputs:
    """The file that a worker reads besides the replies: their prompts, in the same order."""

    prompts: ShardFile


def synthesize(
    recipe: Recipe, runner: Runner, documents: Directory, topics: Directory, cache: Path
) -> Directory:
    """Returns the texts of a teacher that pass the output filters, one source per category.

    Args:
      recipe: the recipe.
      runner: runs the stages.
      documents: the decontaminated documents, from which passages are cut.
      topics: the table of the documents' topics (topics/stage.py).
      cache: folder of the teacher's replies, unless its configuration names one.

    Raises:
      ValueError: no document can provide a passage.
      TeacherError: the teacher cannot be used, or too many requests failed; replies are kept.
    """
    seeds = draw_seeds(recipe, runner, documents, topics)
    if not seeds.counts():
        raise ValueError(
            "synthesis: no document can provide a passage; expected documents of tier D1 with at "
            f"least {recipe.synthesis.min_passage_words} words (synthesis.min_passage_words) in a "
            f"category that has a weight ({', '.join(sorted(recipe.synthesis.weights))})"
        )
    prompts = write_prompts(recipe, runner, seeds)
    replies = request_texts(recipe, runner, prompts, cache)
    return filter_replies(recipe, runner, prompts, replies)


# ---- prompts


def write_prompts(recipe: Recipe, runner: Runner, seeds: Directory) -> Directory:
    """Writes the prompts in shards of at least `shard_requests`, for review before any cost."""
    config = recipe.synthesis
    files = [
        (file, sum(counts.kept for counts in ledger.sources.values()))
        for file, ledger in zip(seeds.files(), seeds.ledgers(), strict=True)
    ]
    groups: list[list[int]] = []  # numbers of the files of each shard
    size = config.shard_requests
    for number, (_, requests) in enumerate(files):
        if size >= config.shard_requests:
            groups.append([])
            size = 0
        groups[-1].append(number)
        size += requests
    return runner.run(
        StageSpec(
            "prompts",
            write_prompt_shard,
            [
                Task(
                    numbered(config.source, number, len(groups)),
                    config,
                    None,
                    inputs=tuple(files[k][0] for k in group),
                    tiers=tiers_of(config),
                    size=sum(files[k][1] for k in group),
                )
                for number, group in enumerate(groups)
            ],
            config=[config.shard_requests, config.seed],
            inputs=[seeds],
        )
    )


def write_prompt_shard(task: Task[Synthesis, None]) -> Ledger:
    """Writes documents whose text is the prompt; meta["passage"] is the passage's [start, end]."""
    with ShardOutput(task, "prompts") as output:
        for seed in documents_of(task):
            output.count_input(seed)
            prompt = choice.choose(
                choice.all_prompts()[seed.category],
                task.settings.seed,
                seed.meta["from"],
                seed.meta["number"],
            )
            text, start, end = choice.render(prompt, seed.text)
            meta = seed.meta | {"prompt": prompt.id, "passage": [start, end]}
            output.write(replace(seed, text=text, meta=meta))
    return output.ledger


# ---- replies; the folder of the stage is named "synthesise"


def request_texts(recipe: Recipe, runner: Runner, prompts: Directory, cache: Path) -> Directory:
    """Returns the replies as documents; a request without a reply is dropped.

    Shards are processed one at a time, so that the teacher's limits apply to the whole run. Cached
    replies are not requested again, so an interrupted run resumes where it stopped.

    Args:
      recipe: the recipe.
      runner: runs the stage.
      prompts: the prompts.
      cache: folder of the teacher's replies, unless its configuration names one.

    Raises:
      TeacherError: the share of failed requests of a shard exceeds `teacher.max_unanswered`.
    """
    config = recipe.synthesis
    return runner.run(
        StageSpec(
            "synthesise",
            request_shard,
            one_task_per_shard(prompts, SynthesisRequestSettings(config, cache)),
            config=[config.max_tokens, wire.identity(config.teacher)],
            inputs=[prompts],
            max_parallel=1,
        )
    )


def request_shard(task: Task[SynthesisRequestSettings, None]) -> Ledger:
    """Writes the replies to a shard of prompts; meta has the model, finish reason and tokens."""
    config = task.settings.synthesis

    def request_of(document: Document) -> TeacherRequest:
        return TeacherRequest(document.id, (("user", document.text),), config.max_tokens)

    def with_reply(document: Document, reply: TeacherReply) -> Document:
        reply_meta = {
            "model": config.teacher.model,
            "finish": reply.finish,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }
        meta = {name: value for name, value in document.meta.items() if name != "passage"}
        return replace(document, meta=meta | reply_meta)

    return ask_shard(
        task, "synthesise", config.teacher, task.settings.cache, request_of, with_reply
    )


# ---- output filters; the folder of the stage is named "gates"


def filter_replies(
    recipe: Recipe, runner: Runner, prompts: Directory, replies: Directory
) -> Directory:
    """Drops replies that fail an output filter, and replaces personal information in the others.

    Models reproduce personal information and credentials of their training data. They are replaced
    by the cleaning rules of the text's category.

    Args:
      recipe: the recipe.
      runner: runs the stage.
      prompts: the prompts.
      replies: the replies, in shards with the same names.
    """
    settings = FilterSettings(recipe.synthesis.output_filters, _profiles(recipe))
    prompt_files = {file.name: file for file in prompts.files()}
    return runner.run(
        StageSpec(
            "gates",
            filter_shard,
            [
                task.with_side(FilterInputs(prompt_files[task.shard]))
                for task in one_task_per_shard(replies, settings)
            ],
            config=settings,
            inputs=[prompts, replies],
        )
    )


def _profiles(recipe: Recipe) -> dict[str, CleaningProfile]:
    """Returns the cleaning profile by category; {} if personal information is not replaced."""
    config = recipe.cleaning
    categories = recipe.synthesis.weights if config.replace_personal_information else ()
    return {name: config.profiles.get(name, CleaningProfile.PROSE) for name in categories}


def filter_shard(task: Task[FilterSettings, FilterInputs]) -> Ledger:
    """Writes the replies that pass; the ledger's `changed` counts repairs and replacements.

    Replies are in the order of their prompts. A prompt whose request failed has no reply.
    """
    output_filter = output_filters.build(task.settings.output_filters)
    prompts = documents_in([task.side.prompts])
    with ShardOutput(task, "gates") as output:
        for reply in documents_of(task):
            prompt = next(p for p in prompts if p.id == reply.id)
            rendered = choice.RenderedPrompt(prompt.text, *prompt.meta["passage"])
            passage = rendered.text[rendered.start : rendered.end]
            output.count_input(reply)
            context = output_filters.PromptContext(passage, rendered.instruction)
            decision = output_filter(reply, reply.meta["finish"], context)
            if isinstance(decision, Document):
                changed = output.ledger.of(decision.source).changed
                changed.update(decision.meta.pop("repaired", ()))
                if profile := task.settings.profiles.get(decision.category):
                    text, replaced = replace_personal_information(decision.text, profile)
                    decision = replace(decision, text=text)
                    changed.update(replaced)
            output.write(decision)
    return output.ledger

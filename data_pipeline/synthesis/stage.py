"""D2: passages become prompts, a teacher answers, and gates let pass what is worth reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.cleaning.personal_information import replace_personal_information
from data_pipeline.config import CleaningProfile, OutputFilters, Recipe, Synthesis
from data_pipeline.execution.manifest import Directory, Ledger, ShardFile
from data_pipeline.execution.runner import Runner
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
    """The documents that a teacher wrote and the gates let pass; a source a category, tier D2.

    `cache`: the teacher's folder of answers, unless its configuration names one.
    Raises ValueError where no document can give a passage.
    """
    seeds = draw_seeds(recipe, runner, documents, topics)
    if not seeds.counts():
        raise ValueError(
            "synthesis found no passage: it needs documents of tier D1 with at least "
            f"{recipe.synthesis.min_passage_words} words (synthesis.min_passage_words) in a "
            f"category that has a weight ({', '.join(sorted(recipe.synthesis.weights))})"
        )
    asked = write_prompts(recipe, runner, seeds)
    answers = ask_teacher(recipe, runner, asked, cache)
    return pass_gates(recipe, runner, asked, answers)


# ---- prompts


def write_prompts(recipe: Recipe, runner: Runner, seeds: Directory) -> Directory:
    """What will be asked, in shards of `shard_requests`: to be read before anything is paid."""
    config = recipe.synthesis
    files = [
        (file, sum(counts.kept for counts in ledger.sources.values()))
        for file, ledger in zip(seeds.files(), seeds.ledgers(), strict=True)
    ]
    parts: list[list[int]] = []
    size = config.shard_requests
    for number, (_, requests) in enumerate(files):
        if size >= config.shard_requests:
            parts.append([])
            size = 0
        parts[-1].append(number)
        size += requests
    return runner.stage(
        "prompts",
        write_prompts_of_part,
        [
            Task(
                numbered(config.source, number, len(parts)),
                config,
                None,
                inputs=tuple(files[k][0] for k in part),
                tiers=tiers_of(config),
                size=sum(files[k][1] for k in part),
            )
            for number, part in enumerate(parts)
        ],
        config=[config.shard_requests, config.seed],
        inputs=[seeds],
    )


def write_prompts_of_part(task: Task[Synthesis, None]) -> Ledger:
    """A document whose text is the prompt; its meta tells where in it the passage stands."""
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


# ---- answers


def ask_teacher(recipe: Recipe, runner: Runner, asked: Directory, cache: Path) -> Directory:
    """The answers as documents; a request that never got one is dropped, with the reason.

    One shard at a time, so that the limits of the teacher hold for the whole run. What is cached
    is not asked again, so an interrupted run goes on where it was.

    Raises TeacherError where a shard has more such requests than `teacher.max_unanswered`.
    """
    config = recipe.synthesis
    return runner.stage(
        "synthesise",
        ask_for_shard,
        one_task_per_shard(asked, SynthesisRequestSettings(config, cache)),
        config=[config.max_tokens, wire.identity(config.teacher)],
        inputs=[asked],
        max_parallel=1,
    )


def ask_for_shard(task: Task[SynthesisRequestSettings, None]) -> Ledger:
    config = task.settings.synthesis

    def request_of(document: Document) -> TeacherRequest:
        return TeacherRequest(document.id, (("user", document.text),), config.max_tokens)

    def told(document: Document, reply: TeacherReply) -> Document:
        of_reply = {
            "model": config.teacher.model,
            "finish": reply.finish,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }
        meta = {name: value for name, value in document.meta.items() if name != "passage"}
        return replace(document, meta=meta | of_reply)

    return ask_shard(task, "synthesise", config.teacher, task.settings.cache, request_of, told)


# ---- gates


def pass_gates(recipe: Recipe, runner: Runner, asked: Directory, answers: Directory) -> Directory:
    """Without refusals, loops, copies of the passage and the like.

    What looks like personal information or a secret is replaced as cleaning does it, by the rules
    for the text's category: models write such things from memory.
    """
    settings = FilterSettings(recipe.synthesis.output_filters, _replacing(recipe))
    prompts = {file.name: file for file in asked.files()}
    return runner.stage(
        "gates",
        judge_shard,
        [
            task.with_side(FilterInputs(prompts[task.shard]))
            for task in one_task_per_shard(answers, settings)
        ],
        config=settings,
        inputs=[asked, answers],
    )


def _replacing(recipe: Recipe) -> dict[str, CleaningProfile]:
    """The rules of replacement by category; none where cleaning replaces nothing either."""
    config = recipe.cleaning
    categories = recipe.synthesis.weights if config.replace_personal_information else ()
    return {name: config.profiles.get(name, CleaningProfile.PROSE) for name in categories}


def judge_shard(task: Task[FilterSettings, FilterInputs]) -> Ledger:
    """Answers and their prompts stand in one order; a prompt without an answer is passed over.

    What was mended or replaced is counted in `changed`.
    """
    gate = output_filters.build(task.settings.output_filters)
    prompts = documents_in([task.side.prompts])
    with ShardOutput(task, "gates") as output:
        for answer in documents_of(task):
            prompt = next(p for p in prompts if p.id == answer.id)
            text = choice.RenderedPrompt(prompt.text, *prompt.meta["passage"])
            output.count_input(answer)
            asked = output_filters.PromptContext(text.text[text.start : text.end], text.instruction)
            judged = gate(answer, answer.meta["finish"], asked)
            if isinstance(judged, Document):
                changed = output.ledger.of(judged.source).changed
                changed.update(judged.meta.pop("repaired", ()))
                if profile := task.settings.profiles.get(judged.category):
                    cleaned, found = replace_personal_information(judged.text, profile)
                    judged = replace(judged, text=cleaned)
                    changed.update(found)
            output.write(judged)
    return output.ledger

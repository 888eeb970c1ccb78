"""Signatures of each shard, decisions over all of them, then each shard again."""

from __future__ import annotations

import json
from dataclasses import replace

from data_pipeline.books import Books, account_of, add_file, documents_in, documents_of
from data_pipeline.config import Deduplication, Recipe
from data_pipeline.curation import dedup
from data_pipeline.document import Document
from data_pipeline.manifest import Directory, Ledger, file_sha256
from data_pipeline.runner import Runner, Task, one_task_a_shard


def deduplicate(recipe: Recipe, runner: Runner, before: Directory) -> Directory:
    """Signatures of each shard, decisions over all of them, then each shard again."""
    signatures = runner.stage(
        "signatures",
        sign_shard,
        one_task_a_shard(before, recipe.dedup),
        config=recipe.dedup,
        inputs=[before],
    )
    source_order = list(before.counts())  # as they first came: the recipe's order
    documents = {file.name: file for file in before.files()}
    duplicates = runner.stage(
        "duplicates",
        find_duplicates,
        [
            Task(
                "all",
                inputs=tuple(signatures.files()),
                config=(recipe.dedup, source_order),
                side=documents,
            )
        ],
        config=[recipe.dedup, source_order],
        inputs=[before, signatures],
    )
    return runner.stage(
        "deduplicate",
        deduplicate_shard,
        [
            replace(task, side={"decisions": duplicates.file(f"shards/{task.shard}.json")})
            for task in one_task_a_shard(before, recipe.dedup)
        ],
        config=None,
        inputs=[before, duplicates],
    )


def sign_shard(task: Task) -> Ledger:
    config: Deduplication = task.config
    ledger = account_of(task)
    path = task.out / "shards" / f"{task.shard}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    dedup.signatures(documents_of(task), config).save(path)
    ledger.files[f"shards/{path.name}"] = file_sha256(path)
    ledger.write(task.out)
    return ledger


def find_duplicates(task: Task) -> Ledger:
    """The one global step: which row of which shard goes, over the signatures of all shards.

    `task.inputs` are the signature files; `task.side` the shards of documents by the same names.
    """
    config: Deduplication
    config, source_order = task.config
    for file in task.inputs:
        file.verify()
    tables = [dedup.Signatures.load(file.path) for file in task.inputs]

    def shingles_of(shard: int, rows: list[int]) -> list[dedup.U64]:
        return dedup.shingles(documents_in([task.side[task.inputs[shard].name]]), rows, config)

    decisions = dedup.find_duplicates(tables, shingles_of, source_order, config)
    ledger = account_of(task)
    for file, decided in zip(task.inputs, decisions, strict=True):
        add_file(ledger, task.out, f"shards/{file.name}.json", json.dumps(decided.to_json()))
    ledger.write(task.out)
    return ledger


def deduplicate_shard(task: Task) -> Ledger:
    task.side["decisions"].verify()
    decided = dedup.Decisions.from_json(json.loads(task.side["decisions"].path.read_text()))
    decide_one = dedup.build(decided)
    with Books(task, "deduplicate") as books:
        for row, document in enumerate(documents_of(task)):
            books.came(document)
            answer = decide_one(row, document)
            if isinstance(answer, Document) and "renamed_from" in answer.meta:
                books.ledger.of(answer.source).changed["duplicate_id"] += 1
            books.settle(answer)
    return books.ledger

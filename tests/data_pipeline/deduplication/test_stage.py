"""The step over files: partitions, workers and shards change what is held, not what comes out."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from data_pipeline.config import Deduplication, Recipe
from data_pipeline.deduplication.stage import deduplicate
from data_pipeline.execution.manifest import CorruptStageError, Directory
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard
from tests.data_pipeline.builders import (
    divided,
    document_files,
    dropped_documents,
    kept_documents,
    runner_at,
    stage_of_documents,
)

SHARDS = 5
STAGES = ("signatures", "links", "groups", "members", "duplicates", "deduplicate")


def corpus() -> list[Document]:
    """Texts with copies, near copies, and one id for several."""
    rng = random.Random(0)
    words = [f"w{k}" for k in range(3000)]
    made = []
    for k in range(150):
        text = " ".join(rng.choices(words, k=rng.randrange(60, 160)))
        made.append(Document(f"web/{k % 130}", text, "web", "web"))
        for copy in range(rng.randrange(3)):
            changed = text.split()
            for _ in range(rng.randrange(3)):
                changed[rng.randrange(len(changed))] = "changed"
            made.append(Document(f"books/{k}.{copy}", " ".join(changed), "books", "books"))
    rng.shuffle(made)
    return made


def run(root: Path, partitions: int, workers: int = 0, seed: int = 0, **more: str) -> Directory:
    """Deduplicates the corpus, shuffled if there is a seed; `workers`: 0 is this process."""
    documents = corpus()
    if seed:
        random.Random(seed).shuffle(documents)
    recipe = Recipe(dedup=Deduplication(partitions=partitions))
    with runner_at(root, workers) as runner:
        read = stage_of_documents(runner, divided(documents, SHARDS))
        return deduplicate(recipe, runner, read, **more)


def documents(directory: Directory) -> list[str]:
    """All that was kept and dropped, as lines, in an order of its own."""
    lines = [[d.id, d.text] for d in kept_documents(directory)]
    lines += [
        [d.document.id, d.document.text, d.reason, str(d.evidence)]
        for d in dropped_documents(directory)
    ]
    return sorted(map(json.dumps, lines))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    return run(tmp_path_factory.mktemp("single"), partitions=1)


@pytest.mark.slow
def test_partitions_and_workers_do_not_change_a_byte(single: Directory, tmp_path: Path) -> None:
    many = run(tmp_path, partitions=7, workers=3)
    assert document_files(many) == document_files(single)
    total = single.counts()
    assert total["web"].changed["duplicate_id"] > 3
    assert total["books"].dropped.keys() | total["web"].dropped.keys() == {
        "exact_duplicate",
        "near_duplicate",
    }


def test_shards_do_not_change_what_becomes_of_a_document(single: Directory, tmp_path: Path) -> None:
    other = run(tmp_path, partitions=3, seed=4)
    # Sources rank as they are first seen, which is the same in both.
    assert list(single.counts()) == list(other.counts())
    assert documents(other) == documents(single)


def test_a_suffix_makes_stages_of_their_own(tmp_path: Path) -> None:
    directory = run(tmp_path, partitions=1, suffix="_d2")
    assert directory.path.name.startswith("deduplicate_d2-")
    names = {path.name.rpartition("-")[0] for path in tmp_path.iterdir()}
    assert names == {"made", *(f"{name}_d2" for name in STAGES)}


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    run(tmp_path, partitions=2)
    (groups,) = tmp_path.glob("groups-*/shards/all.parts")
    (members,) = tmp_path.glob("members-*")
    (members / "manifest.json").unlink()  # as if it had to be made again
    for ledger in (members / "ledger").iterdir():
        ledger.unlink()
    groups.write_bytes(groups.read_bytes()[:-1] + b"?")
    with pytest.raises(
        CorruptStageError, match=r"all\.parts: part 1 has changed since it was written"
    ):
        run(tmp_path, partitions=2)


def test_nothing_to_deduplicate(tmp_path: Path) -> None:
    with runner_at(tmp_path) as runner:
        read = stage_of_documents(runner, {"empty": []})
        made = deduplicate(Recipe(dedup=Deduplication(partitions=3)), runner, read)
    assert [list(read_shard(file.path)) for file in made.files()] == [[]]

"""The recipe as a whole: any number of workers, bad input, other weights, damaged leftovers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from data_pipeline import pipeline
from data_pipeline.config import Baking, Cleaning, HeldOut, Reading, Recipe, Source, Tier
from data_pipeline.execution.manifest import CorruptStageError, Directory
from data_pipeline.storage.compressed import TruncatedInputError
from data_pipeline.text import seeded_random
from tests.builders import write_jsonl
from tests.data_pipeline.builders import (
    curate_serially,
    dropped_documents,
    kept_documents,
    result_files,
    runner_at,
)

pytestmark = pytest.mark.slow

SYLLABLES = ["ba", "co", "di", "fu", "ga", "he", "ki", "lo", "mu", "ne", "po", "ra", "si", "tu"]


def text(k: int) -> str:
    """Sentences of made-up words that no other number has."""
    random = seeded_random.seeded(0, "text", str(k))
    sentences = []
    for _ in range(8):
        words = ["".join(random.choices(SYLLABLES, k=3)) for _ in range(9)]
        sentences.append(f"The {' '.join(words[:4])} of the {' '.join(words[4:])} was there.")
    return " ".join(sentences)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sources, one of them compressed, with a duplicate across them."""
    folder = tmp_path / "raw text"
    web = [{"id": str(k), "text": text(k)} for k in range(30)]
    output = [{"text": text(k)} for k in [*range(100, 120), 7]]
    write_jsonl(folder / "web.jsonl", web)
    write_jsonl(folder / "books.jsonl.gz", output)
    return folder


def recipe(folder: Path, **changes: object) -> Recipe:
    made = Recipe(
        sources=[Source(path=str(folder)), Source(tier=Tier.D3)],
        reading=Reading(shard_bytes=4000),
        cleaning=Cleaning(min_foreign_score=1.1),  # made-up words are in no language
        held_out=HeldOut(fraction=0.3, max_documents=4, items=3),
        baking=Baking(sequence_length=64, part_bytes=8000),
        mixtures={"all": {"D1": 1.0, "D3": 1.0}},
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def read(folder: Path, root: Path, **changes: object) -> Directory:
    with runner_at(root) as runner:
        return pipeline.read(recipe(folder, **changes), runner)


def test_workers_do_not_change_a_byte(folder: Path, tmp_path: Path) -> None:
    made = {}
    for workers in (0, 3):
        root = tmp_path / str(workers)
        run = pipeline.run if workers else curate_serially
        run(recipe(folder, workers=workers), root)
        made[workers] = result_files(root)
    assert made[0].keys() == made[3].keys()
    assert [name for name in made[0] if made[0][name] != made[3][name]] == []


def test_new_weights_bake_nothing(folder: Path, tmp_path: Path) -> None:
    first = curate_serially(recipe(folder), tmp_path / "run")
    made = {path.name for path in (tmp_path / "run").iterdir()}
    second = curate_serially(recipe(folder, mixtures={"all": {"web": 1.0}}), tmp_path / "run")
    new = {path.name for path in (tmp_path / "run").iterdir()} - made
    assert new == {second.mixture.name}
    assert second.mixture != first.mixture
    assert second.held_out == first.held_out
    weights = json.loads((second.mixture / "mixture.json").read_text())["mixtures"]
    assert weights == {"all": {"web": 1.0}}


def test_bad_rows_are_kept_with_their_place(folder: Path, tmp_path: Path) -> None:
    """The rest of the file survives, and the ledger says what did not."""
    good = [json.dumps({"text": text(k)}).encode() for k in range(200, 203)]
    bad = [
        b'{"text": "caf\xff"}',
        b"{no json",
        b'{"title": "x"}',
        b'{"text": 3}',
        b'{"text": "a\\u0000"}',
    ]
    (folder / "bad.jsonl").write_bytes(b"\n".join([good[0], *bad, *good[1:]]) + b"\n")
    (folder / "empty.jsonl").write_bytes(b"")
    directory = read(folder, tmp_path, reading=Reading(max_bad_fraction=1.0))
    counts = directory.counts()
    assert counts["bad"].kept == 3
    assert dict(counts["bad"].bad) == {
        "invalid_utf8": 1,
        "invalid_json": 1,
        "missing_text": 1,
        "text_not_a_string": 1,
        "nul_character": 1,
    }
    assert dict(counts["empty"].bad) == {"empty_file": 1}
    rows = dropped_documents(directory)
    assert sorted(d.reason for d in rows) == sorted([*counts["bad"].bad, "empty_file"])
    (utf8,) = (d for d in rows if d.reason == "invalid_utf8")
    assert utf8.evidence["file"] == "bad.jsonl"
    assert utf8.evidence["offset"] == len(good[0]) + 1


def test_too_many_bad_rows_fail_loudly(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.jsonl").write_text("no json\n" * 3 + json.dumps({"text": text(1)}) + "\n")
    with pytest.raises(ValueError, match=r"bad-00000: 3 of 4 rows are bad .*'invalid_json': 3"):
        read(folder, tmp_path)
    assert not list(tmp_path.glob("read-*/manifest.json"))


def test_all_bad_files_are_named_together(folder: Path, tmp_path: Path) -> None:
    """Whatever is wrong with them; what is good is read, and not again by the next run."""
    (folder / "bad.jsonl").write_text("no json\n" * 3)
    (folder / "cut.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "a"}\n' * 99)[:-9])
    (folder / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError) as error:
        read(folder, tmp_path)
    first, *said = str(error.value).split("\n")
    assert first.startswith("3 of ") and "the others are finished and kept" in first
    assert [line.split()[0] for line in said] == ["shard", "cut.jsonl.zst", "other.parquet"]
    assert "bad-00000: 3 of 3 rows are bad" in said[0]
    assert "ends inside the zstd frame" in said[1]
    assert "is no complete Parquet file" in said[2]
    (stage,) = tmp_path.glob("read-*")
    kept = {path.stem.split("-")[0] for path in (stage / "ledger").iterdir()}
    assert kept == {"books", "web"}


def test_truncated_input_is_an_error_not_an_end(folder: Path, tmp_path: Path) -> None:
    path = folder / "books.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TruncatedInputError, match=r"books\.jsonl\.gz"):
        read(folder, tmp_path)
    assert not list(tmp_path.glob("read-*/manifest.json"))


def test_changed_input_is_read_again(folder: Path, tmp_path: Path) -> None:
    first = read(folder, tmp_path)
    assert read(folder, tmp_path).path == first.path
    with (folder / "web.jsonl").open("a") as file:
        file.write(json.dumps({"text": text(900)}) + "\n")
    assert read(folder, tmp_path).path != first.path


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[:-1] + b"x", "has changed since it was written"),
        (lambda content: content[: len(content) // 2], "has changed since it was written"),
        (lambda content: b"", "has changed since it was written"),
        (None, "is missing"),
    ],
)
def test_a_damaged_shard_is_refused_by_the_next_stage(
    folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes] | None, said: str
) -> None:
    """And made again once its folder is deleted, as the error says."""
    directory = read(folder, tmp_path)
    shard = directory.files()[0].path
    content = shard.read_bytes()
    if damage:
        shard.write_bytes(damage(content))
    else:
        shard.unlink()
    with runner_at(tmp_path) as runner:
        with pytest.raises(CorruptStageError, match=f"{said}.*Delete {directory.path}"):
            pipeline.clean(recipe(folder), runner, directory)
        shutil.rmtree(directory.path)
        assert read(folder, tmp_path).files()[0].path.read_bytes() == content
        pipeline.clean(recipe(folder), runner, read(folder, tmp_path))


def test_equal_ids_with_other_texts_both_stay(folder: Path, tmp_path: Path) -> None:
    rows = [{"id": "same", "text": text(300)}, {"id": "same", "text": text(301)}]
    write_jsonl(folder / "twice.jsonl", rows)
    with runner_at(tmp_path) as runner:
        made = recipe(folder)
        unique = pipeline.deduplicate(made, runner, pipeline.read(made, runner))
    ids = [document.id for document in kept_documents(unique)]
    assert len(ids) == len(set(ids))
    assert {"twice/same", "twice/same~2"} <= set(ids)
    assert unique.counts()["twice"].changed == {"duplicate_id": 1}
    assert unique.counts()["web"].dropped + unique.counts()["books"].dropped == {
        "exact_duplicate": 1
    }


def test_an_unknown_source_in_a_mixture_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wab'"):
        curate_serially(recipe(folder, mixtures={"all": {"wab": 1.0}}), tmp_path / "run")


def test_two_sources_of_one_name_are_refused(folder: Path, tmp_path: Path) -> None:
    """Else one would overwrite the other's shards."""
    other = write_jsonl(tmp_path / "other" / "web.jsonl", [{"text": text(1)}]).parent
    both = [Source(path=str(folder)), Source(path=str(other), tier=Tier.D3)]
    with pytest.raises(ValueError, match=r"two sources have one name: .*'web-00000'"):
        read(folder, tmp_path / "run", sources=both)

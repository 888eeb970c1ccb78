"""One recipe gives one result, on every engine and with any number of workers.

Also in files or in objects, and after processes were killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline import pipeline, report
from data_pipeline.config import (
    Baking,
    Cleaning,
    EngineKind,
    HeldOut,
    NlpTasks,
    Reading,
    Recipe,
    Source,
    Tier,
)
from data_pipeline.mixture.download import download_mixture
from data_pipeline.mixture.tasks import define
from data_pipeline.storage.atomic import write_bytes
from data_pipeline.storage.object_store import ObjectStorePath, is_remote, storage_path
from data_pipeline.text import seeded_random
from tests.builders import ROOT, write_jsonl

pytestmark = pytest.mark.slow

WORDS = [
    "river",
    "valley",
    "garden",
    "bridge",
    "teacher",
    "village",
    "harbour",
    "winter",
    "letter",
    "engine",
    "market",
]
NOT_COMPARED = "timing.json"  # it says how long a stage took
Files = dict[str, bytes]
Start = Callable[..., "subprocess.Popen[str]"]


def text(k: int) -> str:
    """Sentences that no other number has."""
    random = seeded_random.seeded(0, "text", str(k))
    sentences = (
        f"The {random.choice(WORDS)} of number {random.randrange(10**6)} was seen by "
        f"{random.choice(WORDS)} {random.randrange(10**6)} near the {random.choice(WORDS)}."
        for _ in range(9)
    )
    return " ".join(sentences)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, one file to be cut up and one that cannot be, a duplicate and bad rows."""
    folder = tmp_path_factory.mktemp("raw")
    web = [{"text": text(k)} for k in range(40)]
    rows = [json.dumps(row) for row in web] + ["no json"]
    (folder / "web.jsonl").write_text("\r\n".join(rows) + "\r\n")
    write_jsonl(folder / "books.jsonl.gz", [{"text": text(k)} for k in [*range(100, 120), 7]])
    return folder


def recipe(path: object, **changes: object) -> Recipe:
    made = Recipe(
        sources=[Source(path=str(path)), Source(tier=Tier.D3)],
        reading=Reading(shard_bytes=6000, max_bad_fraction=0.5),
        cleaning=Cleaning(min_foreign_score=1.1),
        held_out=HeldOut(fraction=0.3, max_documents=4, items=3),
        nlp_tasks=NlpTasks(kinds=("cloze",), per_document=1),
        baking=Baking(sequence_length=64),
        mixtures={"all": {"D1": 1.0, "D3": 1.0}},
        workers=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def paths(root: Path) -> dict[str, Path]:
    """Every file by its name; those of a run at work may be gone a moment later."""
    if is_remote(root):
        assert isinstance(root, ObjectStorePath)
        return {file.name: root / file.name for file in root.walk_files()}
    return {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}


def files(root: Path) -> Files:
    return {n: p.read_bytes() for n, p in paths(root).items() if not n.endswith(NOT_COMPARED)}


def assert_same(made: Files, expected: Files) -> None:
    assert made.keys() == expected.keys()
    assert [name for name in sorted(made) if made[name] != expected[name]] == []


def without_addresses(made: Files) -> Files:
    """What does not depend on where the raw text lies, nor on when its files were written."""
    return {
        re.sub(r"-[0-9a-f]{12}/", "/", name): content
        for name, content in made.items()
        if not name.endswith(("manifest.json", "mixture.json"))
    }


@pytest.fixture(scope="module")
def local(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Every file of a run by the pool of processes."""
    root = tmp_path_factory.mktemp("local")
    pipeline.run(recipe(raw), root)
    made = files(root)
    assert {name.split("-")[0] for name in made} >= {"read", "clean", "deduplicate", "bake"}
    assert sum(name.startswith("read-") and "/ledger/" in name for name in made) > 3
    return made


# --- Apache Beam


def beam(*options: str) -> dict[str, object]:
    return {"engine": EngineKind.BEAM, "beam_options": ("--runner=DirectRunner", *options)}


def test_beam_writes_every_byte_of_a_whole_recipe(raw: Path, local: Files, tmp_path: Path) -> None:
    pytest.importorskip("apache_beam")
    threads = ("--direct_running_mode=multi_threading", "--direct_num_workers=3")
    pipeline.run(recipe(raw, **beam(*threads)), tmp_path)
    assert_same(files(tmp_path), local)


# A part of the recipe, for a process that is to be killed.
DRIVER = """
import sys
from data_pipeline.config import Cleaning, EngineKind, Reading, Recipe, Source
from data_pipeline.storage.object_store import storage_path
from data_pipeline.execution.runner import Runner
from data_pipeline.pipeline import engine_of
from data_pipeline.cleaning.stage import clean
from data_pipeline.reading.stage import read

if __name__ == "__main__":
    path, root, shard_bytes, workers, *options = sys.argv[1:]
    recipe = Recipe(
        sources=[Source(path=path)],
        reading=Reading(shard_bytes=int(shard_bytes), max_bad_fraction=0.5),
        cleaning=Cleaning(min_foreign_score=1.1),
        workers=int(workers),
        engine=EngineKind.BEAM if options else EngineKind.LOCAL,
        beam_options=tuple(options),
    )
    with engine_of(recipe) as engine:
        runner = Runner(storage_path(root), engine)
        clean(recipe, runner, read(recipe, runner))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Start:
    script = tmp_path_factory.mktemp("driver") / "driver.py"
    script.write_text(DRIVER)

    def start(path: Path, root: Path, *more: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(path), str(root), *map(str, more)]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(script.parent)},
        )

    return start


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def two_stages(
    raw: Path,
    driver: Start,
    tmp_path_factory: pytest.TempPathFactory,
) -> Files:
    root = tmp_path_factory.mktemp("two stages")
    finish(driver(raw, root, 1500, 2))
    made = files(root)
    assert sum(name.startswith("read-") and "/ledger/" in name for name in made) > 12
    return made


def wait_for_ledgers(root: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while sum("/ledger/" in name and not name.endswith(".partial") for name in paths(root)) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"{count} ledgers were never written:\n{process.communicate()[1]}")
        time.sleep(0.02)


def test_beam_killed_at_work_and_run_again_writes_every_byte(
    raw: Path,
    two_stages: Files,
    driver: Start,
    tmp_path: Path,
) -> None:
    pytest.importorskip("apache_beam")
    arguments = (raw, tmp_path, 1500, 0, "--runner=DirectRunner")
    process = driver(*arguments)
    wait_for_ledgers(tmp_path, 3, process)
    process.kill()
    process.communicate()
    assert not list(tmp_path.glob("clean-*/manifest.json"))
    time.sleep(1)  # its workers leave when they find that it is gone
    finish(driver(*arguments))
    assert_same(files(tmp_path), two_stages)


# --- an object store


# One store is enough for the stages, which do not know of it; test_remote.py has them all.
@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_recipe_in_an_object_store(raw: Path, local: Files, bucket: Path, tmp_path: Path) -> None:
    """From objects to objects by the local engine, and the mixture back to this machine."""
    for path in raw.iterdir():
        write_bytes(bucket / "raw" / path.name, path.read_bytes())
    output = bucket / "run"
    curated = pipeline.run(recipe(bucket / "raw", output=str(output)), tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    made = files(output)
    assert_same(without_addresses(made), without_addresses(local))
    page = report.write(
        tmp_path / "report.html",
        directories=curated.directories,
        results=report.Results.read(
            mixture=curated.mixture / "mixture.json",
            held_out=curated.held_out / "mixture.json",
        ),
        title="run",
        command="",
    )
    assert "invalid json" in page.read_text()
    here = pipeline.local(curated, tmp_path)
    _, mixtures = define(here.mixture)
    assert sum(1 for _ in mixtures["all"].get_dataset(None, "train", num_epochs=1)) > 10
    assert here.items.read_bytes() == made[f"{here.items.parent.name}/items.jsonl"]
    # Interrupted, damaged: what is whole is not fetched again, what is not is.
    (one, two) = sorted(tmp_path.glob("bake-*/shards/*.tfrecord"))[:2]
    modified = one.stat().st_mtime_ns
    two.write_bytes(b"damaged")
    assert download_mixture(curated.mixture, tmp_path) == here.mixture
    assert one.stat().st_mtime_ns == modified
    assert two.read_bytes() == made[f"{two.parent.parent.name}/shards/{two.name}"]


def test_a_killed_worker_and_a_killed_driver_at_an_object_store(
    raw: Path, two_stages: Files, driver: Start, bucket: Path
) -> None:
    root = storage_path(f"{bucket}/run")
    process = driver(raw, root, 1500, 1)
    wait_for_ledgers(root, 2, process)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert "a worker process died" in said and "run the same command again" in said
    before = files(root)
    process = driver(raw, root, 1500, 2)
    wait_for_ledgers(root, sum("/ledger/" in name for name in before) + 2, process)
    process.kill()
    process.communicate()
    finish(driver(raw, root, 1500, 2))
    made = files(root)
    assert_same(made, two_stages)
    assert before.items() <= made.items()


def worker_of(parent: int) -> int:
    """The process of a pool (not its resource tracker) that a process has started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status[1]) == parent and b"spawn_main" in command:
                return int(entry.name)
    raise AssertionError(f"{parent} has no workers")

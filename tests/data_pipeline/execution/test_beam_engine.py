"""Apache Beam does what the local engine does, and what goes wrong is said in the same words."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("apache_beam")

from data_pipeline.config import Reading, Recipe, Source
from data_pipeline.execution import beam_engine
from data_pipeline.execution.beam_engine import BeamEngine
from data_pipeline.execution.local_engine import ExecutionEngine, Failed, LocalEngine
from data_pipeline.execution.manifest import Ledger, file_sha256
from data_pipeline.execution.runner import Runner
from data_pipeline.execution.task import Task
from data_pipeline.reading.stage import read
from data_pipeline.storage.atomic import DiskFullError, write_text

ALONE = ("--runner=DirectRunner",)
THREADS = (*ALONE, "--direct_running_mode=multi_threading", "--direct_num_workers=4")
at_work: list[str] = []
most_at_work = 0
lock = threading.Lock()


def write_name(task: Task) -> Ledger:
    path = task.out / "shards" / f"{task.shard}.txt"
    write_text(path, task.shard)
    ledger = Ledger(task.shard, files={f"shards/{path.name}": file_sha256(path)})
    ledger.write(task.out)
    return ledger


def refuse_some(task: Task) -> Ledger:
    if task.shard in ("b", "d"):
        raise ValueError(f"shard {task.shard}: 3 of 4 rows are bad")
    return write_name(task)


def fill_the_disk(task: Task) -> Ledger:
    raise DiskFullError(
        28, "No space left on device. Finished shards are kept. It was writing", "/x/y"
    )


def make_a_mistake(task: Task) -> Ledger:
    raise KeyError("nonsense")


def write_elsewhere(task: Task) -> Ledger:
    return Ledger(task.shard)


def count_who_works(task: Task) -> Ledger:
    global most_at_work
    with lock:
        at_work.append(task.shard)
        most_at_work = max(most_at_work, len(at_work))
    time.sleep(0.1)
    with lock:
        at_work.remove(task.shard)
    return write_name(task)


def fail_once(task: Task) -> Ledger:
    path = task.out / "once"
    if not path.exists():
        write_text(path, "")
        raise OSError(5, "Input/output error", "/x/y")
    return write_name(task)


def tasks(root: Path, names: str) -> list[Task]:
    return [Task(name, None, None, out=root) for name in names]


@pytest.fixture(params=["local", "beam"])
def engine(request: pytest.FixtureRequest) -> Iterator[ExecutionEngine]:
    with LocalEngine(1) if request.param == "local" else BeamEngine(ALONE) as made:
        yield made


def test_ledgers_come_back(tmp_path: Path) -> None:
    todo = tasks(tmp_path, "abcdef")
    with BeamEngine(THREADS) as engine:
        answers = {task.shard: ledger for task, ledger in engine.run(write_name, todo)}
        assert list(engine.run(write_name, [])) == []
    assert answers == {task.shard: write_name(task) for task in todo}
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "ledger"}


def test_a_second_job_in_one_process_does_its_own_tasks(tmp_path: Path) -> None:
    with BeamEngine(ALONE) as engine:
        for names in ("abc", "xyz"):
            made = engine.run(write_name, tasks(tmp_path, names))
            assert {task.shard for task, _ in made} == set(names)


@pytest.mark.parametrize("max_parallel", [1, 2])
def test_no_more_than_at_once(tmp_path: Path, max_parallel: int) -> None:
    global most_at_work
    most_at_work = 0
    with BeamEngine(THREADS) as engine:
        done = list(
            engine.run(count_who_works, tasks(tmp_path, "abcdefgh"), max_parallel=max_parallel)
        )
    assert len(done) == 8
    assert most_at_work <= max_parallel


def test_refused_shards_are_collected_or_raised(tmp_path: Path, engine: ExecutionEngine) -> None:
    todo = tasks(tmp_path, "abcde")
    answers = {t.shard: made for t, made in engine.run(refuse_some, todo, collect=(ValueError,))}
    failed = {shard: str(made.error) for shard, made in answers.items() if isinstance(made, Failed)}
    assert failed == {name: f"shard {name}: 3 of 4 rows are bad" for name in "bd"}
    assert answers.keys() == set("abcde")
    with pytest.raises(ValueError, match=r"^shard [bd]: 3 of 4 rows are bad$"):
        list(engine.run(refuse_some, tasks(tmp_path / "2", "abcde")))
    assert not list(tmp_path.rglob("failed*"))


def test_a_full_disk_is_said_in_the_same_words(tmp_path: Path, engine: ExecutionEngine) -> None:
    with pytest.raises(OSError, match=r"No space left on device.*kept.*'/x/y'"):
        list(engine.run(fill_the_disk, tasks(tmp_path, "a"), collect=(ValueError,)))


def test_a_mistake_in_the_program_shows_where_it_is(tmp_path: Path) -> None:
    with (
        BeamEngine(ALONE) as engine,
        pytest.raises(RuntimeError, match="KeyError: 'nonsense'") as error,
    ):
        list(engine.run(make_a_mistake, tasks(tmp_path, "a")))
    assert "make_a_mistake" in str(error.value.__cause__)


def test_what_succeeds_when_tried_again_is_no_failure(tmp_path: Path) -> None:
    """As on a cluster, which runs again what has raised."""
    work = beam_engine._Work(fail_once, tmp_path, (), "job", beam_engine.code_version(__name__))
    write_bytes = beam_engine.write_bytes
    write_bytes(work.file(0), beam_engine.pickle.dumps(tasks(tmp_path, "a")))
    with pytest.raises(OSError, match="Input/output error"):
        work(0)
    assert set(beam_engine._failures(tmp_path, [])) == {"a"}
    work(0)
    assert beam_engine._failures(tmp_path, ["a"]) == {}


def test_workers_that_write_elsewhere_are_found_out(tmp_path: Path) -> None:
    with (
        BeamEngine(ALONE) as engine,
        pytest.raises(RuntimeError, match=r"2 of 2 shards are not in .*the first a.*`output`"),
    ):
        list(engine.run(write_elsewhere, tasks(tmp_path, "ab")))


def test_workers_with_other_code_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = beam_engine.code_version
    monkeypatch.setattr(
        beam_engine, "code_version", lambda module: here(module) | {"numpy": str(time.time())}
    )
    with (
        BeamEngine(ALONE) as engine,
        pytest.raises(
            RuntimeError,
            match=r"numpy: got .* on a worker, expected .* as where the run was started",
        ),
    ):
        list(engine.run(write_name, tasks(tmp_path, "a")))


def test_a_job_that_fails_before_its_work(tmp_path: Path) -> None:
    with (
        BeamEngine(["--runner=NoSuchRunner"]) as engine,
        pytest.raises(RuntimeError, match=r"the Beam job failed \(.*NoSuchRunner"),
    ):
        list(engine.run(write_name, tasks(tmp_path, "a")))


@pytest.mark.parametrize("options", [(), ("--runer=DirectRunner",), ("DirectRunner",)])
def test_options_without_a_runner_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"beam_options: got .*--runner=DirectRunner"):
        BeamEngine(options)


def test_bad_input_is_said_in_the_same_words(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abc":
        (raw / f"{name}.jsonl").write_text("no json\n" * 2 + '{"text": "some text"}\n')
    (raw / "good.jsonl").write_text('{"text": "good text"}\n' * 3)
    said = {}
    for name, engine in {"local": LocalEngine(1), "beam": BeamEngine(ALONE)}.items():
        recipe = Recipe(sources=[Source("web", path=str(raw))], reading=Reading(shard_bytes=70))
        with engine, pytest.raises(ValueError) as error:
            read(recipe, Runner(tmp_path / name, engine))
        said[name] = str(error.value)
    assert said["local"] == said["beam"]
    assert said["local"].startswith("3 of 4 shards failed")
    (stage,) = (tmp_path / "beam").iterdir()
    assert [path.name for path in (stage / "ledger").iterdir()] == ["web-00003.json"]


def test_the_documented_flags_are_beams_own() -> None:
    """Beam itself passes over a flag that it does not know without a word."""
    from apache_beam.options import pipeline_options

    known = set()
    for options in pipeline_options.PipelineOptions.__subclasses__():
        parser = pipeline_options._BeamArgumentParser()
        options._add_argparse_args(parser)
        known |= set(parser._option_string_actions)
    text = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text()
    section = text.partition("## Beam options")[2].partition("## Execution")[0]
    flags = set(re.findall(r"--[a-z_]+", section)) - {"--worker_pool"}  # the image's own
    assert len(flags) > 20
    assert flags <= known

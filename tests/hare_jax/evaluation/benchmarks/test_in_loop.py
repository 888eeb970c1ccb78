"""In-loop benchmarks equal those of configs/evaluate.py and change nothing in the run."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import portpicker
import pytest

from hare_jax.config import (
    BenchmarkEvaluation,
    InLoopConfig,
    Mesh,
    Protocol,
    Training,
)
from hare_jax.evaluation.benchmarks import evaluate, lm_harness
from hare_jax.evaluation.benchmarks import in_loop as in_loop_module
from hare_jax.evaluation.benchmarks.in_loop import Benchmarks
from hare_jax.inference import tokenizers
from hare_jax.inference.engine import InferenceEngine
from hare_jax.runtime.watchdog import Watchdog
from hare_jax.training import train
from hare_jax.training.identity import run_name
from hare_jax.training.in_loop_evaluation import InLoopEvaluation
from tests.builders import ROOT, read_jsonl
from tests.hare_jax.builders import (
    B,
    T,
    metric_rows,
    one_device,
    run_together,
    same_params,
    tiny_model,
    tiny_training,
)

pytest.importorskip("lm_eval")

# Of the libraries that read tasks; ours are errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("own_datasets_cache"),
]

MODEL = tiny_model()
ANIMALS = ("hare", "fox", "owl", "toad", "heron", "badger", "otter", "stoat")
TASKS = {
    "tiny_choices": """
output_type: multiple_choice
doc_to_text: "Which animal is number {{number}}?"
doc_to_choice: "{{choices}}"
doc_to_target: label
num_fewshot: 2
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "tiny_open": """
output_type: generate_until
doc_to_text: "Animal {{number}}:"
doc_to_target: "{{choices[0]}}"
num_fewshot: 1
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}
Curves = Callable[[Path], dict[tuple[str, int], float]]
WriteTasks = Callable[[list[dict[str, Any]], dict[str, str]], Path]


class Letters:
    """A tokenizer of characters."""

    bos_id, eos_id, sha256, adds_bos, vocab_size = 1, 2, "letters", True, 64
    eos_ids = (eos_id,)

    def __init__(self, path: Path, eos_ids: Sequence[int] = ()):
        del eos_ids
        assert path.is_file()
        self.path = path

    def encode(self, text: str) -> list[int]:
        return [3 + ord(letter) % 61 for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + 58) for i in ids if i not in (1, 2))

    def special_token(self, token_id: int) -> str:
        return {1: "<s>", 2: "</s>"}[token_id]


@pytest.fixture(scope="module", autouse=True)
def letters_are_tokens() -> Iterator[None]:
    """The model of a baked folder is not a real one."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (in_loop_module, tokenizers):
            patched.setattr(module, "SentencePieceTokenizer", Letters)
        yield


@pytest.fixture(scope="module")
def tasks(write_tasks: WriteTasks) -> Path:
    rows = [
        {"number": i, "choices": [animal, "stone", ANIMALS[i - 3]], "label": i % 3}
        for i, animal in enumerate(ANIMALS)
    ]
    return write_tasks(rows, TASKS)


@pytest.fixture(scope="module")
def in_loop(tasks: Path) -> InLoopConfig:
    return InLoopConfig(
        every_steps=5,
        benchmarks=("tiny_choices",),
        task_folders=(str(tasks),),
        limit=0,
        max_length=96,
        batch_tokens=1024,
    )


@pytest.fixture(scope="module")
def training() -> Training:
    """12 steps; a row every 3, a checkpoint every 4, and of the 10th."""
    return tiny_training(12)


Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(training: Training, in_loop: InLoopConfig, mixture: Path) -> Run:
    """Returns a function that trains in a folder, with the given in-loop evaluation."""

    def start(directory: Path, devices: Any = None, **looks: Any) -> Path:
        config = replace(training, in_loop=replace(in_loop, **looks))
        devices = devices or one_device()
        train.run(MODEL, config, mixture, directory, devices, benchmarks=Benchmarks)
        return directory

    return start


@pytest.fixture(scope="module")
def wholes(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Uninterrupted runs, by how often they are looked at."""
    return {n: run(tmp_path_factory.mktemp("whole"), every_steps=n) for n in (4, 5)}


def _looks(run_dir: Path) -> list[dict[str, Any]]:
    return read_jsonl(run_dir / "benchmarks.jsonl")


def _of_benchmarks(curves: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {key: value for key, value in curves.items() if key[0].startswith("benchmarks/")}


def _evaluated(checkpoint: Path, looked: InLoopConfig, tmp_path: Path) -> dict[str, Any]:
    """What configs/evaluate.py writes of a checkpoint, with the settings of the looks."""
    config = BenchmarkEvaluation(
        checkpoint=str(checkpoint),
        benchmarks=looked.benchmarks,
        protocol=looked.protocol,
        task_folders=looked.task_folders,
        max_length=looked.max_length,
        batch_tokens=looked.batch_tokens,
    )
    written = evaluate.run(config, tmp_path / "scores")
    return json.loads(written["scores"].read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", Protocol)
def test_a_row_is_what_evaluation_says_of_that_checkpoint(
    run: Run, in_loop: InLoopConfig, tmp_path: Path, protocol: Protocol
) -> None:
    """Parameters cut over eight devices; examples before the question, drawn at each look."""
    names = ("tiny_choices", "tiny_open")
    looks = {"every_steps": 4, "benchmarks": names, "protocol": protocol}
    rows = _looks(run(tmp_path / "run", jax.devices(), **looks))
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert rows[1]["benchmarks"] != rows[2]["benchmarks"]
    for row in rows[1:]:
        checkpoint = tmp_path / "run" / "checkpoints" / str(row["step"])
        looked = replace(in_loop, benchmarks=names, protocol=protocol)
        result = _evaluated(checkpoint, looked, tmp_path)
        assert row["protocol"] == result["inputs"]["protocol"] == protocol.value
        assert row["lm_eval"] == result["inputs"]["lm_eval"]
        for name in names:
            expected = result["benchmarks"][name]
            assert row["benchmarks"][name] == {
                key: expected[key] for key in ("score", "bits_per_byte", "gold_log_likelihood")
            }


@pytest.mark.slow
def test_the_run_is_the_same_without(
    run: Run,
    wholes: dict[int, Path],
    training: Training,
    in_loop: InLoopConfig,
    mixture: Path,
    tmp_path: Path,
) -> None:
    run(tmp_path, every_steps=0)
    assert not (tmp_path / "benchmarks.jsonl").exists()
    assert [row["step"] for row in _looks(wholes[5])] == [5, 10, 12], "and after the last step"
    assert metric_rows(tmp_path) == metric_rows(wholes[5])
    assert same_params(tmp_path, wholes[5], MODEL)
    looked_at = replace(training, in_loop=in_loop)
    assert run_name(MODEL, training, mixture) == run_name(MODEL, looked_at, mixture)


def test_a_benchmark_that_fails_does_not_end_training(
    run: Run, wholes: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED")

    monkeypatch.setattr(InferenceEngine, "scores", fails)
    run(tmp_path, every_steps=5)
    assert [row["failed"] for row in _looks(tmp_path)] == [
        {"tiny_choices": "RuntimeError: RESOURCE_EXHAUSTED"}
    ] * 3
    assert same_params(tmp_path, wholes[5], MODEL)


def test_boards_show_the_rows(wholes: dict[int, Path], curves: Curves) -> None:
    expected = {}
    for row in _looks(wholes[5]):
        one = row["benchmarks"]["tiny_choices"]
        expected["benchmarks/tiny_choices", row["step"]] = one["score"]["value"]
        bits = one["bits_per_byte"]["value"]
        expected["benchmarks/tiny_choices/bits_per_byte", row["step"]] = bits
    assert _of_benchmarks(curves(wholes[5])) == pytest.approx(expected)


class Killed(BaseException):
    """Raised in place of a kill, where the process must live on."""


@pytest.mark.parametrize(
    ("every", "look", "where", "resumed"),
    [
        (5, 2, "in", 8),  # the steps up to the look are done again
        (5, 2, "after", 8),  # and the look itself
        (4, 2, "in", 8),  # its step is saved: the evaluation is pending
        (5, 3, "in", 12),  # and nothing else is
    ],
)
def test_killed_it_ends_as_uninterrupted(
    run: Run,
    wholes: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    curves: Curves,
    every: int,
    look: int,
    where: str,
    resumed: int,
) -> None:
    number = 0

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def work_or_die(*arguments: Any) -> Any:
            nonlocal number
            number += 1
            if number == look and where == "in":
                raise Killed
            result = work(*arguments)
            if number == look:
                raise Killed
            return result

        return work_or_die

    with monkeypatch.context() as patched:
        if where == "in":
            patched.setattr(lm_harness, "evaluate", dying(lm_harness.evaluate))
        else:
            patched.setattr(InLoopEvaluation, "run", dying(InLoopEvaluation.run))
        with pytest.raises(Killed):
            run(tmp_path, every_steps=every)
    assert len(_looks(tmp_path)) == look - (where == "in")
    capsys.readouterr()
    run(tmp_path, every_steps=every)
    assert f"resumed from step {resumed} of 12" in capsys.readouterr().out
    assert _looks(tmp_path) == _looks(wholes[every])
    assert metric_rows(tmp_path) == metric_rows(wholes[every])
    assert _of_benchmarks(curves(tmp_path)) == _of_benchmarks(curves(wholes[every]))
    # Complete, it is not looked at again, nor is anything read for it.
    monkeypatch.setattr(lm_harness, "load", None)
    before = (tmp_path / "benchmarks.jsonl").read_bytes()
    run(tmp_path, every_steps=every)
    assert (tmp_path / "benchmarks.jsonl").read_bytes() == before


def test_a_look_compiles_once_holds_nothing_and_says_what_it_does(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    by_look: list[int] = []
    others = jax.live_arrays()  # of other tests' engines; held, so that no id is used again
    ids = set(map(id, others))
    held: list[Any] = []
    seen: list[str] = []
    score = Benchmarks.__call__
    doing = Watchdog.doing

    def counted(self: Benchmarks, params: Any, told: Any) -> Any:
        before = len(compiled)
        row = score(self, params, told)
        by_look.append(len(compiled) - before)
        made = (array for array in jax.live_arrays() if id(array) not in ids)
        meshes = (getattr(array.sharding, "mesh", None) for array in made)
        held.extend(mesh for mesh in meshes if mesh is not None and "rows" in mesh.axis_names)
        return row

    def heard(self: Watchdog, what: str, **how: Any) -> None:
        seen.append(what)
        doing(self, what, **how)

    monkeypatch.setattr(Benchmarks, "__call__", counted)
    monkeypatch.setattr(Watchdog, "doing", heard)
    run(tmp_path, jax.devices(), every_steps=4, benchmarks=("tiny_choices", "tiny_open"))
    assert compiled and by_look[1:] == [0, 0]
    assert held == [], "no array of the engine is left"
    told = [what for what in seen if what.startswith("the evaluation at step 8")]
    assert told[:2] == [
        "the evaluation at step 8",
        "the evaluation at step 8: tiny_choices, 0 of 9 requests",
    ]
    assert "the evaluation at step 8: tiny_choices, 9 of 9 requests" in told
    lines = [line for line in capsys.readouterr().out.splitlines() if "benchmarks at" in line]
    assert len(lines) == 3
    score_and_error = r"\d\.\d{4} ± \d\.\d{4}"
    pattern = rf"benchmarks at step 8: tiny_choices {score_and_error}, tiny_open .* \(\d+\.\d s\)"
    assert re.fullmatch(pattern, lines[1])


def test_its_time_is_no_part_of_the_speed(
    training: Training, mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [0.0]
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 3600 * hours[0])

    def slow(params: Any, doing: Any) -> dict[str, Any]:
        hours[0] += 1
        return {"benchmarks": {}}

    config = replace(training, in_loop=InLoopConfig(every_steps=2))
    train.run(MODEL, config, mixture, tmp_path, one_device(), benchmarks=lambda *_: slow)
    assert hours[0] == 6
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert all(row["tokens_per_second"] > 3 * B * T / 600 for row in rows)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"benchmarks": ("tiny_choises",)}, "unknown benchmark 'tiny_choises': expected one of"),
        ({"benchmarks": ()}, "training.in_loop.benchmarks: got none, expected names as configs/"),
        ({"data": "nowhere"}, "nowhere: no such folder; write it with configs/benchmarks.py"),
        ({"every_steps": -1}, r"training.in_loop.every_steps=-1: expected 0 \(never\) or more"),
    ],
)
def test_mistakes_are_told_before_the_first_step(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, Any],
    message: str,
) -> None:
    from lm_eval import tasks

    # The index of all of lm-eval's own tasks takes seconds.
    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))
    monkeypatch.setattr(train, "compile_step", None)  # it must not get there
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(tmp_path, **wrong)


def test_it_needs_something_that_scores(
    training: Training, in_loop: InLoopConfig, mixture: Path, tmp_path: Path
) -> None:
    config = replace(training, in_loop=in_loop)
    with pytest.raises(
        ValueError, match=r"every_steps=5, but train.run got no benchmarks: run it by main.py"
    ):
        train.run(MODEL, config, mixture, tmp_path, one_device())


CHILD = """
import pickle, sys
from functools import partial
from pathlib import Path
from hare_jax.config import Distributed
from hare_jax.runtime import distributed
from hare_jax.training import train

folder, port, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
distributed.initialize(Distributed(coordinator=f"127.0.0.1:{port}", processes=2, process=process))
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[4])
from hare_jax.evaluation.benchmarks import in_loop
model, training, mixture, in_loop.SentencePieceTokenizer = pickle.loads(
    (folder / "settings").read_bytes()
)
train.run(model, training, mixture, folder / "run", benchmarks=in_loop.Benchmarks)
"""


@pytest.mark.slow
def test_two_processes_are_looked_at_as_one(
    in_loop: InLoopConfig, mixture: Path, tmp_path: Path, compiled: Path
) -> None:
    """Neither holds all parameters; the first scores them, the second waits."""
    config = tiny_training(4, mesh=Mesh(1, 2, 2), in_loop=replace(in_loop, every_steps=2))
    (tmp_path / "settings").write_bytes(pickle.dumps((MODEL, config, mixture, Letters)))
    (tmp_path / "child.py").write_text(CHILD)
    port = portpicker.pick_unused_port()
    commands = [
        [sys.executable, "child.py", *map(str, (tmp_path, port, process, compiled))]
        for process in (0, 1)
    ]
    (out, _), (other_out, _) = run_together(
        commands,
        tmp_path,
        PYTHONPATH=os.pathsep.join(map(str, (ROOT, Path(__file__).parent))),
        JAX_NUM_CPU_DEVICES="2",
        HF_DATASETS_CACHE=str(tmp_path / "datasets"),
    )
    assert out.count("benchmarks at step") == 2 and "benchmarks" not in other_out
    rows = _looks(tmp_path / "run")
    assert [row["step"] for row in rows] == [2, 4]
    expected = _evaluated(tmp_path / "run" / "checkpoints" / "4", in_loop, tmp_path)
    for key, estimate in rows[1]["benchmarks"]["tiny_choices"].items():
        assert estimate["value"] == pytest.approx(
            expected["benchmarks"]["tiny_choices"][key]["value"], rel=1e-4
        )

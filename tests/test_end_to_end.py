"""The main job, small, as a user starts it: interrupted, repeated, and with a setting changed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ROOT

pytestmark = pytest.mark.slow

SMALL = [
    "--config=configs/quickstart.py",
    *(
        f"--config.data.sources[{k}].max_documents={n}"
        for k, n in enumerate((30, 30, 30, 30, 30, 90))
    ),
    "--config.data.held_out.max_documents=4",
    "--config.data.held_out.items=4",
    "--config.data.baking.sequence_length=128",
    "--config.model.num_layers=1",
    "--config.model.d_model=16",
    "--config.model.num_heads=2",
    "--config.model.num_kv_heads=1",
    "--config.model.head_dim=8",
    "--config.model.d_ff=16",
    "--config.training.stages[0].tokens=10240",
    "--config.training.stages[1].tokens=10240",
    "--config.training.optimizer.warmup_steps=2",
    "--config.training.checkpointing.every_steps=2",
    "--config.training.log_every=2",
    "--config.evaluation.samples=2",
    "--config.evaluation.sample_tokens=8",
]


# What a shell starts in the background is born deaf to Ctrl-C; what is tested here hears it.
MAIN = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_path('main.py', run_name='__main__')"
)


def command(workdir: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", MAIN, *SMALL, f"--workdir={workdir}", *more]


def run(workdir: Path, *more: str) -> str:
    result = subprocess.run(
        command(workdir, *more), cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir of an uninterrupted run, in a folder whose name has a space."""
    workdir = tmp_path_factory.mktemp("run") / "my run"
    run(workdir)
    return workdir


def numbers(workdir: Path) -> dict[str, Any]:
    """All that the report shows, but the times."""
    (training,) = workdir.glob("training-*")
    evaluation = json.loads((training / "evaluation.json").read_text())
    metrics = map(json.loads, (training / "metrics.jsonl").read_text().splitlines())
    data = {path.parent.name: path.read_bytes() for path in workdir.glob("data/*/manifest.json")}
    return {
        "data": data,
        "heldout": evaluation["heldout"],
        "tasks": evaluation["tasks"],
        "samples": json.loads((training / "samples.json").read_text()),
        "losses": [(row["step"], row["loss"], row["source_loss"]) for row in metrics],
    }


def test_the_job_ends_with_a_report(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for section in (
        "flow",
        "dropped",
        "duplicates",
        "mixture",
        "training",
        "evaluation",
        "samples",
    ):
        assert f'id="{section}"' in page
    everything = numbers(finished)["heldout"][-1]
    assert everything["loss"]["trained"] < everything["loss"]["untrained"]


def test_repeated_it_is_served_from_cache(finished: Path) -> None:
    before, page = numbers(finished), (finished / "report.html").read_bytes()
    made = {path: path.stat().st_mtime_ns for path in finished.glob("data/*/shards/*")}
    said = run(finished)
    stages = len(list(finished.glob("data/*/manifest.json")))
    assert said.count("unchanged, served from cache") == stages
    assert "already complete" in said
    assert "evaluation: served from cache" in said
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert numbers(finished) == before
    assert (finished / "report.html").read_bytes() == page


def test_training_alone_needs_neither_curation_nor_tensorflow(
    finished: Path, tmp_path: Path
) -> None:
    """On a folder of baked data, it learns what the whole job learned; no TensorFlow is loaded."""
    (mixture,) = finished.glob("data/mixture-*")
    config = tmp_path / "train.py"
    config.write_text(
        "from configs import quickstart\n"
        "def get_config(mixture):\n"
        "    config = quickstart.get_config()\n"
        "    config.data, config.mixture = None, mixture\n"
        "    return config\n"
    )
    settings = [s for s in SMALL if s.startswith(("--config.model", "--config.training"))]
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['seqio'] = None\n"
        "import main; from absl import app; app.run(main.main, flags_parser=main.parse)"
    )
    arguments = [f"--config={config}:{mixture}", f"--workdir={tmp_path}", *settings]
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, check=True, timeout=300)
    (alone,) = tmp_path.glob("training-*/metrics.jsonl")
    (whole,) = finished.glob("training-*/metrics.jsonl")
    losses = [
        [json.loads(row)["loss"] for row in p.read_text().splitlines()] for p in (alone, whole)
    ]
    assert losses[0] == losses[1]
    assert not (tmp_path / "report.html").exists()


def test_a_changed_setting_rebuilds_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    """Decontamination with other n-grams: all before it is served, all after it is made anew."""
    workdir = tmp_path / "changed"
    subprocess.run(["cp", "-r", str(finished), str(workdir)], check=True)
    before = {path.name for path in workdir.glob("data/*")}
    run(workdir, "--config.data.decontamination.absolute_hits=30")
    made = {
        path.name.rpartition("-")[0] for path in workdir.glob("data/*") if path.name not in before
    }
    assert made == {
        "index",
        "decontaminate",
        "probe",
        "topic_sample",
        "topic_model",
        "topics",
        "nlp_tasks",
        "decontaminate_tasks",
        "bake",
        "mixture",
    }
    assert len(list(workdir.glob("training-*"))) == 2


def test_killed_again_and_again_it_ends_with_the_same_numbers(
    finished: Path, tmp_path: Path
) -> None:
    """Interrupts a run (kill -9, Ctrl-C) while it reads, cleans, bakes, trains and evaluates."""
    workdir = tmp_path / "killed"
    moments = [
        ("data/read-*/ledger/*", signal.SIGKILL),
        ("data/clean-*/ledger/*", signal.SIGINT),
        ("data/decontaminate-*/shards/*", signal.SIGKILL),
        ("data/bake-*/shards/*", signal.SIGKILL),
        ("training-*/checkpoints/2", signal.SIGKILL),
        ("training-*/checkpoints/14", signal.SIGKILL),  # after the switch of stages, at 10
        ("training-*/evaluation.parts.json", signal.SIGKILL),
    ]
    for pattern, how in moments:
        process = subprocess.Popen(
            command(workdir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 300
        while not list(workdir.glob(pattern)) and process.poll() is None:
            assert time.monotonic() < deadline, f"{pattern} never came"
            time.sleep(0.005)
        process.send_signal(how)
        _, stderr = process.communicate(timeout=120)
        if how is signal.SIGINT:
            assert b"the same command continues from here" in stderr
            assert process.returncode == 130
        assert process.returncode != 0, f"the run was over before {pattern} was seen"
    said = run(workdir)
    assert "unchanged, served from cache" in said
    assert numbers(workdir) == numbers(finished)

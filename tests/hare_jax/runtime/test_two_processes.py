"""Two processes train, save, fail and resume like one with as many devices: process_pairs.py."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import portpicker
import pytest

from hare_jax.config import Distributed, Launch, Mesh
from hare_jax.data import packed_dataset
from hare_jax.runtime import accelerator, distributed
from hare_jax.tracking.metrics import TIMED
from hare_jax.training import train
from hare_jax.training.checkpoint import restore_params
from hare_jax.training.identity import run_name
from tests.builders import ROOT, read_jsonl
from tests.hare_jax.builders import STEPS, B, run_together, tiny_model, tiny_training

pytestmark = pytest.mark.slow

MODEL = tiny_model()
TRAINING = tiny_training(mesh=Mesh(1, 2, 2))  # the processes hold different parameters
GLOO = "connected peer ranks"


Pairs = tuple[Path, dict[str, Any], Path]


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory, bake_at: Callable[..., Path], compiled: Path
) -> Pairs:
    """The folder of all runs, the exit statuses of their processes, and the mixture."""
    directory = tmp_path_factory.mktemp("pairs")
    mixture = bake_at(directory)
    settings = {"model": MODEL, "training": TRAINING, "mixture": mixture, "compiled": str(compiled)}
    (directory / "settings").write_bytes(pickle.dumps(settings))
    finished = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("process_pairs.py")), "settings", "."],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    train.run(MODEL, TRAINING, mixture, directory / "single", jax.devices()[:4])
    return directory, json.loads(finished.stdout), mixture


def _said(out: str) -> list[str]:
    """The lines, without those of Gloo, whose threads may write into one another's."""
    return [line for line in out.splitlines() if line and "[Gloo]" not in line and GLOO not in line]


def _same_rows(a: Path, b: Path) -> None:
    """The same steps and counts, and losses and norms but for the order of sums."""
    pair = [read_jsonl(run / "metrics.jsonl") for run in (a, b)]
    assert len(pair[0]) == 5
    for got, want in zip(*pair, strict=True):
        for name in got.keys() - set(TIMED):
            if name in ("loss", "grad_norm", "param_norm", "source_loss"):
                values = (list(_flat(row[name])) for row in (got, want))
                np.testing.assert_allclose(*values, rtol=2e-5, err_msg=name)
            else:
                assert got[name] == want[name], name


def _flat(value: Any) -> list[float]:
    return list(value.values()) if isinstance(value, dict) else [value]


def _same_params(a: Path, b: Path) -> None:
    (got, step), (want, same_step) = (restore_params(r / "checkpoints", MODEL) for r in (a, b))
    assert step == same_step == STEPS
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), got, want)


def test_two_processes_train_as_one(pairs: Pairs) -> None:
    directory, statuses, _ = pairs
    assert statuses["whole"] == [0, 0]
    _same_rows(directory / "whole", directory / "single")
    _same_params(directory / "whole", directory / "single")
    names = [sorted(p.name for p in (directory / r).iterdir()) for r in ("whole", "single")]
    assert names[0] == names[1]
    boards = list((directory / "whole" / "tensorboard").iterdir())
    assert len(boards) == 1, "the first process alone writes"


def test_one_process_speaks(pairs: Pairs) -> None:
    directory, _, _ = pairs
    assert any("step 12/12" in line for line in _said((directory / "whole-0.out").read_text()))
    assert _said((directory / "whole-1.out").read_text()) == []


def test_the_batches_are_those_of_one_process(pairs: Pairs) -> None:
    directory, _, mixture = pairs
    order = packed_dataset.make_order(packed_dataset.PackedDataset(mixture), TRAINING)
    seen = [read_jsonl(directory / f"whole-{p}.seen") for p in (0, 1)]
    for step, (first, second) in enumerate(zip(*seen, strict=True)):
        assert first["step"] == second["step"] == step
        rows = dict(map(tuple, [(row, tuple(pick)) for row, pick in first["rows"]]))
        others = dict(map(tuple, [(row, tuple(pick)) for row, pick in second["rows"]]))
        assert len(rows) == len(others) == B // 2, "each holds its own rows"
        assert [pick for _, pick in sorted((rows | others).items())] == order.records_of_step(step)
    assert step == STEPS - 1


def test_a_killed_damaged_and_stopped_run_resumes_with_one_process(pairs: Pairs) -> None:
    directory, statuses, mixture = pairs
    assert statuses["killed"] == [-signal.SIGKILL, -signal.SIGKILL]
    damage = (directory / "terminated-0.err").read_text()
    assert re.search(r"DAMAGED CHECKPOINT, using the one before: process 1 stopped: .*8: ", damage)
    # SIGTERM reached process 1 alone; both saved the same step.
    assert statuses["terminated"] == [128 + signal.SIGTERM, 128 + signal.SIGTERM]
    said = _said((directory / "terminated-0.out").read_text())
    assert "resumed from step 4 of 12" in said
    (stopped,) = (int(m[1]) for line in said if (m := re.match(r"SIGTERM: saved step (\d+)", line)))
    assert 5 < stopped < STEPS
    assert _said((directory / "terminated-1.out").read_text()) == []
    result = train.run(MODEL, TRAINING, mixture, directory / "cut", jax.devices()[:4])
    assert result.resumed_from == stopped
    _same_rows(directory / "cut", directory / "single")
    _same_params(directory / "cut", directory / "single")
    assert [p.name for p in (directory / "cut" / "checkpoints-damaged").iterdir()] == ["000-step-8"]


def test_results_and_errors_of_one_process_reach_all(pairs: Pairs) -> None:
    directory, _, _ = pairs
    first, second = (json.loads((directory / f"said-{p}.json").read_text()) for p in (0, 1))
    assert first["from the first"] == second["from the first"] == {"process": 0}
    assert (first["alone"], second["alone"]) == (0, 1)
    assert first["the first fails"] == "ValueError: no room"
    assert second["the first fails"] == "OtherProcessError: process 0 stopped: no room"
    assert first["one fails"] == "OtherProcessError: process 1 stopped: no room"
    assert second["one fails"] == "ValueError: no room"
    assert first["same folder"] == second["same folder"] == ""
    assert "process 1 stopped" in first["other folder"]
    assert "sees another folder than process 0 does; put it on a file sys" in second["other folder"]
    assert not list(directory.glob("**/.shared-*"))


def test_processes_that_do_not_connect_end_with_one_line(pairs: Pairs) -> None:
    directory, statuses, _ = pairs
    assert statuses["absent"] == 2
    (line,) = (directory / "absent-1.err").read_text().splitlines()
    assert re.match(r"process 1 of 2, coordinator 127.0.0.1:\d+, has waited 1 s for the oth", line)
    assert "check that process 0 runs" in line
    assert statuses["taken"] == 1
    (line,) = (directory / "taken-0.err").read_text().splitlines()
    assert re.match(r"OSError: process 0 of 2, .* cannot listen at port \d+: .*another port", line)


def test_the_command_by_flags(pairs: Pairs, compiled: Path) -> None:
    directory, _, mixture = pairs
    workdir = directory / "workdir"
    workdir.mkdir()
    (workdir / run_name(MODEL, TRAINING, mixture)).symlink_to(directory / "whole")
    (directory / "page.py").write_text(
        "import pickle\n"
        "from configs.experiment import Experiment\n"
        "def get_config():\n"
        f"    s = pickle.loads(open({str(directory / 'settings')!r}, 'rb').read())\n"
        "    return Experiment(None, str(s['mixture']), s['model'], s['training'])\n"
    )
    port = portpicker.pick_unused_port()
    commands = [
        [
            *(sys.executable, "main.py", f"--config={directory / 'page.py'}"),
            *(f"--workdir={workdir}", f"--config.distributed.coordinator=127.0.0.1:{port}"),
            *("--config.distributed.processes=2", f"--config.distributed.process={process}"),
        ]
        for process in (0, 1)
    ]
    (out, _), (other_out, _) = run_together(
        commands, ROOT, JAX_NUM_CPU_DEVICES="2", JAX_COMPILATION_CACHE_DIR=str(compiled)
    )
    assert "already complete: step 12" in out and re.search(r"^metrics +/", out, re.MULTILINE)
    assert _said(other_out) == []
    assert sorted(p.name for p in workdir.iterdir() if p.name.startswith(".")) == [".lock"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process": 0}, r"distributed.coordinator='': expected HOST:PORT of process 0"),
        ({"coordinator": "host", "processes": 2, "process": 0}, r"coordinator='host': expected HO"),
        (
            {"coordinator": "host:1", "process": 0},
            r"processes=0: .*add --config.distributed.proces",
        ),
        ({"coordinator": "host:1", "processes": 2}, r"process=-1: expected 0 to 1, a different"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, r"process=2: expected 0 to 1"),
    ],
)
def test_flags_that_are_missing_or_wrong_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distributed.initialize(Distributed(**given))


@pytest.mark.parametrize(
    ("slurm", "expected"),
    [
        ({"NTASKS": "16", "NNODES": "2"}, {"cluster_detection_method": "slurm"}),
        (
            {"NTASKS": "2", "NNODES": "2"},  # a task a host: all of its devices
            {"cluster_detection_method": "slurm", "local_device_ids": []},
        ),
        ({"NTASKS": "1", "NNODES": "1"}, None),
    ],
)
def test_slurm_is_recognized(
    monkeypatch: pytest.MonkeyPatch, slurm: dict[str, str], expected: dict[str, Any] | None
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: told.append(given))
    common = {"JOB_ID": "7", "STEP_NODELIST": "a[1-2]", "PROCID": "1", "LOCALID": "1"}
    for name, value in (common | slurm).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    distributed.initialize(Distributed(launch=Launch.ALONE))
    assert told == []
    distributed.initialize(Distributed())
    times = {"initialization_timeout": 360, "shutdown_timeout_seconds": 60}
    assert told == ([] if expected is None else [expected | times])


def test_tpu_hosts_are_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: told.append(given))
    monkeypatch.setattr(distributed, "_on_slurm", lambda: False)
    distributed.initialize(Distributed())
    assert told == [], "JAX_PLATFORMS=cpu"
    monkeypatch.setattr(accelerator, "has_tpu", lambda: True)
    distributed.initialize(Distributed(timeout=5))
    assert told == [{"initialization_timeout": 65, "shutdown_timeout_seconds": 60}]


@pytest.mark.parametrize(
    ("hosts", "status", "said"),
    [
        (
            "a",
            0,
            "no metadata of a pod (coordinator_address should be defined.): continuing as a s",
        ),
        ("a,b", 1, "ValueError: coordinator_address should be defined"),
    ],
)
def test_a_tpu_without_metadata_of_a_pod_is_a_single_process(
    hosts: str, status: int, said: str
) -> None:
    """By JAX's own detection, which finds no cluster here."""
    code = (
        "from hare_jax.config import Distributed\n"
        "from hare_jax.runtime import accelerator, distributed\n"
        "distributed._on_slurm, accelerator.has_tpu = lambda: False, lambda: True\n"
        "distributed.initialize(Distributed())\n"
        "assert not distributed.is_multi_process()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TPU_WORKER_HOSTNAMES": hosts}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == status
    assert said in result.stdout + result.stderr


def test_one_process_alone_waits_for_none() -> None:
    assert not distributed.is_multi_process() and distributed.is_process_zero()
    assert distributed.on_process_zero(lambda: 3) == distributed.on_all_processes(lambda: 3) == 3
    with pytest.raises(KeyError):
        distributed.on_process_zero(lambda: {}["x"])

"""Processes that were given different settings stop before the first step and name the field."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import portpicker
import pytest

from hare_jax.config import Mesh
from hare_jax.runtime import agreement
from tests.builders import ROOT
from tests.hare_jax.builders import tiny_model, tiny_training


def test_what_differs_is_named_with_both_values() -> None:
    agreement.compare({"a": 1}, {"a": 1})
    with pytest.raises(agreement.DisagreementError, match=r"^b: got None, process 0 has 2\. Start"):
        agreement.compare({"a": 1, "b": 2}, {"a": 1})


def test_software_names_libraries_and_code() -> None:
    software = agreement.software()
    assert software["jax"] != "not installed"
    assert len(software["code of hare_jax"]) == 12


@pytest.mark.slow
def test_another_seed_in_one_process_is_refused_before_the_first_step(
    tmp_path: Path, bake_at: Callable[..., Path]
) -> None:
    mixture = bake_at(tmp_path)
    settings = [
        (tiny_model(), tiny_training(mesh=Mesh(1, 2), seed=seed), mixture, tmp_path / "run")
        for seed in (0, 7)
    ]
    (tmp_path / "settings").write_bytes(pickle.dumps(settings))
    port = portpicker.pick_unused_port()
    code = (
        "import pickle, sys\n"
        "from hare_jax.config import Distributed\n"
        "from hare_jax.runtime import distributed\n"
        "from hare_jax.training import train\n"
        "process = int(sys.argv[1])\n"
        f"distributed.initialize(Distributed(coordinator='127.0.0.1:{port}', processes=2,"
        " process=process, timeout=60))\n"
        "train.run(*pickle.loads(open('settings', 'rb').read())[process])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(process)],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    first, second = (process.communicate(timeout=100)[1] for process in processes)
    said = "config.training.seed: got 7, process 0 has 0. Start all processes"
    assert said in second
    assert f"process 1 stopped: {said}" in first
    assert all(process.returncode for process in processes)
    assert not (tmp_path / "run").exists()

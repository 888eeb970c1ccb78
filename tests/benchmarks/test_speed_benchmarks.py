"""benchmarks/train_speed.py and input_speed.py run end to end and print what they promise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hare_jax.model.decoder import flops_per_token, num_params

pytestmark = pytest.mark.slow

RunBenchmark = Callable[[str, list[str]], str]


def test_train_speed_without_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_benchmark: RunBenchmark
) -> None:
    bare = tmp_path / "python"  # an interpreter without packages
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    tiny = ["--layers", "1", "--batch", "2", "--sequence", "32", "--steps", "2", "--repeats", "1"]
    arguments = [*tiny, "--segments", "3", "--peer-python", str(bare)]
    out = run_benchmark("train_speed", arguments)
    assert f"peer, compiled: left out, {bare} has no torch" in out
    assert f"peer, eager: left out, {bare} has no torch" in out
    number = r"([\d,.e-]+)"
    row = rf"float32 +{number} +{number} +{number} +- +{number} +{number} +{number} +{number}$"
    speeds = {}
    for name in ("ours", "ours, 3 documents a row"):
        found = re.search(rf"^  {name} +{row}", out, re.MULTILINE)
        assert found, out
        speeds[name] = float(found[1].replace(",", ""))
        assert found[1] == found[2]  # the median of one is the best
        assert float(found[4].replace(",", "")) > 0  # tokens a CPU-second
    assert min(speeds.values()) > 0

    from benchmarks.train_speed import SMALL

    assert 18.8e6 < num_params(SMALL) < 19.0e6
    one_layer = SMALL.__class__(**{n: getattr(SMALL, n) for n in SMALL.__slots__})
    one_layer.num_layers = 1
    assert f"{num_params(one_layer):,} parameters, 2 rows of 32 tokens" in out
    assert f"{flops_per_token(one_layer, 32) / 1e9:.4g} GFLOP a token" in out


def test_synthetic_rows_are_packed_as_baked_ones_are() -> None:
    from benchmarks.jax_trainer import synthetic
    from hare_jax.data.batch import check

    batch = synthetic(64, 20, 40, 12)
    check(batch)
    ids, positions = batch["segment_ids_BT"], batch["positions_BT"]
    begins = np.diff(ids, axis=1, prepend=0) > 0
    assert (begins.sum(axis=1) == 12).all()
    assert ((positions == 0) == begins).all()
    assert (np.diff(positions, axis=1)[~begins[:, 1:]] == 1).all()
    # No document's first token is the target of the one before it.
    assert (batch["loss_mask_BT"][:, :-1] == ~begins[:, 1:]).all()
    whole = synthetic(64, 2, 40, 1)
    assert (whole["segment_ids_BT"] == 1).all() and (whole["loss_mask_BT"] == 1).all()
    assert (whole["positions_BT"] == np.arange(40)).all()


def test_input_speed(run_benchmark: RunBenchmark) -> None:
    small = ["--sources", "3", "--records", "40", "--sequence", "128", "--document", "30"]
    out = run_benchmark(
        "input_speed",
        [*small, "--batch", "12", "--steps", "4", "--repeats", "2", "--threads", "2"],
    )
    assert "3 sources, 12 rows of 128 tokens per step, best of 2 times 4 steps" in out
    assert "rows x sequence x steps / CPU seconds" in out
    rates = re.findall(r"^  (packed_dataset.batches|in this thread) +([\d,]+)", out, re.M)
    assert len(rates) == 2 and all(int(rate.replace(",", "")) > 0 for _, rate in rates)
    # Weights 1, 2, 3: the 48 rows after the first step are dealt out so.
    assert "rows of each source: 16.7% 33.3% 50.0%" in out


def test_scale_claims_more_than_it_writes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixture"
    size = ["--rows", "400", "--files", "40", "--sources", "3", "--sequence", "64"]
    command = [sys.executable, "-m", "benchmarks.scale", *size, "--batch", "8", "--steps", "3"]
    subprocess.run([*command, "--mixture", str(folder)], check=True)
    out = capfd.readouterr().out
    assert "400 rows of 64 tokens in 40 files of rows and as many of spans, 3 sources" in out
    manifest = json.loads((folder / "mixture.json").read_text())
    files = [file for source in manifest["sources"] for file in source["files"]]
    assert len(files) == 40 and sum(source["records"] for source in manifest["sources"]) == 400
    inodes = {path.stat().st_ino for path in folder.glob("*.array_record")}
    assert len(inodes) == 6 and len(list(folder.glob("*.array_record"))) == 80
    lines = re.findall(
        r"^  ([\w, ]+?) +([\d.]+) +([\d.]+) +([\d,.]+) +([\d,]+) +([\d,]+)$", out, re.M
    )
    parts = ["imports", "first start, unhashed", "start", "first batch", "3 steps"]
    assert [line[0] for line in lines] == [*parts, "documents of a step"]
    opened = {line[0]: int(line[4]) for line in lines}
    assert opened["start"] - opened["imports"] < 12  # no more than the first files of the sources
    assert opened["start"] < opened["3 steps"]

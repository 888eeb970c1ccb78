"""Mistakes on the command line are reported in one line, before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import ROOT


def run_main(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


CONFIG = "--config=configs/quickstart.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config is required, for example: python main.py --config=configs/quickstart.py"),
        (["--config=configs/quickstrat.py"], "did you mean configs/quickstart.py?"),
        (["--config=/no/such.py"], "there is no file '/no/such.py'"),
        ([CONFIG, "--config.training.optimizer.peak_ler=1"], "did you mean peak_lr?"),
        ([CONFIG, "--config.zebra=1"], "no field 'zebra' in Experiment; there are: data, mixture"),
        (
            [CONFIG, "--config.data.dedup.threshold=high"],
            "--config.data.dedup.threshold: got 'high', expected float",
        ),
        (
            [CONFIG, "--config.training.batch_size=1.5"],
            "--config.training.batch_size: got '1.5', expected int",
        ),
        ([CONFIG, "--config.model.attention=fast"], "expected one of auto|xla|cudnn"),
        ([CONFIG, "config.training.batch_size=4"], "stray argument 'config.training.batch_size=4'"),
        ([CONFIG, "--wrokdir=x"], "unknown flag --wrokdir; did you mean --workdir?"),
        (["--config=configs/corpora.py"], "needs a folder"),
        (["--config=configs/curate_hare.py"], "needs the folder of the sources"),
        (["--config=configs/trace.py"], "configs/trace.py:RUN_DIR needs the folder of a run"),
        (["--config=configs/trace.py:x", "--config.stpe=1"], "did you mean step?"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = run_main(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0, result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("override", ["training.seed=3", "model.head_dims=8"])
def test_a_page_runs_once(override: str, tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text(
        "import sys\n"
        "from configs.quickstart import get_config\n"
        "print('the page runs', file=sys.stderr)\n"
    )
    result = run_main(f"--config={page}", f"--config.{override}", "--help")
    assert result.stderr.count("the page runs") == 1


def test_help_explains() -> None:
    result = run_main("--help")
    assert "python main.py --config=configs/quickstart.py" in result.stdout
    assert "--workdir" in result.stdout


def test_a_second_run_in_one_workdir_is_refused(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_main(CONFIG, f"--workdir={tmp_path}")
    assert result.returncode == 2
    assert "another run is using" in result.stderr


def test_a_run_at_work_can_be_traced(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_main(f"--config=configs/trace.py:{tmp_path}", f"--workdir={tmp_path}")
    assert result.returncode == 2
    assert "got no folder with config.json" in result.stderr


def test_a_list_of_what_is_missing_stays_a_list(tmp_path: Path) -> None:
    result = run_main(f"--config=configs/curate_hare.py:{tmp_path}", f"--workdir={tmp_path}/run")
    assert result.returncode == 2
    lines = result.stderr.rstrip().splitlines()
    assert lines[0] == "main.py: 4 settings cannot be used:"
    assert all(line.startswith("  ") for line in lines[1:])
    assert sum(line.startswith("    benchmark '") for line in lines) == 7
    assert sum(line.startswith("    source '") for line in lines) == 22
    assert (tmp_path / "run" / "error.txt").exists()


def test_paragraphs_of_libraries_are_run_together() -> None:
    from configs.command_line import _in_short

    assert _in_short(ValueError("It failed:\n\n    here\nand there")) == "It failed: here and there"
    assert _in_short(ValueError("Two:\n  one\n  other")) == "Two:\n  one\n  other"
    assert _in_short(ValueError()) == "ValueError: "

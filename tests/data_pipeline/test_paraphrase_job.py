"""The job of configs/paraphrase.py against a server: nothing is asked twice, whatever happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ROOT, read_jsonl, write_jsonl

ITEMS = 12
# Item 3 is copied by the first sample; of item 5 a number is never kept; the rest is well told.
ANSWERS = """
import json, re

def answer(body):
    question, rest = body["messages"][-1]["content"].split("Question:\\n")[1].split("\\n\\n", 1)
    number = int(re.search(r"box (\\d+)", question)[1]) - 100
    told = f"From box {number + 100 + (number == 5)}, how many of the 48 hares ran home at dusk?"
    if number == 3 and body["seed"] == 0:
        told = question
    found = {"question": told, "answer": "Half of all 48 went home, that is 24.\\n#### 24"}
    return "Here it is:\\n```json\\n" + json.dumps(found) + "\\n```"
"""


@pytest.fixture
def arguments(tmp_path: Path, serve_teacher: Callable[..., Any]) -> Callable[..., list[str]]:
    """Returns a function from a teacher and flags to the command."""
    rows = [
        {
            "question": f"48 hares lived in box {100 + k}. At dusk half of them left. How many?",
            "answer": "So 48 / 2 = 24 hares are the ones that left the box.\n#### 24",
        }
        for k in range(ITEMS)
    ]
    path = tmp_path / "hares_original.jsonl"
    write_jsonl(path, rows)

    def command(served: Any, *more: str) -> list[str]:
        return [
            sys.executable,
            str(ROOT / "main.py"),
            "--config=configs/paraphrase.py",
            f"--config.items.original={path}",
            f"--config.teacher.base_url={served.url}",
            "--config.teacher.model=teacher",
            "--config.teacher.first_backoff_s=0.01",
            f"--workdir={tmp_path / 'out'}",
            *more,
        ]

    return command


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_killed_job_goes_on_and_asks_nothing_twice(
    tmp_path: Path, serve_teacher: Callable[..., Any], arguments: Callable[..., list[str]]
) -> None:
    (tmp_path / "answers.py").write_text(ANSWERS)
    served = serve_teacher(
        answers=str(tmp_path / "answers.py"),
        delay_s=0.1,
        fault_rate=0.2,
        faults={"500": 1, "cut": 1},
    )
    command = arguments(served, "--config.teacher.concurrency=1")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(served.events("answered")) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert not (tmp_path / "out/hares_rewritten_1.jsonl").exists()
    before = len(served.events("answered"))
    assert 4 <= before < ITEMS

    done = _run(command)
    assert done.returncode == 0, done.stderr
    assert "hares, version 1: 11 of 12 items paraphrased; 1 left out: 1 numbers" in done.stdout
    # 12 at first, then the copied one and the one with a lost number, the latter three times; what
    # was on its way or not yet written when the kill came may have been answered once more.
    answered = len(served.events("answered"))
    assert ITEMS + 3 <= answered <= ITEMS + 3 + 2
    told = read_jsonl(tmp_path / "out/hares_rewritten_1.jsonl")
    assert len(told) == 11
    assert all(row["rewritten_answer"].endswith("#### 24") for row in told)
    refused = read_jsonl(tmp_path / "out/hares_rejected.jsonl")
    assert sorted(row["reason"] for row in refused) == [*["numbers"] * 3, "overlap"]

    assert _run(command).returncode == 0
    assert len(served.events("answered")) == answered  # all of it is known
    assert read_jsonl(tmp_path / "out/hares_rewritten_1.jsonl") == told


def test_without_an_answer_the_job_says_why_in_a_line(
    serve_teacher: Callable[..., Any], arguments: Callable[..., list[str]]
) -> None:
    done = _run(arguments(serve_teacher(), "--config.teacher.base_url="))
    assert done.returncode == 2
    assert "teacher.base_url: got '', expected the address of an OpenAI-compatible" in done.stderr
    done = _run(arguments(serve_teacher(), "--config.teacher.model=other"))
    assert done.returncode == 2
    assert "The model `other` does not exist" in done.stderr

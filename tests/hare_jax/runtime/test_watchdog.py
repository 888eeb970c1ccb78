"""The watchdog reports a hanging loop with its activity and the stacks of all threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hare_jax.runtime import watchdog
from hare_jax.runtime.watchdog import HUNG, Watchdog

CHILD = """
import ctypes, sys, threading, time
from hare_jax.runtime.watchdog import Watchdog

def hang_in_here():
    time.sleep(2.0)

def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(3)  # a PyDLL call keeps every other thread out

def helper():
    time.sleep(60)

threading.Thread(target=helper, daemon=True).start()
with Watchdog(float(sys.argv[1]), sys.argv[2] == "abort") as watchdog:
    for step in range(1, 3):
        watchdog.doing(f"step {step}")
    watchdog.doing("the save of step 2")
    globals()[sys.argv[3]]()
    print("went on")
"""


def _child(seconds: float, then: str, hang: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(watchdog.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(seconds), then, hang],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        timeout=60,
    )


def test_a_hang_is_reported_once_with_all_stacks() -> None:
    child = _child(0.5, "wait", "hang_in_here")
    assert (child.returncode, child.stdout) == (0, "went on\n")
    message = "!!! the save of step 2 has taken more than 0.5 s; still waiting. All stacks:\n"
    assert child.stderr.startswith(message)
    assert child.stderr.count("!!!") == 1
    assert "in hang_in_here" in child.stderr and "in helper" in child.stderr


def test_a_hang_can_end_the_process() -> None:
    child = _child(0.5, "abort", "hang_in_here")
    assert (child.returncode, child.stdout) == (HUNG, "")
    assert "the save of step 2 has taken more than 0.5 s; ending this process" in child.stderr
    assert "in hang_in_here" in child.stderr


def test_a_library_that_keeps_the_interpreter_to_itself_is_seen_too() -> None:
    child = _child(0.5, "wait", "hold_the_interpreter")
    assert (child.returncode, child.stdout) == (0, "went on\n")
    assert "Timeout" in child.stderr and "in hold_the_interpreter" in child.stderr


def test_many_short_waits_are_no_hang(capfd: pytest.CaptureFixture[str]) -> None:
    with Watchdog(1.0, abort=False) as dog:
        for step in range(15):
            dog.doing(f"step {step}")
            time.sleep(0.1)
    assert capfd.readouterr().err == ""


def test_waiting_for_another_process_is_no_hang(capfd: pytest.CaptureFixture[str]) -> None:
    with Watchdog(0.2, abort=False) as dog:
        dog.doing("what process 0 does", no_limit=True)
        time.sleep(0.8)
    assert capfd.readouterr().err == ""


def test_without_a_limit_there_is_no_thread() -> None:
    with Watchdog(0, abort=True) as dog:
        dog.doing("step 1")
        assert not dog._thread.is_alive()


def test_a_limit_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="hang_seconds=-1: expected 0 or more"):
        Watchdog(-1, abort=False)

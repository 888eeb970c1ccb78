"""The history of a run: history.jsonl, one row for each start.

    {"time": "2025-01-31T12:00:00+00:00", "step": 4000, "version": "0.1.0", "commit": "1a2b...",
     "python": "3.11.9", "libraries": {"jax": "0.8.0", ...}, "devices": {"NVIDIA H200": 8},
     "processes": 8, "command": ["main.py", ...], "environment": {"XLA_FLAGS": "..."},
     "config": {...}, "plan": {...}}

`step` counts the finished steps from which it continued. `config` and `plan` are those of
config.json and plan.json, which hold the latest; rows in which they are as before omit them.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from hare_jax.runtime.versions import library_versions, version_of

PACKAGE = "hare-jax"
VARIABLES = ("XLA_", "JAX_", "LIBTPU_", "CUDA_VISIBLE_DEVICES")  # names begin with one of these


def append(run_dir: Path, step: int, parts: Mapping[str, Any]) -> None:
    """Appends the row of a start after `step` finished steps.

    Args:
      run_dir: the run's folder.
      step: finished steps.
      parts: {"config": config.json, "plan": plan.json}; each is left out if it has not changed.
    """
    path = run_dir / "history.jsonl"
    before: dict[str, Any] = {}
    # A row that a crash has cut has no end of line; it is closed, and not read.
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if line.endswith("}\n"):
            before |= json.loads(line)
    row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, **environment()}
    row |= {name: value for name, value in parts.items() if before.get(name) != value}
    with path.open("a", encoding="utf-8") as file:
        if lines and not lines[-1].endswith("\n"):
            file.write("\n")
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def environment() -> dict[str, Any]:
    """Returns the versions of code and libraries, the devices and the command."""
    return {
        "version": version_of(PACKAGE),
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "devices": dict(collections.Counter(device.device_kind for device in jax.devices())),
        "processes": jax.process_count(),
        "command": sys.argv,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)},
    }


def _commit() -> str | None:
    """Returns the git commit of the code, with "+changes" if files differ; None: no repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        told = [
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=20, check=True)
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno", "--", "."])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return told[0].stdout.strip() + ("+changes" if told[1].stdout.strip() else "")

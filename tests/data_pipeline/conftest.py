"""Servers in processes of their own: a teacher, S3, and Google Cloud Storage.

The teacher (teacher_server.py) fails where its settings ask for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import TeacherConfig
from data_pipeline.storage.object_store import storage_path
from tests.builders import read_jsonl


@dataclass
class Served:
    """A running server: its address, and the log of what it was asked and what it answered."""

    url: str
    log: Path

    def config(self, **fields: Any) -> TeacherConfig:
        """Waits are short; time-outs stay far above what a busy machine takes."""
        short: dict[str, Any] = {
            "base_url": self.url,
            "model": "teacher",
            "first_backoff_s": 0.01,
            "max_backoff_s": 0.05,
            "stall_timeout_s": 2.0,
        }
        return TeacherConfig(**(short | fields))

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The rows of the log, in order; `kind`: "asked", "answered", "fault", "embed"."""
        rows = read_jsonl(self.log)
        return [row for row in rows if kind in ("", row["event"])]

    def answered(self) -> Counter[str]:
        """How often each prompt (its last message) was answered in full."""
        return Counter(row["prompt"] for row in self.events("answered"))


@pytest.fixture(scope="session")
def teachers() -> Iterator[subprocess.Popen[str]]:
    """The process in which all teachers of a session run: to start one takes half a second."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("teacher_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def serve_teacher(tmp_path: Path, teachers: subprocess.Popen[str]) -> Callable[..., Served]:
    """Returns a function that starts a teacher; its arguments are teacher_server.Settings."""
    number = itertools.count(1)

    def serve(**settings: Any) -> Served:
        log = tmp_path / f"server-{next(number)}.jsonl"
        assert teachers.stdin is not None and teachers.stdout is not None
        teachers.stdin.write(json.dumps({"log": str(log), **settings}) + "\n")
        teachers.stdin.flush()
        url = teachers.stdout.readline().strip()
        assert url.startswith("http://"), "the server did not start: see its error above"
        return Served(url, log)

    return serve


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """The address of a server module in a process of its own, for whose port {port} stands."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", *(part.format(port=port) for part in command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except urllib.error.URLError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


# Clients are made once in a process, so all tests of a session have the same servers. The tests
# that ask for them are skipped without the extras `remote` and `dev`.


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    for package in ("s3fs", "moto", "flask"):
        pytest.importorskip(package)
    with (
        serving("moto.server", "-H", "127.0.0.1", "-p", "{port}") as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield address


@pytest.fixture(scope="session")
def gs_server() -> Iterator[str]:
    for package in ("gcsfs", "gcp_storage_emulator"):
        pytest.importorskip(package)
    command = ("gcp_storage_emulator", "start", "-H", "127.0.0.1", "--port", "{port}", "-M", "-q")
    with serving(*command) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        # With credentials found, gcsfs would ask Google itself what kind of bucket it has.
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.devnull)
        patch.setenv("NO_GCE_CHECK", "true")
        yield address


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest) -> Path:
    """An empty bucket of this test's own, in each store."""
    scheme = request.param
    server = request.getfixturevalue(f"{scheme}_server")
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    made = {
        "s3": urllib.request.Request(f"{server}/{name}", method="PUT"),
        "gs": urllib.request.Request(
            f"{server}/storage/v1/b",
            json.dumps({"name": name}).encode(),
            {"Content-Type": "application/json"},
        ),
    }
    urllib.request.urlopen(made[scheme]).close()
    return storage_path(f"{scheme}://{name}")

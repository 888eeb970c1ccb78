"""A teacher (teacher_server.py, which fails as it is told) and a real S3 server, in processes of
their own."""

from __future__ import annotations

import hashlib
import itertools
import json
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

from data_pipeline.config import Teacher
from data_pipeline.remote import storage_path


@dataclass
class Served:
    """A running server: its address, and the log of what it was asked and what it answered."""

    url: str
    log: Path

    def config(self, **fields: Any) -> Teacher:
        """Waits are short; time-outs stay far above what a busy machine takes."""
        short: dict[str, Any] = {
            "base_url": self.url,
            "model": "teacher",
            "first_backoff_s": 0.01,
            "max_backoff_s": 0.05,
            "stall_timeout_s": 2.0,
        }
        return Teacher(**(short | fields))

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """The rows of the log, in order; `kind`: "asked", "answered", "fault", "embed"."""
        rows = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
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
    """serve_teacher(fault_rate=0.3, ...) -> Served; the arguments are teacher_server.Settings."""
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Its address; the tests that ask for it are skipped without the extra `remote`."""
    for package in ("s3fs", "moto", "flask"):
        pytest.importorskip(package)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except urllib.error.URLError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
        # Clients are made once in a process, so all tests have the same server.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest) -> Path:
    """An empty bucket of this test's own."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    put = urllib.request.Request(f"{s3_server}/{name}", method="PUT")
    urllib.request.urlopen(put).close()
    return storage_path(f"s3://{name}")

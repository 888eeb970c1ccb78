"""What holds for every test."""

import runpy
import sys
from collections.abc import Callable

import pytest
from hypothesis import settings

# Hypothesis would fail an example that takes more than 200 ms: no test asserts speed.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are no name of a test: gzip's header holds the time, so two processes would differ."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture
def run_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, list[str]], str]:
    """(name, arguments) -> what `python -m benchmarks.NAME ARGUMENTS` prints, in this process."""

    def run(name: str, arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
        return capsys.readouterr().out

    return run

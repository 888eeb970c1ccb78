"""Settings of XLA by hardware: in the environment before JAX starts, unless the user set them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import hare_1b, jobs
from hare_jax.aot import hardware
from hare_jax.config import Generation
from hare_jax.runtime import accelerator
from hare_jax.runtime.accelerator import Platform, Setting
from hare_jax.tracking.metrics import PEAK_FLOPS
from tests.builders import ROOT


def flags_of(platform: Platform, **given: str) -> tuple[dict[str, str], list[str]]:
    """Returns the environment after the settings of a platform were applied, and their lines."""
    environment = dict(given)
    chosen = accelerator.settings(platform, deterministic=True, cache=Path("/run/cache"))
    return environment, accelerator.apply(chosen, environment)


def test_a_gpu_gets_memory_flags_and_a_cache() -> None:
    environment, lines = flags_of(Platform.GPU)
    assert environment == {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        "XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=true "
        "--xla_gpu_deterministic_ops=true",
        "JAX_COMPILATION_CACHE_DIR": "/run/cache",
    }
    assert lines[0].startswith("XLA_PYTHON_CLIENT_MEM_FRACTION=0.92  JAX takes 75 %")
    assert len(lines) == 4


def test_what_the_user_set_stays() -> None:
    environment, lines = flags_of(
        Platform.GPU,
        XLA_FLAGS="--xla_dump_to=x --xla_gpu_enable_latency_hiding_scheduler=false",
        XLA_PYTHON_CLIENT_MEM_FRACTION="0.5",
    )
    assert environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"
    assert environment["XLA_FLAGS"] == (
        "--xla_dump_to=x --xla_gpu_enable_latency_hiding_scheduler=false "
        "--xla_gpu_deterministic_ops=true"
    )
    assert lines[0] == "XLA_PYTHON_CLIENT_MEM_FRACTION=0.5  as given in the environment"
    assert lines[1].endswith("scheduler=false  as given in the environment")


def test_a_tpu_gets_no_flags_of_gpus_and_a_cpu_nothing() -> None:
    environment, _ = flags_of(Platform.TPU)
    assert set(environment) == {"LIBTPU_INIT_ARGS", "JAX_COMPILATION_CACHE_DIR"}
    assert flags_of(Platform.CPU) == ({}, [])


def test_the_flags_are_known_to_xla() -> None:
    """An unknown one would end the process when JAX starts."""
    flags = [
        f"{one.flag}={one.value}"
        for one in (*accelerator.SETTINGS[Platform.GPU], accelerator.DETERMINISTIC)
        if one.variable == "XLA_FLAGS"
    ]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    code = "import jax; jax.numpy.zeros(3).block_until_ready()"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert len(flags) == 2
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("allowed", "platform"),
    [("cpu", Platform.CPU), ("cuda,cpu", Platform.GPU), ("tpu", Platform.TPU)],
)
def test_the_platform_is_the_first_that_is_allowed(
    allowed: str, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", allowed)
    assert accelerator.find_platform() is platform


def test_jobs_choose_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accelerator, "find_platform", lambda: Platform.GPU)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/cache")
    config = hare_1b.get_config("mixture")

    def values(config: object) -> list[str]:
        return [one.value for one in jobs.accelerator_settings(config, tmp_path)]

    assert values(config) == ["0.92", "true", str(tmp_path / "compilation-cache")]
    assert values(Generation())[-1] == "/home/cache/hare-jax/compilation-cache"
    config.training.deterministic = True
    assert accelerator.DETERMINISTIC in jobs.accelerator_settings(config, tmp_path)
    config.training = None
    assert values(config) == []


def test_main_sets_them_before_jax_loads(tmp_path: Path) -> None:
    """The settings are printed by name, and JAX is not loaded at that time."""
    code = (
        "import sys, main\n"
        "from hare_jax.runtime import accelerator\n"
        "apply = accelerator.apply\n"
        "def check(chosen):\n"
        "    assert 'jax' not in sys.modules\n"
        "    return apply(chosen)\n"
        "accelerator.apply = check\n"
        f"sys.argv = ['main.py', '--config=configs/hare_250m.py:/none', '--workdir={tmp_path}']\n"
        "main.app.run(main.main, flags_parser=main.parse)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cuda", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92  JAX takes 75 %" in result.stderr
    assert f"JAX_COMPILATION_CACHE_DIR={tmp_path}/compilation-cache" in result.stderr
    assert "AssertionError" not in result.stderr


def test_determinism_that_comes_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    accelerator.check_deterministic("cpu")
    with pytest.raises(ValueError, match="must be there before JAX starts"):
        accelerator.check_deterministic("gpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    accelerator.check_deterministic("gpu")


def test_a_setting_is_shown_as_it_is_typed() -> None:
    assert str(Setting("XLA_FLAGS", "--a", "1", "why")) == "XLA_FLAGS=--a=1"


def test_ahead_of_time_memory_is_what_a_process_gets_less_a_margin() -> None:
    usable = accelerator.MEMORY_FRACTION * (1 - hardware.MARGIN) * hardware.GPUS["h200"].memory
    assert 124 < usable < 125


@pytest.mark.parametrize("kind", ["TPU v5", "TPU7x", "NVIDIA H100 PCIe", "NVIDIA H100 NVL",
                                  "NVIDIA GH200 480GB", "NVIDIA B200"])  # fmt: skip
def test_the_peak_of_each_chip_is_known(kind: str) -> None:
    assert PEAK_FLOPS[kind] > 4e14

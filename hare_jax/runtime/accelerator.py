"""Settings of XLA, chosen by hardware before JAX starts; an environment variable overrides each.

Loads no JAX: memory pool, compiler flags and cache are read from the environment when JAX starts.

    apply(settings(find_platform(), deterministic=False, cache=workdir / "compilation-cache"))
"""

from __future__ import annotations

import enum
import importlib.util
import os
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

MEMORY_FRACTION = 0.92  # of a GPU, for arrays and programs
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


class Platform(enum.Enum):
    """The kind of the devices that JAX will use."""

    CPU = "cpu"
    GPU = "gpu"
    TPU = "tpu"


@dataclass(slots=True, frozen=True)
class Setting:
    """One environment variable, or one flag inside of one."""

    variable: str  # of the environment
    flag: str  # in a variable that holds several; "": the variable holds the value alone
    value: str
    reason: str

    def __str__(self) -> str:
        """Returns it as it would be typed: "XLA_FLAGS=--xla_gpu_deterministic_ops=true"."""
        return f"{self.variable}={self.flag}{'=' if self.flag else ''}{self.value}"


# What each kind of hardware gets. Two settings that others recommend are not here, since in the
# compiled step of HARE-1.1B's width with 4 layers they cost memory and hide nothing more:
# JAX_OPTIMIZATION_LEVEL=O1 and the xla_gpu_enable_pipelined_* flags unroll the loop over layers
# (8.51 and 7.62 GiB for 4.91 on 8 x H200), and without them every gather overlaps already.
SETTINGS: dict[Platform, tuple[Setting, ...]] = {
    Platform.CPU: (),
    Platform.GPU: (
        Setting(
            "XLA_PYTHON_CLIENT_MEM_FRACTION",
            "",
            str(MEMORY_FRACTION),
            "JAX takes 75 % of a GPU by default; the rest is left to CUDA, cuDNN and NCCL",
        ),
        Setting(
            "XLA_FLAGS",
            "--xla_gpu_enable_latency_hiding_scheduler",
            "true",
            "communication overlaps with computation; XLA's default may change",
        ),
    ),
    Platform.TPU: tuple(
        Setting("LIBTPU_INIT_ARGS", flag, "true", reason)
        for flag, reason in (
            (
                "--xla_tpu_enable_async_collective_fusion",
                "collectives run beside fused computation; libtpu's default may change",
            ),
            ("--xla_tpu_enable_async_collective_fusion_fuse_all_gather", "gathers of parameters"),
            ("--xla_tpu_overlap_compute_collective_tc", "collectives beside matrix products"),
            ("--xla_enable_async_all_gather", "gathers start before they are needed"),
        )
    ),
}
DETERMINISTIC = Setting(
    "XLA_FLAGS",
    "--xla_gpu_deterministic_ops",
    "true",
    "training.deterministic: no atomics in scatters and in cuDNN's backward, no autotuning",
)


def find_platform() -> Platform:
    """Returns the platform that JAX will use on this machine, without starting it."""
    allowed = os.environ.get("JAX_PLATFORMS", "")
    if allowed:
        first = allowed.split(",")[0]
        return {"tpu": Platform.TPU, "cuda": Platform.GPU, "gpu": Platform.GPU}.get(
            first, Platform.CPU
        )
    if has_tpu():
        return Platform.TPU
    return Platform.GPU if has_gpu() else Platform.CPU


def has_tpu() -> bool:
    """Returns whether this host has TPUs that JAX may use."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    allowed = os.environ.get("JAX_PLATFORMS") or "tpu"
    return bool(chips) and "tpu" in allowed and importlib.util.find_spec("libtpu") is not None


def has_gpu() -> bool:
    """Returns whether this host has NVIDIA GPUs that JAX may use."""
    cards = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]
    plugins = any(_installed(f"jax_plugins.xla_cuda{version}") for version in (12, 13))
    return bool(cards) and plugins


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def settings(platform: Platform, *, deterministic: bool, cache: Path | None) -> list[Setting]:
    """Returns the settings of a run.

    Args:
      platform: as `find_platform` returns it.
      deterministic: `training.deterministic`; CPU and TPU need no flag for it.
      cache: folder for compiled programs; None: none. On CPU there is none, since a program may use
        instructions that the processor of the next machine lacks, and compilation takes seconds.
    """
    chosen = list(SETTINGS[platform])
    if deterministic and platform is Platform.GPU:
        chosen.append(DETERMINISTIC)
    if cache is not None and platform is not Platform.CPU:
        reason = "a run that continues, or is evaluated, does not compile again"
        chosen.append(Setting(CACHE_VARIABLE, "", str(cache), reason))
    return chosen


def apply(
    chosen: Iterable[Setting], environment: MutableMapping[str, str] | None = None
) -> list[str]:
    """Puts settings into the environment, except those that are there already.

    Args:
      chosen: the settings.
      environment: os.environ by default.

    Returns:
      A line about each: the value that holds, and why, or that the user chose it.
    """
    environment = os.environ if environment is None else environment
    lines = []
    for one in chosen:
        present = environment.get(one.variable, "")
        if one.flag:
            given = [w for w in present.split() if w.partition("=")[0] == one.flag]
            if not given:
                environment[one.variable] = f"{present} {one.flag}={one.value}".strip()
        else:
            given = [present] if one.variable in environment else []
            environment.setdefault(one.variable, one.value)
        if given:
            name = f"{one.variable}=" if not one.flag else f"{one.variable}: "
            lines.append(f"{name}{given[-1]}  as given in the environment")
        else:
            lines.append(f"{one}  {one.reason}")
    return lines


def check_deterministic(platform: str) -> None:
    """Raises ValueError if `training.deterministic` came too late to be in XLA's flags.

    Args:
      platform: of the devices: "gpu".
    """
    flag = f"{DETERMINISTIC.flag}={DETERMINISTIC.value}"
    if platform == "gpu" and flag not in os.environ.get("XLA_FLAGS", "").split():
        raise ValueError(
            f"training.deterministic: got True, but XLA_FLAGS has no {flag}, which must be there "
            "before JAX starts; train by main.py, or set it yourself"
        )

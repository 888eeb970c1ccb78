"""Accelerators that are not attached, as compile-only JAX devices."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from hare_jax.runtime import accelerator
from hare_jax.runtime.accelerator import Platform

GIB = 1 << 30

# Google's name of a slice -> its topology. The name counts chips; for v5p it counts cores, two per
# chip.
TPUS = {
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5e-128": "v5e:8x16",
    "v5e-256": "v5e:16x16",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v5p-32": "v5p:2x2x4",
    "v5p-64": "v5p:2x4x4",
    "v5p-128": "v5p:4x4x4",
    "v5p-256": "v5p:4x4x8",
    "v5p-512": "v5p:4x8x8",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
    "v6e-32": "v6e:4x8",
    "v6e-64": "v6e:8x8",
    "v6e-128": "v6e:8x16",
    "v6e-256": "v6e:16x16",
}
TPU_MEMORY = {"v5e": 15.75, "v5p": 95.74, "v6e": 31.25}  # GiB available to a program, per device


@dataclass(slots=True, frozen=True)
class Gpu:
    """An NVIDIA GPU of compute capability 9.0, as XLA needs to know it (from datasheets)."""

    name: str
    memory: float  # GiB
    bandwidth: float  # of memory, bytes per second
    l2_cache: int  # bytes


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", 79.6, 3.35e12, 50 << 20),
    "h200": Gpu("NVIDIA H200", 139.8, 4.8e12, 60 << 20),
}
# Share of the pool that is kept free: cuDNN's workspace and fragmentation are in no total.
MARGIN = 0.03


@dataclass(slots=True)
class Hardware:
    """Devices to compile for."""

    name: str
    devices: Sequence[jax.Device]
    memory: int  # bytes available to a program on each device


def find(name: str) -> Hardware:
    """Returns the hardware of a name.

    `v5e-8` is a TPU slice, `2xv5e-16` two slices, `h200` one GPU, `8xh200` eight GPUs of one
    machine, and `cpu` the devices of this process.

    Raises:
      ValueError: for an unknown name.
      RuntimeError: if the plugin that compiles for it is not installed.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(\S+)", name)
    number, kind = (int(match[1] or 1), match[2]) if match else (0, "")
    if number < 1 or kind not in {*TPUS, *GPUS, "cpu"}:
        raise ValueError(
            f"hardware {name!r} is not known; there are {', '.join([*TPUS, *GPUS])} and cpu, and "
            "multiples of them: 2xv5e-16 (slices), 8xh200 (GPUs of one machine)"
        )
    if kind in TPUS:
        return Hardware(name, _tpus(kind, number), int(TPU_MEMORY[kind.partition("-")[0]] * GIB))
    if kind in GPUS:
        memory = int(GPUS[kind].memory * accelerator.MEMORY_FRACTION * (1 - MARGIN) * GIB)
        return Hardware(name, _gpus(GPUS[kind], number), memory)
    devices = jax.devices("cpu")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hardware(name, devices, total // len(devices))


def _tpus(kind: str, slices: int) -> Sequence[jax.Device]:
    """Returns the devices of TPU slices; raises RuntimeError if libtpu is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise RuntimeError(f"{kind}: compiling for TPUs needs libtpu: pip install -e '.[tpu]'")
    accelerator.apply(accelerator.SETTINGS[Platform.TPU])
    # Without these, libtpu would query the network for the TPU that it runs on.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no device is used
    several = {"num_slices": slices} if slices > 1 else {}
    return topologies.get_topology_desc(TPUS[kind], "tpu", **several).devices


def _gpus(gpu: Gpu, number: int) -> Sequence[jax.Device]:
    """Returns GPUs of one machine; raises RuntimeError if JAX's CUDA plugin is not installed."""
    if not any(_installed(f"jax_plugins.xla_cuda{version}") for version in (12, 13)):
        raise RuntimeError(
            f"{gpu.name}: compiling for it needs JAX's CUDA plugin: pip install -e '.[gpu]'"
        )
    accelerator.apply(accelerator.SETTINGS[Platform.GPU])
    return topologies.get_topology_desc(
        gpu.name, "cuda", target_config=_target(gpu), topology=f"1x1x{number}"
    ).devices


def _installed(module: str) -> bool:
    """Returns whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _target(gpu: Gpu) -> str:
    """Returns a stream_executor.GpuTargetConfigProto in text format."""
    return f"""
        platform_name: "CUDA"
        device_description_str: "{gpu.name}"
        dnn_version_info {{ major: 9 minor: 12 }}
        runtime_version {{ major: 13 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: 9 }}
          core_count: 132
          fpus_per_core: 128
          clock_rate_ghz: 1.98
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          shared_memory_per_block: {48 << 10}
          shared_memory_per_block_optin: {227 << 10}
          shared_memory_per_core: {228 << 10}
          block_dim_limit_x: {2**31 - 1}
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          memory_bandwidth: {gpu.bandwidth:.0f}
          l2_cache_size: {gpu.l2_cache}
          device_memory_size: {gpu.memory * GIB:.0f}
        }}
    """

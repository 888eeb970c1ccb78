"""The number of devices, counted without taking them."""

from __future__ import annotations

import subprocess
import sys

from hare_jax.config import Mesh

SECONDS = 120  # after which a count is given up


def needs_devices(mesh: Mesh) -> bool:
    """Returns whether a mesh fits some numbers of devices only.

    >>> needs_devices(Mesh()), needs_devices(Mesh(data=2))
    (False, True)
    """
    sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    return -1 not in sizes or any(size > 1 for size in sizes)


def count_devices() -> int | None:
    """Returns the number of JAX's devices on this machine, or None if it cannot be found out.

    They are counted in a process of its own, so that this one holds no accelerator's memory while
    it does other work.
    """
    code = "import jax; print(jax.local_device_count())"
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return int(result.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None

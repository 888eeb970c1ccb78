"""Multi-process runs: connection, shared results and shared failures.

Each host (or each GPU) runs the same command. Process 0 writes files and prints. Work that only one
process does, or that can fail in only one process, runs through `on_process_zero` or
`on_all_processes`, so that no process waits for one that has stopped. With a single process these
functions do nothing else, and do not import JAX.
"""

from __future__ import annotations

import itertools
import os
import pickle
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hare_jax.config import Distributed, Launch
from hare_jax.runtime import accelerator

T = TypeVar("T")

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
MAX_WAIT_SECONDS = 30 * 86_400  # of the other processes, for work that process 0 does alone
MAX_VISIBLE_SECONDS = 30  # until a file of one host is visible on another, despite caches
MAX_ERROR_BYTES = 2000  # of an error's text that is sent to the other processes
_barriers = itertools.count()


class OtherProcessError(SystemExit):
    """Another process has stopped, so that this one must stop; the other one prints the reason."""


def initialize(config: Distributed) -> None:
    """Connects this process to the others of its run; must be called before any use of JAX.

    By flags: --config.distributed.coordinator=HOST:PORT --config.distributed.processes=2
    --config.distributed.process=0. On SLURM (under srun) and on TPUs, JAX detects these values.
    Elsewhere, and with launch "alone", there is a single process and nothing is done. A TPU without
    metadata of a pod (Colab, Kaggle, a container) is a single process too, which is printed.

    Processes that do not connect within `timeout` seconds exit with status 2 and one line; JAX
    itself would end them with a C++ stack trace.

    Raises:
      ValueError: if a flag is missing or wrong.
      OSError: if process 0 cannot listen at its port.
    """
    arguments = _arguments(config)
    if arguments is None:
        return
    if config.coordinator and config.process == 0:
        _check_port(config)
    import jax

    try:
        with _connected_within(config):
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=config.timeout + 60,  # later than our own
                shutdown_timeout_seconds=60,  # a process that failed waits this long for the others
            )
    # JAX found no cluster, or the metadata server cannot be reached (`requests` raises OSError).
    except (ValueError, OSError) as error:
        if arguments or _names_other_hosts():
            raise
        print(
            f"this TPU host has no metadata of a pod ({error}): continuing as a single process; "
            "for several hosts give distributed.coordinator, processes and process to each",
            flush=True,
        )
        return
    jax.devices()  # synchronizes all processes, before process 0 does any work of its own


def is_multi_process() -> bool:
    """Returns whether this process is one of several; does not import JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_process_zero() -> bool:
    """Returns whether this is process 0, which writes files and prints."""
    return not is_multi_process() or sys.modules["jax"].process_index() == 0


def print_once(text: str) -> None:
    """Prints a line, on process 0 only."""
    if is_process_zero():
        print(text, flush=True)


def on_process_zero(work: Callable[[], T]) -> T:
    """Returns the result of `work()`, which only process 0 runs; the others wait for it.

    The result must be picklable. If `work` raises, process 0 raises the same exception.

    Raises:
      OtherProcessError: on the other processes, if `work` raised on process 0.
    """
    if not is_multi_process():
        return work()
    outcome: tuple[Any, str] = (None, "")  # (result, text of the error)
    failure: BaseException | None = None
    if is_process_zero():
        try:
            outcome = (work(), "")
        except (Exception, SystemExit) as error:
            failure, outcome = error, (None, _error_text(error))
    _barrier()
    value, error_text = _broadcast_from_process_zero(outcome)
    if failure is not None:
        raise failure
    if error_text:
        raise OtherProcessError(f"process 0 stopped: {error_text}")
    return value


def on_all_processes(work: Callable[[], T]) -> T:
    """Returns the result of `work()`, which every process runs; if it raises in one, all raise.

    Processes must not wait for each other inside `work`.

    Raises:
      OtherProcessError: if `work` raised in another process, whose number the message has.
    """
    if not is_multi_process():
        return work()
    value, failure = None, None
    try:
        value = work()
    except Exception as error:
        failure = error
    error_texts = _gather("" if failure is None else _error_text(failure))
    if failure is not None:
        raise failure
    for process, text in enumerate(error_texts):
        if text:
            raise OtherProcessError(f"process {process} stopped: {text}")
    return value  # type: ignore[return-value]


def check_shared(directory: Path) -> None:
    """Raises ValueError unless all processes see the same `directory`."""
    if not is_multi_process():
        return

    def create_file() -> str:
        name = f".shared-{uuid.uuid4().hex}"
        (directory / name).touch()
        return name

    def wait_for_file() -> None:
        deadline = time.monotonic() + MAX_VISIBLE_SECONDS
        while not (directory / name).exists():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{directory}: this process sees another folder than process 0 does; put it "
                    "on a file system that all hosts share (NFS, Lustre, Filestore)"
                )
            time.sleep(0.2)

    name = on_process_zero(create_file)
    try:
        on_all_processes(wait_for_file)
    finally:
        if is_process_zero():
            (directory / name).unlink()


def _arguments(config: Distributed) -> dict[str, Any] | None:
    """Returns the arguments of jax.distributed.initialize; None for a single process."""
    if config.launch is Launch.ALONE:
        return None
    if config.coordinator or config.processes or config.process != -1:
        _check_flags(config)
        return {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
            "cluster_detection_method": "deactivate",
        }
    if _on_slurm():
        arguments: dict[str, Any] = {"cluster_detection_method": "slurm"}
        if os.environ["SLURM_NTASKS"] == os.environ.get("SLURM_NNODES"):
            arguments["local_device_ids"] = []  # one task per host uses all its GPUs
        return arguments
    return {} if accelerator.has_tpu() else None


def _check_flags(config: Distributed) -> None:
    """Raises ValueError if one of the three flags is missing or out of range."""
    c = config
    if not re.fullmatch(r"\S+:\d+", c.coordinator):
        raise ValueError(
            f"distributed.coordinator={c.coordinator!r}: expected HOST:PORT of process 0, the same "
            "for every process"
        )
    if c.processes < 1:
        raise ValueError(
            f"distributed.processes={c.processes}: expected the total number of processes; "
            "add --config.distributed.processes=N"
        )
    if not 0 <= c.process < c.processes:
        raise ValueError(
            f"distributed.process={c.process}: expected 0 to {c.processes - 1}, a different "
            f"number for each of the {c.processes} processes; add --config.distributed.process=..."
        )


def _check_port(config: Distributed) -> None:
    """Raises OSError if the port is not free; JAX would crash without a message."""
    port = int(config.coordinator.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6
        ).close()
    except (OSError, OverflowError) as error:
        raise OSError(
            f"{_who(config)} cannot listen at port {port}: {error}; another program or an "
            "earlier run may use it; give another port to all processes"
        ) from error


def _on_slurm() -> bool:
    """Returns whether this is one of several tasks of a SLURM job step (srun)."""
    return all(name in os.environ for name in SLURM) and int(os.environ["SLURM_NTASKS"]) > 1


def _names_other_hosts() -> bool:
    """Returns whether the environment names several TPU hosts or slices."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return "," in hosts or int(os.environ.get("MEGASCALE_NUM_SLICES") or 1) > 1


@contextmanager
def _connected_within(config: Distributed) -> Iterator[None]:
    """Ends the process with one line if the processes do not connect in time."""

    def give_up() -> None:
        hint = (
            "start the others with the same coordinator, each with its own process number"
            if config.process == 0
            else "check that process 0 runs, that this is its address, that no two processes have "
            "the same number, and that no firewall or proxy blocks the connection"
        )
        if not config.coordinator:
            hint = (
                "start one on every host (srun; gcloud ... --worker=all); for a single process, "
                "set --config.distributed.launch=alone"
            )
        line = f"{_who(config)} has waited {config.timeout} s for the others: {hint}"
        print(line, file=sys.stderr, flush=True)
        os._exit(2)  # the main thread waits inside JAX, where no exception can reach it

    timer = threading.Timer(config.timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _who(config: Distributed) -> str:
    """Returns the name of this process for error messages."""
    if not config.coordinator:
        return "this process"
    return f"process {config.process} of {config.processes}, coordinator {config.coordinator},"


def _barrier() -> None:
    """Waits for all processes: a barrier on the hosts, since one on devices times out."""
    from orbax.checkpoint import multihost

    key = f"hare_jax.first.{next(_barriers)}"
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=MAX_WAIT_SECONDS * 1000)


def _broadcast_from_process_zero(value: Any) -> Any:
    """Returns the value of process 0, on every process."""
    from jax.experimental import multihost_utils

    # Two broadcasts: the size first, so that all processes have an array of the same shape.
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = data if is_process_zero() else np.zeros(size, np.uint8)
    return pickle.loads(multihost_utils.broadcast_one_to_all(data).tobytes())


def _gather(text: str) -> list[str]:
    """Returns the text of each process, cut to MAX_ERROR_BYTES."""
    from jax.experimental import multihost_utils

    data = np.zeros(MAX_ERROR_BYTES, np.uint8)
    encoded = text.encode()[:MAX_ERROR_BYTES]
    data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(data))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def _error_text(error: BaseException) -> str:
    """Returns the error as one line; a SystemExit has printed its reason already."""
    if isinstance(error, SystemExit):
        return "see its output"
    return " ".join(str(error).split()) or type(error).__name__

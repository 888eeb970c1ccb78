"""Several processes that train as one: how they meet, agree, and leave at the same step.

Each host (or each GPU) runs the same command. Process 0 writes and speaks; what a process does
alone, or may fail at alone, goes through `first` and `together`, so that none waits for one that
has gone. With one process all of this is nothing, and loads no JAX.
"""

from __future__ import annotations

import importlib.util
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

T = TypeVar("T")

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
LONGEST_WAIT = 30 * 86_400  # seconds that the others wait for what process 0 does alone
SEEN_WITHIN = 30  # seconds after which a file of one host is seen by another, caches allowed for
TOLD = 2000  # bytes of an error that the others are told
_waits = itertools.count()


class OtherProcessError(SystemExit):
    """Another process has stopped, so that this one must; that one says why, in full."""


def initialize(config: Distributed) -> None:
    """Joins this process to the others of its run; call it before anything else asks JAX.

    By flags: --config.distributed.coordinator=HOST:PORT --config.distributed.processes=2
    --config.distributed.process=0. On SLURM (under srun) and on TPUs, JAX finds all of this out;
    elsewhere, and with launch "alone", this process is alone and nothing is done.

    Raises ValueError for flags that are missing or wrong, OSError where process 0 cannot listen.
    Processes that do not meet within `timeout` seconds end with exit status 2 and one line: JAX
    would end them too, with a page of C++.
    """
    arguments = _arguments(config)
    if arguments is None:
        return
    if config.coordinator and config.process == 0:
        _check_port(config)
    import jax

    with _met_within(config):
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=config.timeout + 60,  # ours comes first
            shutdown_timeout_seconds=60,  # of one that failed alone, for the others
        )
    jax.devices()  # here all meet once more, before process 0 may go to some work of its own


def is_multi_process() -> bool:
    """Whether this process is one of several. Loads no JAX where none was."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def is_process_zero() -> bool:
    """Whether it is this process that writes and speaks."""
    return not is_multi_process() or sys.modules["jax"].process_index() == 0


def print_once(text: str) -> None:
    """Prints a line, at process 0 alone."""
    if is_process_zero():
        print(text, flush=True)


def on_process_zero(work: Callable[[], T]) -> T:
    """What `work()` gives at process 0, which alone does it; the others wait, however long.

    What it raises there is raised there; the others raise Elsewhere. The result is pickled.
    """
    if not is_multi_process():
        return work()
    answer: tuple[Any, str] = (None, "")
    failure: BaseException | None = None
    if is_process_zero():
        try:
            answer = (work(), "")
        except (Exception, SystemExit) as error:
            failure, answer = error, (None, _told(error))
    _wait_for_first()
    value, wrong = _from_first(answer)
    if failure is not None:
        raise failure
    if wrong:
        raise OtherProcessError(f"process 0 stopped: {wrong}")
    return value


def on_all_processes(work: Callable[[], T]) -> T:
    """What `work()` gives, done by every process; where it raises in one, all raise.

    The others raise Elsewhere, which names the process. Inside `work` processes must not wait
    for one another.
    """
    if not is_multi_process():
        return work()
    value, failure = None, None
    try:
        value = work()
    except Exception as error:
        failure = error
    wrong = _gather("" if failure is None else _told(failure))
    if failure is not None:
        raise failure
    for process, text in enumerate(wrong):
        if text:
            raise OtherProcessError(f"process {process} stopped: {text}")
    return value  # type: ignore[return-value]


def check_shared(directory: Path) -> None:
    """Raises ValueError where the processes do not all see the same `directory`."""
    if not is_multi_process():
        return

    def leave_a_file() -> str:
        name = f".shared-{uuid.uuid4().hex}"
        (directory / name).touch()
        return name

    def see_it() -> None:
        deadline = time.monotonic() + SEEN_WITHIN
        while not (directory / name).exists():
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{directory}: this process sees another folder than process 0 does; put it "
                    "on a file system that all hosts share (NFS, Lustre, Filestore)"
                )
            time.sleep(0.2)

    name = on_process_zero(leave_a_file)
    try:
        on_all_processes(see_it)
    finally:
        if is_process_zero():
            (directory / name).unlink()


def _arguments(config: Distributed) -> dict[str, Any] | None:
    """What jax.distributed.initialize is to be told; None for a process that is alone."""
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
            arguments["local_device_ids"] = []  # a task a host has all its GPUs, not the first
        return arguments
    return {} if _on_tpu() else None


def _check_flags(config: Distributed) -> None:
    c = config
    if not re.fullmatch(r"\S+:\d+", c.coordinator):
        raise ValueError(
            f"distributed.coordinator={c.coordinator!r}: expected HOST:PORT of process 0, the same "
            "for every process"
        )
    if c.processes < 1:
        raise ValueError(
            f"distributed.processes={c.processes}: expected how many processes there are in all; "
            "add --config.distributed.processes=N"
        )
    if not 0 <= c.process < c.processes:
        raise ValueError(
            f"distributed.process={c.process}: expected 0 to {c.processes - 1}, another for each "
            f"of the {c.processes} processes; add --config.distributed.process=..."
        )


def _check_port(config: Distributed) -> None:
    """JAX would crash, without a word, where it cannot listen at the port."""
    port = int(config.coordinator.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        socket.create_server(
            ("", port), family=family, dualstack_ipv6=family == socket.AF_INET6
        ).close()
    except (OSError, OverflowError) as error:
        raise OSError(
            f"{_who(config)} cannot listen at port {port}: {error}; is another program there, or "
            "an earlier run? Give another port to all processes"
        ) from error


def _on_slurm() -> bool:
    """Whether this is a task of a job step (srun) of several."""
    return all(name in os.environ for name in SLURM) and int(os.environ["SLURM_NTASKS"]) > 1


def _on_tpu() -> bool:
    """Whether this host has TPUs, and JAX may use them."""
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    allowed = os.environ.get("JAX_PLATFORMS") or "tpu"
    return bool(chips) and "tpu" in allowed and importlib.util.find_spec("libtpu") is not None


@contextmanager
def _met_within(config: Distributed) -> Iterator[None]:
    """Ends the process with a line where the processes have not met in time."""

    def give_up() -> None:
        hint = (
            "start the others, with the same coordinator and another process each"
            if config.process == 0
            else "check that process 0 runs, that this is its address, that no two processes have "
            "the same number, and that no firewall or proxy is between"
        )
        if not config.coordinator:
            hint = (
                "start one on every host (srun; gcloud ... --worker=all); where this process is "
                "meant to be alone, --config.distributed.launch=alone"
            )
        line = f"{_who(config)} has waited {config.timeout} s for the others: {hint}"
        print(line, file=sys.stderr, flush=True)
        os._exit(2)  # the thread that waits is inside JAX, and hears nothing

    timer = threading.Timer(config.timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _who(config: Distributed) -> str:
    if not config.coordinator:
        return "this process"
    return f"process {config.process} of {config.processes}, coordinator {config.coordinator},"


def _wait_for_first() -> None:
    """A barrier of processes, not of devices: those do not wait for hours."""
    from orbax.checkpoint import multihost

    key = f"hare_jax.first.{next(_waits)}"
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=LONGEST_WAIT * 1000)


def _from_first(value: Any) -> Any:
    """The value that process 0 has."""
    from jax.experimental import multihost_utils

    data = np.frombuffer(pickle.dumps(value), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
    data = data if is_process_zero() else np.zeros(size, np.uint8)
    return pickle.loads(multihost_utils.broadcast_one_to_all(data).tobytes())


def _gather(text: str) -> list[str]:
    """The text of each process."""
    from jax.experimental import multihost_utils

    data = np.zeros(TOLD, np.uint8)
    encoded = text.encode()[:TOLD]
    data[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(data))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def _told(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it says why"
    return " ".join(str(error).split()) or type(error).__name__

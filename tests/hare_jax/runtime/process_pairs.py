"""Pairs of processes that train as one over loopback, each with two devices, for the tests.

    python process_pairs.py SETTINGS DIRECTORY

    whole     trains to the end, after it has tried what processes say to one another
    cut       is killed (SIGKILL); a file that process 1 wrote of its last checkpoint is cut short;
              then it goes on, until process 1 alone is sent SIGTERM
    absent    process 1, whose process 0 never comes
    taken     process 0, whose port another program has

What process P prints goes to RUN-P.out and RUN-P.err; what the steps of `whole` saw, to
whole-P.seen. Prints as JSON the exit statuses. Everything is imported once: the processes are
forks, made before JAX has any device.
"""

import json
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import portpicker

from hare_jax.config import Distributed
from hare_jax.runtime import distributed
from hare_jax.training import train

COMPILE_STEP = train.compile_step
Seen = Callable[[int, dict[str, jax.Array]], None]


def pair(name: str, work: Callable[[int], None]) -> list[int]:
    """Exit statuses of two processes that do `work`, having met."""
    port = portpicker.pick_unused_port()

    def met(process: int) -> None:
        distributed.initialize(Distributed(coordinator=f"127.0.0.1:{port}", **_of(process)))
        work(process)

    children = [fork(f"{name}-{process}", lambda p=process: met(p)) for process in (0, 1)]
    return [wait(child) for child in children]


def _of(process: int) -> dict[str, int]:
    return {"processes": 2, "process": process, "timeout": 60}


def fork(name: str, work: Callable[[], None]) -> int:
    """A process that ends with the status of the SystemExit that `work` raises; 1 is an error."""
    child = os.fork()
    if child:
        return child
    for number, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    try:
        work()
        jax.distributed.shutdown()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(settings: dict[str, Any], name: str, before_step: Seen) -> None:
    """Trains; `before_step` is told of each step and its batch."""

    def told(*arguments: Any) -> Any:
        step_fn = COMPILE_STEP(*arguments)

        def run_step(state: Any, batch: Any) -> Any:
            before_step(int(state.step), batch)
            return step_fn(state, batch)

        return run_step

    train.compile_step = told
    train.run(settings["model"], settings["training"], settings["mixture"], Path(name))


def whole(settings: dict[str, Any], process: int) -> None:
    said = {
        "from the first": distributed.on_process_zero(lambda: {"process": process}),
        "alone": distributed.on_all_processes(lambda: process),
        "the first fails": _failure(lambda: distributed.on_process_zero(_refuse)),
        "one fails": _failure(
            lambda: distributed.on_all_processes(_refuse if process == 1 else int)
        ),
        "same folder": _failure(lambda: distributed.check_shared(Path.cwd())),
        "other folder": _failure(lambda: distributed.check_shared(Path(f"own-{process}"))),
    }
    Path(f"said-{process}.json").write_text(json.dumps(said))

    def before_step(step: int, batch: dict[str, jax.Array]) -> None:
        rows = {
            shard.index[0].start + i: (int(source), int(record))
            for shard, sources in zip(
                batch["record_id_B"].addressable_shards,
                batch["source_id_B"].addressable_shards,
                strict=True,
            )
            for i, (source, record) in enumerate(
                zip(np.asarray(sources.data), np.asarray(shard.data), strict=True)
            )
        }
        with Path(f"whole-{process}.seen").open("a") as seen:
            seen.write(json.dumps({"step": step, "rows": sorted(rows.items())}) + "\n")

    run(settings, "whole", before_step)


def killed(settings: dict[str, Any], process: int) -> None:
    def before_step(step: int, batch: Any) -> None:
        while step == 10 and not Path("cut/checkpoints/8").exists():
            time.sleep(0.01)
        if step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    run(settings, "cut", before_step)


def terminated(settings: dict[str, Any], process: int) -> None:
    def before_step(step: int, batch: Any) -> None:
        if step == 5 and process == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if step > 5:
            time.sleep(0.5)  # JAX looks for the signal every second

    run(settings, "cut", before_step)


def cut_short(checkpoint: Path) -> None:
    """Half of what process 1 wrote of the parameters is gone."""
    files = (checkpoint / "params" / "ocdbt.process_1" / "d").iterdir()
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 4)


def taken() -> None:
    with socket.create_server(("", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
        distributed.initialize(Distributed(coordinator=coordinator, **_of(0)))


def absent() -> None:
    coordinator = f"127.0.0.1:{portpicker.pick_unused_port()}"
    distributed.initialize(Distributed(coordinator=coordinator, **_of(1) | {"timeout": 1}))


def _refuse() -> None:
    raise ValueError("no room")


def _failure(work: Callable[[], Any]) -> str:
    try:
        work()
    except (ValueError, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(settings_path: str, directory: str) -> None:
    settings = pickle.loads(Path(settings_path).read_bytes())
    os.chdir(directory)
    for process in (0, 1):
        Path(f"own-{process}").mkdir()
    os.environ["JAX_PLATFORMS"] = "cpu"
    distributed.MAX_VISIBLE_SECONDS = 1
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_compilation_cache_dir", settings["compiled"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    statuses = {
        "absent": wait(fork("absent-1", absent)),
        "taken": wait(fork("taken-0", taken)),
        "whole": pair("whole", lambda process: whole(settings, process)),
        "killed": pair("killed", lambda process: killed(settings, process)),
    }
    cut_short(Path("cut/checkpoints/8"))
    statuses["terminated"] = pair("terminated", lambda process: terminated(settings, process))
    print(json.dumps(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])

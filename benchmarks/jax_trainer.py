"""Runs the train step of hare-jax on synthetic tokens, for benchmarks.train_speed.

    python -m benchmarks.jax_trainer < requests > answers

Requests and answers are lines of JSON. The first request describes the run:

    {"model": fields of hare_jax.config.Model, "batch": 8, "accumulation": 1, "loss_chunks": 8,
     "sequence": 512, "segments": 1, "profile": ""}

`segments` is the number of documents per row; with 1 no segment ids are passed. The answer
describes the compiled program and the device. {"steps": N} is then answered with the seconds of N
steps, and {} with the memory used, which ends the process. `profile` is a folder for a trace of the
first N steps.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hare_jax.config import DType, Mesh, Model, Optimizer, Stage, Training, from_plain
from hare_jax.data.batch import Batch
from hare_jax.data.order import schedule_without_data
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.tracking.metrics import PEAK_FLOPS
from hare_jax.training import faults, optim
from hare_jax.training.state import init_state, place_state
from hare_jax.training.step import compile_step, make_step

WARM_UP = 2  # steps before any is timed
STEPS = 10_000  # of the schedule, more than are run


def requests() -> Iterator[dict[str, Any]]:
    """Yields the requests from standard input."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(value: dict[str, Any]) -> None:
    """Writes one answer."""
    print(json.dumps(value), flush=True)


def synthetic(vocab_size: int, batch: int, sequence: int, segments: int) -> Batch:
    """Returns random tokens in rows of `segments` documents, cut at random places."""
    rng = np.random.default_rng(0)
    row = rng.integers(3, vocab_size, (batch, sequence + 1), dtype=np.int32)
    ids = np.zeros((batch, sequence + 1), np.int32)
    for index in range(batch):
        ids[index, rng.choice(np.arange(1, sequence), segments - 1, replace=False)] = 1
    ids = np.cumsum(ids, axis=1, dtype=np.int32) + 1
    starts = np.where(np.diff(ids, axis=1, prepend=0) > 0, np.arange(sequence + 1)[None], 0)
    positions = np.arange(sequence + 1)[None] - np.maximum.accumulate(starts, axis=1)
    return {
        "tokens_BT": row[:, :-1],
        "targets_BT": row[:, 1:],
        "loss_mask_BT": (ids[:, 1:] == ids[:, :-1]).astype(np.float32),
        "segment_ids_BT": ids[:, :-1],
        "positions_BT": positions[:, :-1].astype(np.int32),
        "record_id_B": np.arange(batch, dtype=np.int32),
        "source_id_B": np.zeros(batch, np.int32),
    }


def model_of(fields: dict[str, Any]) -> Model:
    """Returns the model config, in float32 on a CPU, where bfloat16 is slower."""
    model = from_plain(Model, fields)
    if jax.default_backend() == "cpu":
        model.compute_dtype = DType.FLOAT32
    return model


class JaxTrainer:
    """A compiled train step and its state."""

    def __init__(self, request: dict[str, Any]):
        """Initializes the parameters and compiles the step."""
        model, T = model_of(request["model"]), request["sequence"]
        training = Training(
            stages=[Stage("speed", mixture="any", tokens=STEPS * request["batch"] * T)],
            batch_size=request["batch"],
            accumulation=request["accumulation"],
            loss_chunks=request["loss_chunks"],
            optimizer=Optimizer(warmup_steps=10),
            mesh=Mesh(),
        )
        mesh = sharding.make_mesh(training.mesh)
        jax.set_mesh(mesh)
        order = schedule_without_data(training, T)
        optimizer = optim.build(training.optimizer, order.steps)
        placed = place_state(model, optimizer, mesh, faults.window(training.faults))
        self.state = init_state(model, 0, optimizer, placed)
        rows = sharding.local_rows(mesh, training.batch_size, training.accumulation)
        local = synthetic(model.vocab_size, training.batch_size, T, request["segments"])
        self.batch: Batch = sharding.place(local, mesh, training.batch_size, rows)
        if request["segments"] == 1:
            self.batch["segment_ids_BT"] = None
        started = time.perf_counter()
        step = make_step(model, training, optimizer, order, num_sources=1)
        self.step = compile_step(step, self.state, self.batch)
        self.compile_seconds = time.perf_counter() - started
        self.model = model

    def run(self, steps: int) -> dict[str, float]:
        """Returns the wall seconds and CPU seconds of some steps, and the last loss."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.state, values = self.step(self.state, self.batch)
        loss = float(values["loss"])
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "loss": loss,
        }


def memory() -> int:
    """Returns the peak memory in bytes: of the device, or of this process on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Answers requests until the empty one."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    asked = requests()
    request = next(asked)
    trainer = JaxTrainer(request)
    trainer.run(WARM_UP)
    device = jax.devices()[0]
    answer(
        {
            "platform": device.platform,
            "device": device.device_kind,
            "devices": jax.device_count(),
            "dtype": trainer.model.compute_dtype.value,
            "peak_flops": PEAK_FLOPS.get(device.device_kind),
            "parameters": decoder.num_params(trainer.model),
            "compile_seconds": trainer.compile_seconds,
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "flax")},
        }
    )
    profile = Path(request["profile"]) if request["profile"] else None
    for request in asked:
        if not request:
            answer({"memory": memory()})
            return
        with jax.profiler.trace(str(profile)) if profile else contextlib.nullcontext():
            answer(trainer.run(request["steps"]))
        profile = None


if __name__ == "__main__":
    main()

"""Measures how long saving a checkpoint delays the next training step.

    python -m benchmarks.checkpoint_stall [--saves 7] [--d_model 384] [--layers 4] [--batch 4]

Trains a model on random tokens and saves it every few steps, as the training loop does. Prints the
median and range of: a step on its own; the stall of a save (checksums, and the copy to the host); a
step during which the checkpoint is written in the background; and the duration of the writing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.jax_trainer import synthetic
from hare_jax.config import Checkpointing, DType, Mesh, Model, Optimizer, Stage, Training
from hare_jax.data.order import schedule_without_data
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.training import optim
from hare_jax.training.checkpoint import Checkpoints
from hare_jax.training.state import State, init_state, place_state
from hare_jax.training.step import compile_step, make_step

T = 256


def main() -> None:
    """Parses the options, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saves", type=int, default=7)
    parser.add_argument("--d_model", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help=f"rows of {T} tokens")
    arguments = parser.parse_args()
    model = Model(
        num_layers=arguments.layers,
        d_model=arguments.d_model,
        num_heads=arguments.d_model // 64,
        num_kv_heads=arguments.d_model // 64,
        d_ff=arguments.d_model * 8 // 3 // 32 * 32,
        compute_dtype=DType.FLOAT32 if jax.default_backend() == "cpu" else DType.BFLOAT16,
    )
    device = jax.devices()[0].device_kind
    print(
        f"{decoder.num_params(model):,} parameters, {arguments.batch * T:,} tokens a step, {device}"
    )
    with tempfile.TemporaryDirectory() as directory:
        times = measure(model, arguments.batch, arguments.saves, Path(directory))
    for name, seconds in times.items():
        print(
            f"{name:<22} median {statistics.median(seconds):8.3f} s   "
            f"from {min(seconds):.3f} to {max(seconds):.3f}"
        )
    ratio = statistics.median(times["stall of a save"]) / statistics.median(times["step alone"])
    print(f"a save keeps the loop for {ratio:.2f} of a step")


def measure(model: Model, batch_size: int, saves: int, directory: Path) -> dict[str, list[float]]:
    """Returns the seconds of each save and of the steps around it; the first save is a warm-up."""
    training = Training(
        stages=[Stage("only", "all", batch_size * T * 1000)],
        batch_size=batch_size,
        optimizer=Optimizer(warmup_steps=10),
    )
    order = schedule_without_data(training, T)
    mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
    optimizer = optim.build(training.optimizer, order.steps)
    times: dict[str, list[float]] = {}
    with (
        jax.set_mesh(mesh),
        Checkpoints(directory, Checkpointing(), model, "random tokens") as checkpoints,
    ):
        placed = place_state(model, optimizer, mesh)
        state = init_state(model, 0, optimizer, placed)
        local = synthetic(model.vocab_size, batch_size, T, segments=1)
        batch = sharding.place(local, mesh, batch_size, slice(0, batch_size))
        step_fn = compile_step(make_step(model, training, optimizer, order, 1), state, batch)

        def step(state: State) -> State:
            return jax.block_until_ready(step_fn(state, batch)[0])

        def timed(name: str, work: Any, *given: Any) -> Any:
            started = time.perf_counter()
            result = work(*given)
            times.setdefault(name, []).append(time.perf_counter() - started)
            return result

        for _ in range(saves + 1):
            state = timed("step alone", step, step(state))
            writing = time.perf_counter()
            timed("stall of a save", checkpoints.save, state, {})
            state = timed("step beside writing", step, state)
            checkpoints.wait()
            times.setdefault("writing in all", []).append(time.perf_counter() - writing)
    return {name: seconds[1:] for name, seconds in times.items()}


if __name__ == "__main__":
    main()

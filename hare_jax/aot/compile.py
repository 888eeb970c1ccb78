"""Ahead-of-time compilation of the train step: memory and communication on other hardware.

The step is the one that train.py runs, without arrays. Memory, donation and collectives are those
of the compiled program; only the search for the largest batch extrapolates.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.aot import hardware
from hare_jax.aot.collectives import Traffic, collectives
from hare_jax.config import AheadOfTime, Model, Training
from hare_jax.data.batch import SPEC, Batch
from hare_jax.data.order import schedule_without_data
from hare_jax.files import write_json
from hare_jax.model import decoder
from hare_jax.model.constraints import BATCH_AXES
from hare_jax.model.kernels.cudnn import as_on_hopper
from hare_jax.runtime import sharding
from hare_jax.tracking.metrics import PEAK_FLOPS
from hare_jax.training import faults, optim
from hare_jax.training.state import State, place_state
from hare_jax.training.step import compile_step, make_step

GIB = 1 << 30
MAX_COMPILATIONS = 8  # of a search


@dataclass(slots=True)
class Program:
    """The memory and communication of a compiled train step; sizes are bytes per device.

    For a program that the compiler refuses, only `total` is known: the memory that it would need.
    """

    rows: int  # sequences per device in one forward pass
    batch_size: int  # sequences per step, over all devices
    accumulation: int  # parts of the batch
    seconds: float  # of tracing and compilation
    total: int  # memory of the program
    limit: int  # memory of a device
    parameters: int
    optimizer: int  # state of the optimizer
    batch: int = 0
    temporaries: int = 0
    outputs: int = 0  # except the donated state
    code: int = 0
    donated: int = 0  # of `state`, updated in place
    state: int = 0  # parameters, optimizer and the rest of the training state
    collectives: dict[str, Traffic] | None = None  # kind -> traffic; None: the compiler refused it

    @property
    def fits(self) -> bool:
        """True if the program fits into the memory of a device."""
        return self.total <= self.limit


def run(config: AheadOfTime, workdir: Path) -> dict[str, Path]:
    """Compiles the step, prints its costs, and writes them to `workdir`/aot-HARDWARE.json.

    Raises:
      ValueError: for unknown hardware, or a batch or mesh that does not fit it.
      RuntimeError: if the plugin that compiles for it is not installed.
    """
    jax.config.update("jax_platforms", "cpu")  # no accelerator of this machine is used
    target = hardware.find(config.hardware)
    mesh = sharding.make_mesh(config.training.mesh, target.devices)
    print(describe_target(config, target, mesh), flush=True)
    program = compile_and_print(config, target, mesh, config.training)
    print(describe(config, mesh, program), flush=True)
    largest = search(config, target, mesh, program) if config.largest else None
    if largest is not None:
        print(describe_largest(config, mesh, largest), flush=True)
    path = workdir / f"aot-{config.hardware}.json"
    values = {"configured": asdict(program), "largest": largest and asdict(largest)}
    write_json(path, values)
    return {"compiled": path}


def compile_for(
    model: Model,
    training: Training,
    sequence_length: int,
    mesh: jax.sharding.Mesh,
    limit: int,
) -> Program:
    """Compiles the step of `training.batch_size` sequences for the devices of `mesh`.

    Args:
      model: the model.
      training: batch, accumulation, optimizer and stages.
      sequence_length: tokens per sequence.
      mesh: its devices need not be attached.
      limit: bytes available to a program on each device.

    Raises:
      ValueError: if the batch or a parameter does not fit the mesh.
    """
    order = schedule_without_data(training, sequence_length)
    optimizer = optim.build(training.optimizer, order.steps)
    state = place_state(model, optimizer, mesh, faults.window(training.faults))
    batch = place_batch(mesh, training.batch_size, sequence_length)
    program = Program(
        rows=sharding.rows_at_a_time(mesh, training.batch_size, training.accumulation),
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        seconds=0.0,
        total=0,
        limit=limit,
        parameters=bytes_per_device(state.params),
        optimizer=bytes_per_device(state.optimizer),
        state=bytes_per_device(state),
    )
    started = time.perf_counter()
    try:
        with jax.set_mesh(mesh), _queries_answered(mesh):
            step = make_step(model, training, optimizer, order, num_sources=1)
            compiled = compile_step(step, state, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        program.total = memory_in_error(str(error), program.state, limit)
    else:
        _measure(program, compiled)
    program.seconds = time.perf_counter() - started
    return program


def place_batch(mesh: jax.sharding.Mesh, batch_size: int, sequence_length: int) -> Batch:
    """Returns a batch of jax.ShapeDtypeStruct, sharded by rows along the mesh's batch axes."""
    shape = (batch_size, sequence_length)
    return {
        key: jax.ShapeDtypeStruct(
            shape[:dimensions],
            dtype,
            sharding=NamedSharding(mesh, P(BATCH_AXES, *(None,) * (dimensions - 1))),
        )
        for key, (dimensions, dtype) in SPEC.items()
    }


def bytes_per_device(placed: State | Any) -> int:
    """Returns the bytes of arrays on one device, without the padding of tiled layouts."""
    return sum(
        math.prod(a.sharding.shard_shape(a.shape)) * jax.numpy.dtype(a.dtype).itemsize
        for a in jax.tree.leaves(placed)
    )


def memory_in_error(message: str, arguments: int, limit: int) -> int:
    """Extracts the bytes that a program needs from the error of a compiler that refuses it.

    "Ran out of memory in memory space hbm. Used 20.52G of 15.75G hbm."
    "the total memory required for HLO temporaries (19.83G) exceeds available HBM (15.75G)"

    Args:
      message: the error.
      arguments: bytes of the arguments, which the second form does not include.
      limit: bytes of a device.

    Returns:
      limit + 1 if the message has no number.
    """
    forms = ((r"Used (.+?)([MGT]) of", 0), (r"temporaries \((.+?)([MGT])\)", arguments))
    for pattern, extra in forms:
        if match := re.search(pattern, message):
            return extra + int(float(match[1]) * {"M": 1 << 20, "G": GIB, "T": 1 << 40}[match[2]])
    return limit + 1


def _queries_answered(mesh: jax.sharding.Mesh) -> AbstractContextManager[None]:
    """Returns a context in which kernels that query the GPU get the answers of a Hopper GPU."""
    return as_on_hopper() if mesh.devices.flat[0].platform == "gpu" else nullcontext()


def _measure(program: Program, compiled: Any) -> None:
    """Fills in memory and collectives from the compiled program."""
    memory = compiled.memory_analysis()
    program.batch = memory.argument_size_in_bytes - program.state
    program.temporaries = memory.temp_size_in_bytes
    program.outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    program.code = memory.generated_code_size_in_bytes
    program.donated = memory.alias_size_in_bytes
    program.total = (
        memory.argument_size_in_bytes + program.temporaries + program.outputs + program.code
    )
    program.collectives = collectives(compiled.as_text())


def search(
    config: AheadOfTime, target: hardware.Hardware, mesh: jax.sharding.Mesh, known: Program
) -> Program | None:
    """Finds the program with the most rows per device in one forward pass that fits.

    If the configured batch does not fit in one part, the search uses a batch in parts.

    Args:
      config: the job.
      target: the hardware.
      mesh: over its devices.
      known: the program of the configured batch.

    Returns:
      None if not even one row fits.
    """
    accumulation = known.accumulation if known.fits else max(2, known.accumulation)
    programs = {known.rows: known} if accumulation == known.accumulation else {}

    def measure(rows: int) -> int:
        if rows not in programs:
            batch_size = rows * accumulation * sharding.batch_shares(mesh)
            training = replace(config.training, batch_size=batch_size, accumulation=accumulation)
            programs[rows] = compile_and_print(config, target, mesh, training)
        return programs[rows].total

    rows = largest_below(measure, target.memory, known={r: p.total for r, p in programs.items()})
    return programs[rows] if rows else None


def largest_below(measure: Callable[[int], int], limit: int, known: dict[int, int]) -> int:
    """Finds the largest n >= 1 with measure(n) <= limit, or 0, with few measurements.

    `measure` grows about linearly. The next n is proposed by the line through the largest n that
    fits and the measured point nearest to it; if the proposal is known not to fit, the search
    bisects. It ends if n + 1 is known not to fit, if the line predicts that n + 1 does not fit, or
    after MAX_COMPILATIONS measurements.

        >>> largest_below(lambda n: 5 + 2 * n, limit=40, known={})  # measures 1, 2, 17
        17

    Args:
      measure: n -> size.
      limit: maximum size.
      known: n -> size, measured before.
    """
    points = dict(known)
    if not any(value <= limit for value in points.values()):
        points[1] = measure(1)
    for _ in range(MAX_COMPILATIONS):
        fit = max((n for n, value in points.items() if value <= limit), default=0)
        over = min((n for n, value in points.items() if value > limit), default=sys.maxsize)
        n = _extrapolate(points, fit, limit) if fit else 0
        if n >= over:  # the line is wrong
            n = (fit + over) // 2
        if n == fit:
            return fit
        points[n] = measure(n)
    return max(n for n, value in points.items() if value <= limit)


def _extrapolate(points: dict[int, int], fit: int, limit: int) -> int:
    """Returns the largest n that fits by the line through `fit` and the point nearest to it."""
    others = sorted((abs(n - fit), n) for n in points if n != fit)
    if not others:
        return 2 * fit
    other = others[0][1]
    slope = (points[fit] - points[other]) / (fit - other)
    return fit + int((limit - points[fit]) / slope) if slope > 0 else 2 * fit


def compile_and_print(
    config: AheadOfTime, target: hardware.Hardware, mesh: jax.sharding.Mesh, training: Training
) -> Program:
    """Runs `compile_for`, which takes minutes; prints a line before and one after it."""
    rows = sharding.rows_at_a_time(mesh, training.batch_size, training.accumulation)
    parts = f" in {training.accumulation} parts" if training.accumulation > 1 else ""
    print(
        f"compiling {training.batch_size} sequences per step{parts}: "
        f"{rows} per device at a time ...",
        end="",
        flush=True,
    )
    program = compile_for(config.model, training, config.sequence_length, mesh, target.memory)
    print(
        f" {program.total / GIB:.2f} GiB of {program.limit / GIB:.2f}, "
        f"{'fits' if program.fits else 'does not fit'} ({program.seconds:.0f} s)",
        flush=True,
    )
    return program


def describe_target(config: AheadOfTime, target: hardware.Hardware, mesh: jax.sharding.Mesh) -> str:
    """Formats model, hardware and mesh as one line."""
    device = target.devices[0]
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    return (
        f"{decoder.num_params(config.model):,} parameters on {target.name}: "
        f"{len(target.devices)} x {device.device_kind}, {target.memory / GIB:.2f} GiB each, "
        f"mesh {shape}"
    )


def describe(config: AheadOfTime, mesh: jax.sharding.Mesh, program: Program) -> str:
    """Formats the costs of a program as a table."""
    devices = mesh.devices.size
    tokens = program.batch_size * config.sequence_length
    flops = decoder.flops_per_token(config.model, config.sequence_length)
    lines = [
        f"FLOPs per step, by formula (6 x matmul parameters + 6 L T H K per token): "
        f"{tokens:,} tokens x {flops / 1e9:.3f} G = {tokens * flops:.3e}, "
        f"{tokens * flops / devices:.3e} per device"
    ]
    peak = PEAK_FLOPS.get(mesh.devices.flat[0].device_kind)
    if peak:
        lines.append(
            f"  at 50 % of {peak / 1e12:.0f} TFLOP/s per device: "
            f"{tokens * flops / devices / peak / 0.5:.2f} s per step, "
            f"{peak * 0.5 / flops:,.0f} tokens/s per device"
        )
    verdict = "fits" if program.fits else "does not fit"
    if program.collectives is None:
        lines.append(f"GiB per device: {program.total / GIB:.2f} by the compiler, {verdict}")
        return "\n".join(lines)
    kinds = ("parameters", "optimizer", "batch", "temporaries", "outputs", "code")
    lines += ["GiB per device"]
    lines += [f"  {kind:<12} {getattr(program, kind) / GIB:8.3f}" for kind in kinds]
    lines += [
        f"  {'total':<12} {program.total / GIB:8.3f} of {program.limit / GIB:.2f}: {verdict}",
        f"  {'donated':<12} {program.donated / GIB:8.3f} of {program.state / GIB:.3f} of state "
        "are updated in place",
        "collectives per step and device" + ("" if program.collectives else ": none"),
    ]
    lines += [
        f"  {kind:<20} {traffic.count:>7,} {traffic.bytes / GIB:10.3f} GiB"
        for kind, traffic in program.collectives.items()
    ]
    return "\n".join(lines)


def describe_largest(config: AheadOfTime, mesh: jax.sharding.Mesh, program: Program) -> str:
    """Formats the largest batch, and the accumulation with which the configured batch fits."""
    shares = sharding.batch_shares(mesh)
    together = program.rows * shares
    lines = [
        f"largest batch that fits: {program.rows} sequences per device at a time, {together} or "
        f"{together * config.sequence_length:,} tokens on all ({program.total / GIB:.2f} GiB)"
    ]
    of_config, rest = divmod(config.training.batch_size, shares)
    rows = max(n for n in range(1, program.rows + 1) if of_config % n == 0)
    if not rest:
        lines.append(
            f"  for training.batch_size={config.training.batch_size}: "
            f"--config.training.accumulation={of_config // rows} ({rows} per device at a time)"
        )
    return "\n".join(lines)

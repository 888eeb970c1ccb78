"""Compiles the train step ahead of time, for hardware that is not there: does it fit, at what cost?

The step is the one that train.py runs; only its arrays are missing. Nothing is estimated but the
last row of the search: memory, donation and collectives are those of the compiled program.
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
from hare_jax.data.order import Order
from hare_jax.files import write_json
from hare_jax.model import decoder
from hare_jax.model.kernels.cudnn import as_on_hopper
from hare_jax.runtime import sharding
from hare_jax.tracking.metrics import PEAK_FLOPS
from hare_jax.training import faults, optim
from hare_jax.training.state import State, place_state
from hare_jax.training.step import compile_step, make_step

GIB = 1 << 30
MOST_COMPILATIONS = 8  # of a search


@dataclass(slots=True)
class Program:
    """A compiled train step. Bytes are of one device; `donated` of `state` are updated in place.

    A program that the compiler refused has its `total` alone: what it would have needed.
    """

    rows: int  # sequences a device, at one time
    batch_size: int
    accumulation: int
    seconds: float  # of tracing and compiling
    total: int
    limit: int
    parameters: int
    optimizer: int
    batch: int = 0
    temporaries: int = 0
    outputs: int = 0  # that are no donated state
    code: int = 0
    donated: int = 0
    state: int = 0
    collectives: dict[str, Traffic] | None = None

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


def run(config: AheadOfTime, workdir: Path) -> Path:
    """Compiles, prints what came of it, and writes it to `workdir`/aot-HARDWARE.json.

    Raises ValueError for unknown hardware and a batch or mesh that cannot be laid on it,
    RuntimeError where the plugin that compiles for it is missing.
    """
    jax.config.update("jax_platforms", "cpu")  # whatever else this machine has is left alone
    target = hardware.find(config.hardware)
    mesh = sharding.make_mesh(config.training.mesh, target.devices)
    print(describe_target(config, target, mesh), flush=True)
    program = announced(config, target, mesh, config.training)
    print(describe(config, mesh, program), flush=True)
    largest = search(config, target, mesh, program) if config.largest else None
    if largest is not None:
        print(describe_largest(config, mesh, largest), flush=True)
    path = workdir / f"aot-{config.hardware}.json"
    values = {"configured": asdict(program), "largest": largest and asdict(largest)}
    write_json(path, values)
    return path


def compile_for(
    model: Model,
    training: Training,
    sequence_length: int,
    mesh: jax.sharding.Mesh,
    limit: int,
) -> Program:
    """Compiles the step of `training.batch_size` sequences for the devices of `mesh`."""
    # The order decides which record is seen when, and how many steps there are; not what a step is.
    mixtures = {stage.mixture: {"any": 1.0} for stage in training.stages}
    training = replace(training, stages=[replace(s, weights={}) for s in training.stages])
    order = Order(training, {"any": 1}, mixtures, sequence_length)
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
        parameters=bytes_a_device(state.params),
        optimizer=bytes_a_device(state.optimizer),
        state=bytes_a_device(state),
    )
    started = time.perf_counter()
    try:
        with jax.set_mesh(mesh), _as_there(mesh):
            step = make_step(model, training, optimizer, order, num_sources=1)
            compiled = compile_step(step, state, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        program.total = needed(str(error), program.state, limit)
    else:
        _measure(program, compiled)
    program.seconds = time.perf_counter() - started
    return program


def place_batch(mesh: jax.sharding.Mesh, batch_size: int, sequence_length: int) -> Batch:
    """The batch without its arrays, rows cut along the mesh's batch axes."""
    shape = (batch_size, sequence_length)
    return {
        key: jax.ShapeDtypeStruct(
            shape[:dimensions],
            dtype,
            sharding=NamedSharding(mesh, P(decoder.BATCH_AXES, *(None,) * (dimensions - 1))),
        )
        for key, (dimensions, dtype) in SPEC.items()
    }


def bytes_a_device(placed: State | Any) -> int:
    """What one device holds of arrays without layout: tiles may make them larger."""
    return sum(
        math.prod(a.sharding.shard_shape(a.shape)) * jax.numpy.dtype(a.dtype).itemsize
        for a in jax.tree.leaves(placed)
    )


def needed(message: str, arguments: int, limit: int) -> int:
    """Bytes that a program wants, from the words in which a compiler refuses it.

    "Ran out of memory in memory space hbm. Used 20.52G of 15.75G hbm."
    "the total memory required for HLO temporaries (19.83G) exceeds available HBM (15.75G)"

    One more than `limit` where it does not say.
    """
    for words, more in ((r"Used (.+?)([MGT]) of", 0), (r"temporaries \((.+?)([MGT])\)", arguments)):
        if match := re.search(words, message):
            return more + int(float(match[1]) * {"M": 1 << 20, "G": GIB, "T": 1 << 40}[match[2]])
    return limit + 1


def _as_there(mesh: jax.sharding.Mesh) -> AbstractContextManager[None]:
    """Kernels that ask the GPU what it can do are answered for one that is not here."""
    return as_on_hopper() if mesh.devices.flat[0].platform == "gpu" else nullcontext()


def _measure(program: Program, compiled: Any) -> None:
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
    """The program of the most rows a device at one time that fits; None where not one row does.

    Where the configured batch is too large in one part, it is sought for a batch in parts.
    """
    accumulation = known.accumulation if known.fits else max(2, known.accumulation)
    programs = {known.rows: known} if accumulation == known.accumulation else {}

    def measure(rows: int) -> int:
        if rows not in programs:
            batch_size = rows * accumulation * sharding.batch_shares(mesh)
            training = replace(config.training, batch_size=batch_size, accumulation=accumulation)
            programs[rows] = announced(config, target, mesh, training)
        return programs[rows].total

    rows = largest_below(measure, target.memory, known={r: p.total for r, p in programs.items()})
    return programs[rows] if rows else None


def largest_below(measure: Callable[[int], int], limit: int, known: dict[int, int]) -> int:
    """The largest n, from 1 on, with measure(n) <= limit, or 0: by as few measurements as may be.

    `measure` grows about linearly: the line through the largest n that fits and the point nearest
    to it proposes the next; where it is wrong, the middle of what is left is tried. The search ends
    between two neighbors, where the line says that one more is too many, or after
    MOST_COMPILATIONS.

        >>> largest_below(lambda n: 5 + 2 * n, limit=40, known={})  # measures 1, 2, 17
        17
    """
    points = dict(known)
    if not any(value <= limit for value in points.values()):
        points[1] = measure(1)
    for _ in range(MOST_COMPILATIONS):
        fit = max((n for n, value in points.items() if value <= limit), default=0)
        over = min((n for n, value in points.items() if value > limit), default=sys.maxsize)
        n = _proposed(points, fit, limit) if fit else 0
        if n >= over:  # the line is wrong, or between neighbors
            n = (fit + over) // 2
        if n == fit:
            return fit
        points[n] = measure(n)
    return max(n for n, value in points.items() if value <= limit)


def _proposed(points: dict[int, int], fit: int, limit: int) -> int:
    others = sorted((abs(n - fit), n) for n in points if n != fit)
    if not others:
        return 2 * fit
    other = others[0][1]
    slope = (points[fit] - points[other]) / (fit - other)
    return fit + int((limit - points[fit]) / slope) if slope > 0 else 2 * fit


def announced(
    config: AheadOfTime, target: hardware.Hardware, mesh: jax.sharding.Mesh, training: Training
) -> Program:
    """`compile_for`, with a line before, since it takes minutes, and the outcome after it."""
    rows = sharding.rows_at_a_time(mesh, training.batch_size, training.accumulation)
    parts = f" in {training.accumulation} parts" if training.accumulation > 1 else ""
    print(
        f"compiling {training.batch_size} sequences a step{parts}: {rows} a device at a time ...",
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
    device = target.devices[0]
    shape = " ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    return (
        f"{decoder.num_params(config.model):,} parameters on {target.name}: "
        f"{len(target.devices)} x {device.device_kind}, {target.memory / GIB:.2f} GiB each, "
        f"mesh {shape}"
    )


def describe(config: AheadOfTime, mesh: jax.sharding.Mesh, program: Program) -> str:
    """All that is known of a program, as a table."""
    devices = mesh.devices.size
    tokens = program.batch_size * config.sequence_length
    flops = decoder.flops_per_token(config.model, config.sequence_length)
    lines = [
        f"FLOPs a step, by formula (6 x matmul parameters + 6 L T H K, a token): "
        f"{tokens:,} tokens x {flops / 1e9:.3f} G = {tokens * flops:.3e}, "
        f"{tokens * flops / devices:.3e} a device"
    ]
    peak = PEAK_FLOPS.get(mesh.devices.flat[0].device_kind)
    if peak:
        lines.append(
            f"  at 50 % of {peak / 1e12:.0f} TFLOP/s a device: "
            f"{tokens * flops / devices / peak / 0.5:.2f} s a step, "
            f"{peak * 0.5 / flops:,.0f} tokens/s a device"
        )
    verdict = "fits" if program.fits else "does not fit"
    if program.collectives is None:
        lines.append(f"GiB a device: {program.total / GIB:.2f} by the compiler, {verdict}")
        return "\n".join(lines)
    kinds = ("parameters", "optimizer", "batch", "temporaries", "outputs", "code")
    lines += ["GiB a device"]
    lines += [f"  {kind:<12} {getattr(program, kind) / GIB:8.3f}" for kind in kinds]
    lines += [
        f"  {'total':<12} {program.total / GIB:8.3f} of {program.limit / GIB:.2f}: {verdict}",
        f"  {'donated':<12} {program.donated / GIB:8.3f} of {program.state / GIB:.3f} of state "
        "are updated in place",
        "collectives a step, a device" + ("" if program.collectives else ": none"),
    ]
    lines += [
        f"  {kind:<20} {traffic.count:>7,} {traffic.bytes / GIB:10.3f} GiB"
        for kind, traffic in program.collectives.items()
    ]
    return "\n".join(lines)


def describe_largest(config: AheadOfTime, mesh: jax.sharding.Mesh, program: Program) -> str:
    """The largest batch, and how the configured one would be computed with it."""
    shares = sharding.batch_shares(mesh)
    together = program.rows * shares
    lines = [
        f"largest batch that fits: {program.rows} sequences a device at a time, {together} or "
        f"{together * config.sequence_length:,} tokens on all ({program.total / GIB:.2f} GiB)"
    ]
    of_config, rest = divmod(config.training.batch_size, shares)
    rows = max(n for n in range(1, program.rows + 1) if of_config % n == 0)
    if not rest:
        lines.append(
            f"  for training.batch_size={config.training.batch_size}: "
            f"--config.training.accumulation={of_config // rows} ({rows} a device at a time)"
        )
    return "\n".join(lines)

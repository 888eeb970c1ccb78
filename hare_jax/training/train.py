"""Training, from baked data to the last checkpoint, in the order in which things happen."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from hare_jax.config import AttentionKernel, Model, Training, plain
from hare_jax.data import packed_dataset
from hare_jax.data.batch import check, check_max_segments
from hare_jax.files import write_json
from hare_jax.model.attention import kernel_of
from hare_jax.runtime import distributed, preemption, sharding
from hare_jax.runtime.watchdog import Watchdog
from hare_jax.tracking.metrics import Metrics
from hare_jax.tracking.profiler import Profiler
from hare_jax.training import faults, optim
from hare_jax.training.checkpoint import Checkpoints
from hare_jax.training.in_loop_evaluation import InLoopEvaluation, Open
from hare_jax.training.plan import check_past, describe, make_plan
from hare_jax.training.run_dir import start_params, write_config
from hare_jax.training.state import init_state, place_state
from hare_jax.training.step import compile_step, make_step


@dataclass(slots=True)
class Result:
    """What a run came to. `resumed_from`: the step it went on from, None where it began anew."""

    step: int
    run_dir: Path
    checkpoints: Path
    metrics: Path
    fingerprint: str
    resumed_from: int | None


def run(
    model_config: Model,
    training_config: Training,
    mixture_dir: Path,
    run_dir: Path,
    devices: Sequence[jax.Device] | None = None,
    benchmarks: Open | None = None,
) -> Result:
    """Trains to the end of the last stage, going on from the latest checkpoint where there is one.

    `devices`: all, unless given. `benchmarks`: what training.in_loop asks of the parameters. Writes
    config.json, plan.json, metrics.jsonl, tensorboard/ and checkpoints/ under `run_dir`.

    Raises ValueError or FileNotFoundError where config, data and checkpoints do not fit together,
    NotSaved where the disk is full, a faults.Fault where a step is not to be learned from and the
    config says stop, and SystemExit, after saving, at SIGTERM or Ctrl-C.
    """
    c = training_config
    run_dir = Path(run_dir)

    # ---------------------------------------------------------------- data: checked, then planned
    share = (jax.process_index(), jax.process_count())
    baked = distributed.on_all_processes(
        lambda: packed_dataset.PackedDataset(mixture_dir, run_dir.parent, share)
    )
    baked.check_model(model_config)
    order = packed_dataset.make_order(baked, c)
    plan = make_plan(model_config, c, baked, order)
    profiler = Profiler(c.profile, run_dir)
    in_loop = InLoopEvaluation(c.in_loop, run_dir, order.steps)
    distributed.print_once(describe(plan))
    if distributed.is_process_zero():
        write_config(run_dir, model_config, c, baked)
        write_json(run_dir / "plan.json", plan)

    # ---------------------------------------------------------------- devices: what lies where
    mesh = sharding.make_mesh(c.mesh, devices)
    rows = sharding.local_rows(mesh, c.batch_size, c.accumulation)
    optimizer = optim.build(c.optimizer, order.steps)
    placed = place_state(model_config, optimizer, mesh, faults.window(c.faults))

    with (
        jax.set_mesh(mesh),
        Checkpoints(
            run_dir / "checkpoints", c.checkpointing, model_config, baked.fingerprint
        ) as checkpoints,
    ):
        # ------------------------------------------------------------ state: restored, or new
        restored = checkpoints.restore(placed)
        if restored:
            state, record = restored
        else:
            params = start_params(c.start_from, model_config, placed.params)
            state, record = init_state(model_config, c.seed, optimizer, placed, params), {}
        first_step = record.get("step", 0)
        checkpoints.drop_after(first_step)
        if restored:
            check_past(record["past"], order.history(first_step), run_dir)
            distributed.print_once(f"resumed from step {first_step} of {order.steps}")
        in_loop.start(
            first_step,
            benchmarks and functools.partial(benchmarks, model_config, c.in_loop, baked),
        )
        result = Result(
            step=order.steps,
            run_dir=run_dir,
            checkpoints=checkpoints.directory,
            metrics=run_dir / "metrics.jsonl",
            fingerprint=baked.fingerprint,
            resumed_from=first_step if restored else None,
        )
        if first_step == order.steps:
            if in_loop.pending:
                in_loop.run_pending(state.params, c.wandb_project)
            distributed.print_once(f"complete already: step {first_step}, {result.checkpoints}")
            return result

        # ------------------------------------------------------------ step: compiled before it runs
        kernel = kernel_of(model_config, c.batch_size // c.accumulation, baked.sequence_length)
        distributed.print_once(f"attention by kernel {kernel.value}")
        batches = packed_dataset.batches(baked, order, first_step=first_step, rows=rows)
        if kernel is AttentionKernel.CUDNN:
            batches = check_max_segments(model_config.max_segments, batches)
        started = time.perf_counter()
        first_batch = sharding.place(next(batches), mesh, c.batch_size, rows)
        check(first_batch)
        step_fn = compile_step(
            make_step(model_config, c, optimizer, order, len(baked.sources)),
            state,
            first_batch,
        )
        distributed.print_once(f"compiled the train step in {time.perf_counter() - started:.1f} s")

        # ------------------------------------------------------------ the loop
        bad_steps = faults.BadSteps(
            run_dir / "bad-steps",
            c.faults,
            documents=lambda step: (
                order.stage(step).name,
                packed_dataset.trace(baked, order, step),
            ),
        )
        with (
            preemption.PreemptionSignal() as stop,
            Watchdog(c.faults.hang_seconds, c.faults.hang_abort) as watchdog,
            Metrics(
                run_dir,
                sources=[source.name for source in baked.sources],
                steps=order.steps,
                log_every=c.log_every,
                tokens_per_step=plan["tokens_per_step"],
                flops_per_token=plan["flops_per_token"],
                devices=mesh.devices.flatten().tolist(),
                counts=bad_steps.counts,
                first_step=first_step,
                pending=record.get("pending"),
                wandb_project=c.wandb_project,
            ) as metrics,
            profiler,
        ):
            if in_loop.pending:
                in_loop.run(first_step, state.params, metrics, watchdog)
            batch, waited = first_batch, 0.0
            for step in range(first_step, order.steps):
                done = step + 1
                watchdog.doing(f"step {done}")
                profiler.at(step, state)
                state, values = step_fn(state, batch)
                metrics.add(step, order.stage(step), values, input_wait=waited)
                due = done % c.checkpointing.every_steps == 0 or done == order.steps
                signalled = stop.requested(done)
                if due or signalled:
                    pending = metrics.fetch()  # never saves what came after a bad loss
                    metrics.sync()
                    watchdog.doing(f"the save of step {done}")
                    asked = time.perf_counter()
                    checkpoints.save(state, {"past": order.history(done), "pending": pending})
                    metrics.stalled(time.perf_counter() - asked)
                if signalled and done < order.steps:
                    checkpoints.wait()
                    preemption.exit_after_save(signalled, done, order.steps)
                if in_loop.due(done):
                    in_loop.run(done, state.params, metrics, watchdog)
                if done < order.steps:
                    watchdog.doing(f"the batch of step {done + 1}")
                    asked = time.perf_counter()
                    local = next(batches)
                    waited = time.perf_counter() - asked
                    batch = sharding.place(local, mesh, c.batch_size, rows)
            watchdog.doing("the last save")
            checkpoints.wait()
    return result


def run_name(model_config: Model, training_config: Training, mixture_dir: Path) -> str:
    """A folder's name that changes with whatever changes what is learned.

    Another mixture, model or recipe trains elsewhere; how often to log or save, on which devices
    and in how many parts to compute do not matter, nor what to do about faults: a run that one has
    stopped can go on without it.
    """
    without = {
        *("checkpointing", "faults", "log_every", "mesh", "accumulation"),
        *("profile", "wandb_project", "in_loop"),
    }
    recipe = {k: v for k, v in plain(training_config).items() if k not in without}
    value = [packed_dataset.fingerprint_of(mixture_dir), plain(model_config), recipe]
    return f"training-{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]}"

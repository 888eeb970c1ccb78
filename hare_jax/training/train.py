"""Training, from packed data to the last checkpoint, in the order in which things happen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import AttentionKernel, Checkpointing, Model, Training, plain
from hare_jax.data import packed_dataset
from hare_jax.data.batch import Batch, check, check_max_segments
from hare_jax.files import write_json
from hare_jax.runtime import agreement, distributed, sharding
from hare_jax.runtime.preemption import PreemptionSignal, exit_after_save
from hare_jax.runtime.watchdog import Watchdog
from hare_jax.tracking.metrics import Metrics, MetricsWriter, StepCost, peak_flops
from hare_jax.tracking.profiler import Profiler
from hare_jax.training import faults, history
from hare_jax.training.checkpoint import Checkpoints
from hare_jax.training.identity import Origin, origin_to_plain
from hare_jax.training.in_loop_evaluation import InLoopEvaluation, Open
from hare_jax.training.plan import check_history, describe, make_plan
from hare_jax.training.run_dir import copy_rows, start_params, write_config
from hare_jax.training.saving import Saver
from hare_jax.training.state import State, init_state
from hare_jax.training.step import compile_step, make_step
from hare_jax.training.validate import Layout, validate


@dataclass(slots=True)
class Result:
    """The outcome of a run."""

    step: int  # the last one
    run_dir: Path
    checkpoints: Path
    metrics: Path
    fingerprint: str  # of the mixture
    resumed_from: int | None  # step of the restored checkpoint; None: the run started from step 0


@dataclass(slots=True)
class Setup:
    """Everything that is fixed before the first step, and costs no step to compute."""

    run_dir: Path
    model: Model
    dataset: packed_dataset.PackedDataset
    order: packed_dataset.Order
    plan: dict[str, Any]  # as in plan.json
    layout: Layout


def run(
    model_config: Model,
    training_config: Training,
    mixture_dir: Path,
    run_dir: Path,
    devices: Sequence[jax.Device] | None = None,
    benchmarks: Open | None = None,
    origin: Origin | None = None,
) -> Result:
    """Trains to the end of the last stage; resumes from the latest checkpoint if there is one.

    Writes config.json, plan.json, history.jsonl, metrics.jsonl, tensorboard/ and checkpoints/
    under `run_dir`.

    Args:
      model_config: the model.
      training_config: stages, optimizer, mesh and everything else.
      mixture_dir: the folder of the packed data.
      run_dir: the run's folder.
      devices: devices of the mesh; None: all.
      benchmarks: loads the benchmarks of training.in_loop.
      origin: the checkpoint of another run that a new run begins with; None: none.

    Raises:
      ValueError, FileNotFoundError: if config, data and checkpoints do not fit together.
      CheckpointSaveError: if a checkpoint cannot be written, such as on a full disk.
      DisagreementError: if this process was given something else than process 0.
      BadStepError: if a step is bad and training.faults stops the run.
      SystemExit: at SIGTERM or Ctrl-C, after a checkpoint is saved.
    """
    c = training_config
    profiler = Profiler(c.profile, run_dir)
    check_same_settings(model_config, c, mixture_dir)
    s = setup(model_config, c, mixture_dir, run_dir, devices)
    steps = s.order.steps
    in_loop = InLoopEvaluation(c.in_loop, run_dir, steps)
    write_setup(s, c, origin)
    with jax.set_mesh(s.layout.mesh), open_checkpoints(s, c.checkpointing) as checkpoints:
        state, record = restore_or_init(s, checkpoints, c.seed, c.start_from, origin)
        first_step = record.get("step", 0)
        check_same_start(s, first_step)
        in_loop.start(first_step, benchmarks and partial(benchmarks, s.model, c.in_loop, s.dataset))
        result = make_result(s, resumed_from=first_step if record else None)
        if first_step == steps:
            if in_loop.pending:
                in_loop.run_pending(state.params, c.wandb_project)
            distributed.print_once(f"already complete: step {steps}, {result.checkpoints}")
            return result

        write_start(s, first_step)
        batches = read_batches(s, first_step)
        step_fn, batch = compile_on_first_batch(s, c, state, batches)
        bad_steps = faults.BadSteps(run_dir / "bad-steps", c.faults, partial(documents_of_step, s))
        with (
            PreemptionSignal() as preemption,
            Watchdog(c.faults.hang_seconds, c.faults.hang_abort) as watchdog,
            open_metrics(s, record, bad_steps, c.log_every, c.wandb_project) as metrics,
            profiler,
        ):
            if in_loop.pending:
                in_loop.run(first_step, state.params, metrics, watchdog)
            input_wait = 0.0
            with Saver(
                c.checkpointing, c.log_every, checkpoints, metrics, s.order, watchdog
            ) as saver:
                for step in range(first_step, steps):
                    done = step + 1
                    watchdog.doing(f"step {done}")
                    profiler.at(step, state)
                    state, values = step_fn(state, batch)
                    saver.finished(state, done)
                    metrics.add(step, s.order.stage(step), values, input_wait=input_wait)
                    signal = preemption.requested(done)
                    if saver.due(done) or signal:
                        saver.save()
                    if signal and done < steps:
                        checkpoints.wait()
                        exit_after_save(signal, done, steps)
                    if in_loop.due(done):
                        in_loop.run(done, state.params, metrics, watchdog)
                    if done < steps:
                        watchdog.doing(f"the batch of step {done + 1}")
                        started = time.perf_counter()
                        local = next(batches)
                        input_wait = time.perf_counter() - started
                        batch = sharding.place(local, s.layout.mesh, c.batch_size, s.layout.rows)
            watchdog.doing("the last save")
            checkpoints.wait()
    return result


def check_same_settings(model_config: Model, training_config: Training, mixture_dir: Path) -> None:
    """Raises DisagreementError if this process was given something else than process 0."""
    if not distributed.is_multi_process():  # nothing to read and to hash
        return
    fingerprint = distributed.on_all_processes(lambda: packed_dataset.fingerprint_of(mixture_dir))
    agreement.check(
        {
            "config": {"model": plain(model_config), "training": plain(training_config)},
            "mixture": fingerprint,
            "software": agreement.software(),
        }
    )


def check_same_start(s: Setup, first_step: int) -> None:
    """Raises DisagreementError if this process would start at another step, or with other rows."""
    agreement.check(
        {
            "mesh": dict(s.layout.mesh.shape),
            "order": s.order.history(s.order.steps),
            "start step": first_step,
        }
    )


def setup(
    model_config: Model,
    training_config: Training,
    mixture_dir: Path,
    run_dir: Path,
    devices: Sequence[jax.Device] | None,
) -> Setup:
    """Verifies the data, schedules and plans the run, and lays out its state; prints the plan.

    Raises ValueError or FileNotFoundError if config, data and devices do not fit together.
    """
    c = training_config
    # Before the data is hashed, which may take long.
    sequence_length = distributed.on_all_processes(
        lambda: packed_dataset.sequence_length_of(mixture_dir)
    )
    layout = validate(model_config, c, sequence_length, devices)

    share = (jax.process_index(), jax.process_count())  # each process hashes its part of the files
    dataset = distributed.on_all_processes(
        lambda: packed_dataset.PackedDataset(mixture_dir, run_dir.parent, share)
    )
    dataset.check_model(model_config)
    order = packed_dataset.make_order(dataset, c)
    plan = make_plan(model_config, dataset, order, c.max_epochs)
    distributed.print_once(describe(plan))
    return Setup(run_dir, model_config, dataset, order, plan, layout)


def write_setup(s: Setup, training_config: Training, origin: Origin | None) -> None:
    """Writes config.json, the tokenizer and plan.json, on process 0 only."""
    if distributed.is_process_zero():
        write_config(s.run_dir, s.model, training_config, s.dataset, origin_to_plain(origin))
        write_json(s.run_dir / "plan.json", s.plan)


def write_start(s: Setup, first_step: int) -> None:
    """Adds a row to history.jsonl, on process 0 only."""
    if distributed.is_process_zero():
        config = json.loads((s.run_dir / "config.json").read_text("utf-8"))
        history.append(s.run_dir, first_step, {"config": config, "plan": s.plan})


def open_checkpoints(s: Setup, config: Checkpointing) -> Checkpoints:
    """Opens the checkpoints of the run."""
    return Checkpoints(s.run_dir / "checkpoints", config, s.model, s.dataset.fingerprint)


def restore_or_init(
    s: Setup, checkpoints: Checkpoints, seed: int, start_from: str, origin: Origin | None
) -> tuple[State, dict[str, Any]]:
    """Restores the latest checkpoint, or that of `origin`, or creates the state before any step.

    Args:
      s: the setup of the run.
      checkpoints: of the run; damaged ones are moved aside.
      seed: of random initial parameters.
      start_from: run or import whose parameters replace the random ones; "": none.
      origin: the checkpoint of another run to begin with; None: none.

    Returns:
      (state, record): the record of the checkpoint; {} if there is none.

    Raises:
      ValueError: if the checkpoint was trained on other batches, or holds another model.
    """
    restored = checkpoints.restore(s.layout.placed)
    if restored is None and origin is not None:
        restored = checkpoints.restore_origin(
            Path(origin.checkpoints), origin.step, s.layout.placed
        )
        distributed.on_process_zero(lambda: copy_rows(Path(origin.checkpoints).parent, s.run_dir))
        distributed.print_once(f"begins with {origin.checkpoints}/{origin.step}")
    if restored is None:
        params = start_params(start_from, s.model, s.layout.placed.params)
        checkpoints.drop_after(0)
        return init_state(s.model, seed, s.layout.optimizer, s.layout.placed, params), {}
    state, record = restored
    step = record["step"]
    checkpoints.drop_after(step)  # damaged ones
    check_history(record["past"], s.order.history(step), s.run_dir)
    distributed.print_once(f"resumed from step {step} of {s.order.steps}")
    return state, record


def make_result(s: Setup, resumed_from: int | None) -> Result:
    """Describes the run as it is after its last step."""
    return Result(
        step=s.order.steps,
        run_dir=s.run_dir,
        checkpoints=(s.run_dir / "checkpoints").absolute(),
        metrics=s.run_dir / "metrics.jsonl",
        fingerprint=s.dataset.fingerprint,
        resumed_from=resumed_from,
    )


def read_batches(s: Setup, first_step: int) -> Iterator[Batch]:
    """Returns this process's rows of the batches from `first_step` on.

    Attention kernel cudnn needs a check of each batch.
    """
    distributed.print_once(f"attention kernel: {s.layout.kernel.value}")
    batches = packed_dataset.batches(s.dataset, s.order, first_step=first_step, rows=s.layout.rows)
    if s.layout.kernel is AttentionKernel.CUDNN:
        return check_max_segments(s.model.max_segments, batches)
    return batches


def compile_on_first_batch(
    s: Setup, training_config: Training, state: State, batches: Iterator[Batch]
) -> tuple[Any, Batch]:
    """Compiles the train step for the state and the first batch; returns both step and batch."""
    started = time.perf_counter()
    batch = sharding.place(next(batches), s.layout.mesh, training_config.batch_size, s.layout.rows)
    check(batch)
    step = make_step(s.model, training_config, s.layout.optimizer, s.order, len(s.dataset.sources))
    step_fn = compile_step(step, state, batch)
    distributed.print_once(f"compiled the train step in {time.perf_counter() - started:.1f} s")
    return step_fn, batch


def open_metrics(
    s: Setup,
    record: dict[str, Any],
    bad_steps: faults.BadSteps,
    log_every: int,
    wandb_project: str,
) -> Metrics:
    """Opens the metrics of a run that starts, or resumes from the checkpoint of `record`."""
    writer = MetricsWriter(s.run_dir, record.get("step", 0), s.order.steps, wandb_project)
    return Metrics(
        writer,
        [source.name for source in s.dataset.sources],
        StepCost(
            tokens=s.plan["tokens_per_step"],
            flops_per_token=s.plan["flops_per_token"],
            peak_flops=peak_flops(s.layout.mesh.devices.flatten().tolist()),
        ),
        log_every=log_every,
        is_learned=bad_steps.is_learned,
        pending=record.get("pending"),
    )


def documents_of_step(s: Setup, step: int) -> tuple[str, list[packed_dataset.Span]]:
    """Returns the name of a step's stage, and the pieces of documents in its batch."""
    return s.order.stage(step).name, packed_dataset.trace(s.dataset, s.order, step)

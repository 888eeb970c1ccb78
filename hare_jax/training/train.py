"""Training, from baked data to the last checkpoint, in the order in which things happen."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hare_jax.config import Model, Training, plain
from hare_jax.model import decoder
from hare_jax.training import input, optim, sharding
from hare_jax.training.batch import check
from hare_jax.training.checkpoint import Checkpoints, State
from hare_jax.training.metrics import Metrics, NotFinite
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
) -> Result:
    """Trains to the end of the last stage, going on from the latest checkpoint where there is one.

    `devices`: all, unless given. Writes config.json, plan.json, metrics.jsonl, tensorboard/ and
    checkpoints/ under `run_dir`.

    Raises ValueError or FileNotFoundError where config, data and checkpoints do not fit together,
    NotFinite where the loss is not a number, and SystemExit, after saving, at SIGTERM or Ctrl-C.
    """
    c = training_config
    run_dir = Path(run_dir)

    # ---------------------------------------------------------------- data: checked, then planned
    baked = input.Baked(mixture_dir)
    baked.check_model(model_config)
    order = input.make_order(baked, c)
    plan = make_plan(model_config, c, baked, order)
    print(describe(plan), flush=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_json(run_dir / "config.json", {"model": plain(model_config), "training": plain(c)})
    _write_json(run_dir / "plan.json", plan)

    # ---------------------------------------------------------------- devices: what lies where
    mesh = sharding.make_mesh(c.mesh, devices)
    rows = sharding.local_rows(mesh, c.batch_size, c.accumulation)
    optimizer = optim.build(c.optimizer, order.steps)
    placed = place_state(model_config, optimizer, mesh)

    with (
        jax.set_mesh(mesh),
        Checkpoints(
            run_dir / "checkpoints", c.checkpointing, model_config, baked.fingerprint
        ) as checkpoints,
    ):
        # ------------------------------------------------------------ state: restored, or new
        restored = checkpoints.restore(placed)
        state, record = restored or (init_state(model_config, c.seed, optimizer, placed), {})
        first_step = record.get("step", 0)
        checkpoints.drop_after(first_step)
        if restored:
            check_past(record["past"], order.past(first_step), run_dir)
            print(f"resumed from step {first_step} of {order.steps}", flush=True)
        result = Result(
            step=order.steps,
            run_dir=run_dir,
            checkpoints=checkpoints.directory,
            metrics=run_dir / "metrics.jsonl",
            fingerprint=baked.fingerprint,
            resumed_from=first_step if restored else None,
        )
        if first_step == order.steps:
            print(f"complete already: step {first_step}, {result.checkpoints}", flush=True)
            return result

        # ------------------------------------------------------------ step: compiled before it runs
        batches = input.batches(baked, order, first_step=first_step, rows=rows)
        started = time.perf_counter()
        first_batch = sharding.place(next(batches), mesh, c.batch_size, rows)
        check(first_batch)
        step_fn = compile_step(
            make_step(model_config, c, optimizer, order, len(baked.sources)),
            state,
            first_batch,
        )
        print(f"compiled the train step in {time.perf_counter() - started:.1f} s", flush=True)

        # ------------------------------------------------------------ the loop
        with (
            _signals() as signalled,
            Metrics(
                run_dir,
                sources=[source.name for source in baked.sources],
                steps=order.steps,
                log_every=c.log_every,
                tokens_per_step=plan["tokens_per_step"],
                flops_per_token=plan["flops_per_token"],
                devices=mesh.devices.flatten().tolist(),
                first_step=first_step,
                pending=record.get("pending"),
            ) as metrics,
        ):
            batch, waited = first_batch, 0.0
            for step in range(first_step, order.steps):
                try:
                    state, values = step_fn(state, batch)
                    metrics.add(step, order.stage(step), values, input_wait=waited)
                    done = step + 1
                    due = done % c.checkpointing.every_steps == 0 or done == order.steps
                    if due or signalled:
                        pending = metrics.fetch()  # never saves what came after a bad loss
                        metrics.sync()
                        checkpoints.save(state, {"past": order.past(done), "pending": pending})
                except NotFinite as error:
                    raise not_finite(error, baked, order, run_dir) from error
                if signalled and done < order.steps:
                    checkpoints.wait()
                    _leave(signalled[0], done, order.steps)
                if done < order.steps:
                    asked = time.perf_counter()
                    local = next(batches)
                    waited = time.perf_counter() - asked
                    batch = sharding.place(local, mesh, c.batch_size, rows)
        checkpoints.wait()
    return result


def run_name(model_config: Model, training_config: Training, mixture_dir: Path) -> str:
    """A folder's name that changes with whatever changes what is learned.

    Another mixture, model or recipe trains elsewhere; how often to log or save, on which devices
    and in how many parts to compute do not matter.
    """
    without = {"checkpointing", "log_every", "mesh", "accumulation"}
    recipe = {k: v for k, v in plain(training_config).items() if k not in without}
    value = [input.fingerprint_of(mixture_dir), plain(model_config), recipe]
    return f"training-{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]}"


def make_plan(
    model_config: Model, training_config: Training, baked: input.Baked, order: input.Order
) -> dict[str, Any]:
    """plan.json: what will be drawn from where, and what it costs."""
    return {
        "stages": input.plan(baked, order, training_config.max_epochs),
        "parameters": decoder.num_params(model_config),
        "tokens_per_step": training_config.batch_size * baked.sequence_length,
        "steps": order.steps,
        "flops_per_token": decoder.flops_per_token(model_config, baked.sequence_length),
    }


def describe(plan: dict[str, Any]) -> str:
    """The plan as a table to be read before the start."""
    lines = [
        f"{plan['parameters']:,} parameters, {plan['steps']:,} steps of "
        f"{plan['tokens_per_step']:,} tokens, {plan['flops_per_token'] / 1e9:.3f} GFLOP a token"
    ]
    for stage in plan["stages"]:
        lines.append(
            f"  stage {stage['name']} on mixture {stage['mixture']}: {stage['steps']:,} steps"
        )
        lines += [
            f"    {s['name']:<20} {s['tier']:<3} {s['weight']:>7.2%} "
            f"{s['tokens']:>16,} tokens {s['epochs']:>8.2f} epochs"
            for s in stage["sources"]
        ]
    return "\n".join(lines)


def place_state(
    model_config: Model, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> State:
    """The state without its arrays: jax.ShapeDtypeStruct with shardings."""
    params = decoder.abstract(model_config)[1]
    shapes = State(params, jax.eval_shape(optimizer.init, params), _scalar(jnp.int32))
    places = State(
        sharding.of_params(mesh, params),
        sharding.of_optimizer(mesh, optimizer, params),
        sharding.replicated(mesh),
    )
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, places
    )


def init_state(
    model_config: Model, seed: int, optimizer: optax.GradientTransformation, placed: State
) -> State:
    """The state before the first step, a pure function of (config, seed), made where it lies."""

    def init() -> State:
        params = decoder.init(model_config, seed)
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    return jax.jit(init, out_shardings=jax.tree.map(lambda a: a.sharding, placed))()


def check_past(saved: dict[str, Any], now: dict[str, Any], run_dir: Path) -> None:
    """Raises ValueError where the steps already done would have seen other data."""
    for name, value in now.items():
        if saved[name] != value:
            raise ValueError(
                f"{run_dir} was trained with {name}={saved[name]} up to its checkpoint, the config "
                f"gives {name}={value}: give the same, or another run directory"
            )


def not_finite(
    error: NotFinite, baked: input.Baked, order: input.Order, run_dir: Path
) -> NotFinite:
    """The error with the step's documents written down beside it."""
    path = run_dir / f"not-finite-step-{error.step + 1}.json"
    spans = input.trace(baked, order, error.step)
    _write_json(path, [asdict(span) for span in spans])
    names = ", ".join(dict.fromkeys(span.document_id for span in spans[:4]))
    return NotFinite(
        error.step,
        error.loss,
        error.grad_norm,
        f"; its {len(spans)} documents ({names}, ...) are in {path}; the last checkpoint is intact",
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C are put in; a second signal does what it always does."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def receive(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # Python allows no other
        before = {n: signal.signal(n, receive) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, step: int, steps: int) -> None:
    name = signal.Signals(number).name
    print(f"{name}: saved step {step} of {steps}; the same command goes on from there", flush=True)
    raise SystemExit(128 + number)


def _scalar(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)

"""Saves and restores training, asynchronously and onto any mesh. Orbax stays behind this module.

A checkpoint holds the parameters, the optimizer's state, and a small JSON record of what it belongs
to, with a checksum of every array: a damaged checkpoint is noticed, not trained on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array

from hare_jax.config import Checkpointing, Model, plain
from hare_jax.model.decoder import Params, abstract
from hare_jax.runtime import distributed
from hare_jax.training.faults import LossHistory
from hare_jax.training.state import State

# What may differ between saving and restoring: how the model is computed, not what it is.
COMPUTATION = (
    "attention",
    "max_segments",
    "matmul",
    "remat",
    "scan_layers",
    "compute_dtype",
)


class _Quiet(logging.Filter):
    """Orbax logs, with pages of threads' stacks, what it raises as well: one line is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts


QUIET = _Quiet()


class CorruptCheckpointError(ValueError):
    """A checkpoint that cannot be read back as it was written."""


class CheckpointSaveError(OSError):
    """A checkpoint that could not be written: a full disk, mostly. Those before it are intact."""


class Checkpoints:
    """The checkpoints of one run, in a directory of one folder a step.

    `fingerprint`: of the baked mixture. Context manager: leaving it waits for a save under way.
    """

    def __init__(self, directory: Path, config: Checkpointing, model: Model, fingerprint: str):
        self.directory = Path(directory).absolute()
        self.model = model
        self.fingerprint = fingerprint
        self._manager = _manager(self.directory, _preserved(config))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._as_not_saved(told=kind is not None):
            self._manager.close()

    def save(self, state: State, record: dict[str, Any]) -> None:
        """Copies `state` to the host, then writes it in the background; waits for the save before.

        `record`: JSON that comes back with the state, such as the order's past. Raises CheckpointSaveError
        where this save cannot begin, or the one before has failed.
        """
        step = int(state.step)
        recent = jax.device_get(state.loss_history)
        record = {
            **record,
            "step": step,
            "fingerprint": self.fingerprint,
            "model": plain(self.model),
            "losses": [loss for loss in recent.losses_W.tolist() if math.isfinite(loss)],
            "skipped": int(recent.skipped),
            "checksums": _checksums({"params": state.params, "optimizer": state.optimizer}),
        }
        record = json.loads(json.dumps(record))  # it is written later: the caller may change it
        record["sha256"] = _sha256(record)
        with self._as_not_saved():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    optimizer=ocp.args.StandardSave(state.optimizer),
                    record=ocp.args.JsonSave(record),
                ),
                force=True,
            )

    def restore(self, like: State) -> tuple[State, dict[str, Any]] | None:
        """The latest undamaged checkpoint and its record; None where there is no checkpoint.

        `like`: jax.ShapeDtypeStruct with shardings, of any mesh. Damaged checkpoints are moved
        aside, loudly; what one process cannot read is damaged for all. Raises ValueError where the
        checkpoint is of another mixture or model, and CorruptCheckpointError where there are checkpoints
        but all are damaged.
        """
        damaged = []
        with _manager(self.directory, None) as reader:
            for step in distributed.on_process_zero(
                lambda: sorted(reader.all_steps(), reverse=True)
            ):
                try:
                    return self._restore(reader, step, like)
                except (CorruptCheckpointError, distributed.OtherProcessError) as error:
                    if distributed.is_process_zero():
                        _say(f"DAMAGED CHECKPOINT, taking the one before: {error}")
                    damaged.append(step)
        if damaged:
            raise CorruptCheckpointError(
                f"{self.directory}: all checkpoints are damaged (steps {damaged}); "
                "remove the directory to train from the start"
            )
        return None

    def _restore(
        self, reader: ocp.CheckpointManager, step: int, like: State
    ) -> tuple[State, dict[str, Any]]:
        path = self.directory / str(step)

        def read() -> tuple[dict[str, Any], Any]:
            record = _read_record(reader, step)
            _check_identity(path, record, self.model, self.fingerprint)
            args = ocp.args.Composite(
                params=ocp.args.StandardRestore(like.params),
                optimizer=ocp.args.StandardRestore(like.optimizer),
            )
            with _as_damage(path):
                return record, reader.restore(step, args=args)

        record, arrays = distributed.on_all_processes(read)
        sums = _checksums({"params": arrays.params, "optimizer": arrays.optimizer})
        _check_sums(path, record["checksums"], sums)
        small = (
            jnp.int32(step),
            LossHistory.of(record["losses"], record["skipped"], like.loss_history),
        )
        small = jax.device_put(
            small, jax.tree.map(lambda a: a.sharding, (like.step, like.loss_history))
        )
        return State(arrays.params, arrays.optimizer, *small), record

    def drop_after(self, step: int) -> None:
        """Moves later checkpoints aside: they are damaged, and their steps will be saved again."""
        aside = self.directory.with_name(self.directory.name + "-damaged")

        def move() -> None:
            for later in [later for later in self._manager.all_steps() if later > step]:
                aside.mkdir(exist_ok=True)
                number = len(list(aside.iterdir()))
                (self.directory / str(later)).rename(aside / f"{number:03d}-step-{later}")

        distributed.on_process_zero(move)
        self._manager.reload()

    def wait(self) -> None:
        """Until the last save is on disk. Raises CheckpointSaveError where it could not be written."""
        with self._as_not_saved():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextmanager
    def _as_not_saved(self, told: bool = False) -> Iterator[None]:
        """What Orbax and its storage raise, in one line; not at all where another error says it."""
        try:
            yield
        except Exception as error:
            if not told:
                raise CheckpointSaveError(
                    f"{self.directory}: a checkpoint could not be written, those before it are "
                    f"intact; make room or mend the disk, then the same command goes on from the "
                    f"last: {type(error).__name__}: {error}"
                ) from error


def restore_params(
    directory: Path,
    model: Model,
    *,
    step: int | None = None,
    sharding: Any = None,
) -> tuple[Params, int]:
    """Parameters alone, and their step: of the latest checkpoint, or of the given one.

    They come on one device unless `sharding` (one for all, or nested as they are) says otherwise.
    Raises FileNotFoundError where there is no such checkpoint, ValueError where it is of another
    model, CorruptCheckpointError where its bytes are not what was saved.
    """
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = abstract(model).params
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, shapes)
    like = jax.tree.map(
        lambda p, s: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=s), shapes, sharding
    )
    with _opened(directory, model, step) as (manager, chosen, record):
        return _read_params(manager, chosen, record, like), chosen


def stream_params(
    directory: Path, model: Model, *, step: int | None = None
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """(path, array) of one parameter after the other, so that one is in memory at a time.

    >>> [path for path, _ in stream_params(directory, Model())][0]
    ('embedding_VD',)

    Raises as `restore_params` does.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    with _opened(directory, model, step) as (manager, chosen, record):
        for keys, p in jax.tree_util.tree_leaves_with_path(abstract(model).params):
            like = jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=here)
            path = tuple(key.key for key in keys)
            params = _read_params(manager, chosen, record, _nested(path, like))
            yield path, np.asarray(jax.tree.leaves(params)[0])


def save_params(directory: Path, model: Model, params: Params) -> None:
    """Writes parameters alone, as step 0: of a model that was trained elsewhere.

    `params`: float32 arrays of NumPy or JAX. They belong to no mixture, so that training can start
    from them, as training.start_from says, but not go on with them.
    """
    sums: dict[str, int] = {}
    for keys, array in jax.tree_util.tree_leaves_with_path({"params": params}):
        sums |= _checksums(_nested(tuple(key.key for key in keys), array))
    record: dict[str, Any] = {"step": 0, "fingerprint": None, "model": plain(model)}
    record["checksums"] = sums
    record["sha256"] = _sha256(record)
    with _manager(Path(directory).absolute(), ocp.checkpoint_managers.LatestN(1)) as manager:
        args = ocp.args.Composite(
            params=ocp.args.StandardSave(params), record=ocp.args.JsonSave(record)
        )
        manager.save(0, args=args)
        manager.wait_until_finished()
        manager.check_for_errors()


@contextmanager
def _opened(
    directory: Path, model: Model, step: int | None
) -> Iterator[tuple[ocp.CheckpointManager, int, dict[str, Any]]]:
    """Manager, step and record of the latest checkpoint, or of the given one."""
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory of checkpoints; train first")
    with _manager(directory, None) as manager:
        steps = sorted(manager.all_steps())
        chosen = steps[-1] if step is None and steps else step
        if chosen not in steps or chosen is None:
            raise FileNotFoundError(
                f"{directory}: no checkpoint of step {chosen}, there are {steps}"
            )
        record = _read_record(manager, chosen)
        _check_identity(directory / str(chosen), record, model, record["fingerprint"])
        yield manager, chosen, record


def _read_params(
    manager: ocp.CheckpointManager, step: int, record: dict[str, Any], like: Params
) -> Params:
    """The parameters that `like` has, all or some of them."""
    path = Path(str(manager.directory)) / str(step)
    restore = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    with _as_damage(path):
        params = manager.restore(step, args=ocp.args.Composite(params=restore)).params
    got = _checksums({"params": params})
    _check_sums(path, {name: record["checksums"].get(name) for name in got}, got)
    return params


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def _manager(directory: Path, preserved: Any) -> ocp.CheckpointManager:
    """`preserved`: which checkpoints stay; None for reading alone, which waits for no process."""
    logging.getLogger("absl").addFilter(QUIET)
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preserved,
        cleanup_tmp_directories=preserved is not None,  # of a save that was killed
        create=preserved is not None,
        multiprocessing_options=alone
        if preserved is None
        else ocp.options.MultiprocessingOptions(),
    )
    return ocp.CheckpointManager(directory, options=options)


def _preserved(config: Checkpointing) -> Any:
    """The latest so many, and some for good."""
    c, policies = config, ocp.checkpoint_managers
    if c.keep < 1:
        raise ValueError(f"checkpointing.keep={c.keep}: expected at least 1")
    if c.every_steps < 1 or c.keep_every < 0 or c.keep_every % c.every_steps:
        raise ValueError(
            f"checkpointing.keep_every={c.keep_every}: expected 0, or a multiple of "
            f"every_steps={c.every_steps}, which is at least 1"
        )
    latest = policies.LatestN(c.keep)
    if not c.keep_every:
        return latest
    return policies.AnyPreservationPolicy([latest, policies.EveryNSteps(c.keep_every)])


def _read_record(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    path = Path(str(manager.directory)) / str(step)
    with _as_damage(path):
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = manager.restore(step, args=args).record
    claimed = record.pop("sha256", None)
    if claimed != _sha256(record):
        raise CorruptCheckpointError(
            f"{path}: its record has sha256 {_sha256(record)}, saved {claimed}"
        )
    return record


def _sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Whatever Orbax and its storage raise when files are cut, changed or missing."""
    try:
        yield
    except Exception as error:
        raise CorruptCheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def _check_identity(path: Path, record: dict[str, Any], model: Model, fingerprint: str) -> None:
    if record["fingerprint"] != fingerprint:
        raise ValueError(
            f"{path} was trained on mixture {record['fingerprint']}, but the mixture given is "
            f"{fingerprint}: give the same baked data, or another run directory"
        )
    for name, want in plain(model).items():
        if name not in COMPUTATION and record["model"].get(name) != want:
            raise ValueError(
                f"{path} holds a model with {name}={record['model'].get(name)!r}, but the config "
                f"has {name}={want!r}: give the same model, or another run directory"
            )


def _check_sums(path: Path, expected: dict[str, int], got: dict[str, int]) -> None:
    for name, value in expected.items():
        if got.get(name) != value:
            raise CorruptCheckpointError(
                f"{path}: checksum of {name}: {got.get(name)}, saved {value}"
            )


def _checksums(tree: Any) -> dict[str, int]:
    """path -> a 32-bit sum over the bits of the array, the same on every mesh."""
    sums = jax.device_get(_sums(tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): int(value)
        for path, value in jax.tree_util.tree_leaves_with_path(sums)
    }


@jax.jit
def _sums(tree: Any) -> Any:
    return jax.tree.map(_sum, tree)


def _sum(array: Array) -> Array:
    """sum of bits * an odd number by position, mod 2^32: any one changed value changes it."""
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    index = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    odd = index * jnp.uint32(0x3C6EF362) + jnp.uint32(1)
    return jnp.sum(bits.astype(jnp.uint32) * odd, dtype=jnp.uint32)


def _say(message: str) -> None:
    print(f"!!! {message}", file=sys.stderr, flush=True)

"""Saves and restores training, asynchronously and onto any mesh. Orbax stays behind this module.

A checkpoint holds the parameters, the optimizer's state, and a small JSON record of what it belongs
to, with a checksum of every array: a damaged checkpoint is noticed, not trained on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import Array

from hare_jax.config import Checkpointing, Model, plain
from hare_jax.model.decoder import Params, abstract

# What may differ between saving and restoring: how the model is computed, not what it is.
COMPUTATION = ("attention", "remat", "compute_dtype")


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read back as it was written."""


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class State:
    """All that a train step changes."""

    params: Params
    optimizer: Any
    step: Any  # int32 []: steps finished


class Checkpoints:
    """The checkpoints of one run, in a directory of one folder a step.

    `fingerprint`: of the baked mixture. Context manager: leaving it waits for a save under way.
    """

    def __init__(self, directory: Path, config: Checkpointing, model: Model, fingerprint: str):
        self.directory = Path(directory).absolute()
        self.model = model
        self.fingerprint = fingerprint
        self._manager = _manager(self.directory, config.keep)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: State, record: dict[str, Any]) -> None:
        """Copies `state` to the host, then writes it in the background; waits for the save before.

        `record`: JSON that comes back with the state, such as the order's past.
        """
        step = int(state.step)
        record = {
            **record,
            "step": step,
            "fingerprint": self.fingerprint,
            "model": plain(self.model),
            "checksums": _checksums(state),
        }
        record = json.loads(json.dumps(record))  # it is written later: the caller may change it
        record["sha256"] = _sha256(record)
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
        aside, loudly. Raises ValueError where the checkpoint is of another mixture or model, and
        DamagedCheckpoint where there are checkpoints but all are damaged.
        """
        damaged = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                record = _read_record(self._manager, step)
                _check_identity(self.directory / str(step), record, self.model, self.fingerprint)
                return self._read(step, record, like), record
            except DamagedCheckpoint as error:
                _say(f"DAMAGED CHECKPOINT, taking the one before: {error}")
                damaged.append(step)
        if damaged:
            raise DamagedCheckpoint(
                f"{self.directory}: all checkpoints are damaged (steps {damaged}); "
                "remove the directory to train from the start"
            )
        return None

    def _read(self, step: int, record: dict[str, Any], like: State) -> State:
        path = self.directory / str(step)
        with _as_damage(path):
            read = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(like.params),
                    optimizer=ocp.args.StandardRestore(like.optimizer),
                ),
            )
        counter = jax.device_put(jnp.int32(step), like.step.sharding)
        state = State(read.params, read.optimizer, counter)
        _check_sums(path, record["checksums"], _checksums(state))
        return state

    def drop_after(self, step: int) -> None:
        """Moves later checkpoints aside: they are damaged, and their steps will be saved again."""
        aside = self.directory.with_name(self.directory.name + "-damaged")
        for later in [later for later in self._manager.all_steps() if later > step]:
            aside.mkdir(exist_ok=True)
            number = len(list(aside.iterdir()))
            (self.directory / str(later)).rename(aside / f"{number:03d}-step-{later}")
        self._manager.reload()

    def wait(self) -> None:
        """Until the last save is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()


def restore_params(
    directory: Path,
    model: Model,
    *,
    step: int | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> tuple[Params, int]:
    """Parameters alone, and their step, for evaluation: the latest step, or the given one.

    They come on one device unless `sharding` says otherwise. Raises FileNotFoundError where there
    is no such checkpoint, ValueError where it is of another model, DamagedCheckpoint where its
    bytes are not what was saved.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory of checkpoints; train first")
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=sharding), abstract(model)[1]
    )
    with _manager(directory, keep=None) as manager:
        steps = sorted(manager.all_steps())
        chosen = steps[-1] if step is None and steps else step
        if chosen not in steps or chosen is None:
            raise FileNotFoundError(
                f"{directory}: no checkpoint of step {chosen}, there are {steps}"
            )
        record = _read_record(manager, chosen)
        path = directory / str(chosen)
        _check_identity(path, record, model, record["fingerprint"])
        with _as_damage(path):
            args = ocp.args.Composite(params=ocp.args.StandardRestore(like))
            params = manager.restore(chosen, args=args).params
    got = _checksums({"params": params})
    _check_sums(path, {name: record["checksums"][name] for name in got}, got)
    return params, chosen


def _manager(directory: Path, keep: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=None if keep is None else _latest(keep),
        cleanup_tmp_directories=True,  # of a save that was killed
        create=keep is not None,
    )
    return ocp.CheckpointManager(directory, options=options)


def _latest(keep: int) -> Any:
    if keep < 1:
        raise ValueError(f"checkpointing.keep={keep}: expected at least 1")
    return ocp.checkpoint_managers.LatestN(keep)


def _read_record(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    path = Path(str(manager.directory)) / str(step)
    with _as_damage(path):
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = manager.restore(step, args=args).record
    claimed = record.pop("sha256", None)
    if claimed != _sha256(record):
        raise DamagedCheckpoint(f"{path}: its record has sha256 {_sha256(record)}, saved {claimed}")
    return record


def _sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Whatever Orbax and its storage raise when files are cut, changed or missing."""
    try:
        yield
    except Exception as error:
        raise DamagedCheckpoint(f"{path}: {type(error).__name__}: {error}") from error


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
            raise DamagedCheckpoint(f"{path}: checksum of {name}: {got.get(name)}, saved {value}")


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

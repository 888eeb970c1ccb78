"""Checkpoints of training: saved in the background, restored onto any mesh.

A checkpoint holds the parameters, the optimizer state, and a JSON record with the model, the
mixture's fingerprint and a checksum of every array, so that damage is detected. This is the only
module that uses Orbax.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import Array

from hare_jax.config import Checkpointing, Model, plain
from hare_jax.model.decoder import Params, abstract
from hare_jax.runtime import distributed
from hare_jax.training.faults import LossHistory
from hare_jax.training.rules import Rule, rule_of
from hare_jax.training.state import State

T = TypeVar("T")

# Seconds before each further attempt to read, after an error that is no damage.
RETRY_SECONDS = (1.0, 5.0, 25.0)
# What the store says of content that is not what was written (status codes of TensorStore).
DAMAGE = re.compile(r"(DATA_LOSS|OUT_OF_RANGE|NOT_FOUND|INVALID_ARGUMENT|FAILED_PRECONDITION): ")
STRUCTURE = (
    "pytree structure error"  # Orbax: the names in _METADATA, which differ from the record's
)


class _Quiet(logging.Filter):
    """A filter of Orbax's log, which repeats raised errors with the stacks of all threads."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drops the records that come from Orbax."""
        return "orbax" not in Path(record.pathname).parts


QUIET = _Quiet()


class CorruptCheckpointError(ValueError):
    """A checkpoint whose content is not what was saved."""


class CheckpointReadError(OSError):
    """A checkpoint that could not be read, though nothing says that it is damaged."""


class CheckpointSaveError(OSError):
    """A checkpoint that could not be written, usually for a full disk; earlier ones are intact."""


class Checkpoints:
    """The checkpoints of one run: a directory with one folder per step.

    The end of the context waits for a running save.
    """

    def __init__(self, directory: Path, config: Checkpointing, model: Model, fingerprint: str):
        """Opens or creates the directory.

        Args:
          directory: the folder of the checkpoints.
          config: which checkpoints to keep.
          model: the model that is trained.
          fingerprint: of the mixture that it is trained on.

        Raises:
          ValueError: if the fields of `config` do not fit.
        """
        self.directory = Path(directory).absolute()
        self.model = model
        self.fingerprint = fingerprint
        self._manager = _manager(self.directory, preservation_policy(config))

    def __enter__(self) -> Checkpoints:
        """Returns itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for a running save; raises CheckpointSaveError if it fails and nothing else has."""
        with self._as_save_error(suppress=kind is not None):
            self._manager.close()

    def save(self, state: State, record: dict[str, Any]) -> None:
        """Copies `state` to the host and writes it in the background; waits for the previous save.

        Args:
          state: the state after `state.step` steps.
          record: JSON that `restore` returns with the state, such as Order.history.

        Raises:
          CheckpointSaveError: if this save cannot start, or the previous one has failed.
        """
        step = int(state.step)
        history = jax.device_get(state.loss_history)
        record = {
            **record,
            "step": step,
            "fingerprint": self.fingerprint,
            "model": plain(self.model),
            "losses": [loss for loss in history.losses_W.tolist() if math.isfinite(loss)],
            "skipped": int(history.skipped),
            "checksums": _checksums({"params": state.params, "optimizer": state.optimizer}),
        }
        record = json.loads(json.dumps(record))  # a copy: it is written later
        record["sha256"] = _sha256(record)
        with self._as_save_error():
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
        """Restores the latest undamaged checkpoint.

        A damaged checkpoint is reported on stderr and the previous one is used. A checkpoint that
        is damaged for one process counts as damaged for all of them. One that cannot be read for
        another reason, such as a failing file system, ends the run: it may be good.

        Args:
          like: jax.ShapeDtypeStruct with shardings, of any mesh.

        Returns:
          The state and the record of `save`; None if there is no checkpoint.

        Raises:
          ValueError: if the checkpoint belongs to another mixture, model or optimizer.
          CorruptCheckpointError: if there are checkpoints, but all are damaged.
          CheckpointReadError: if a checkpoint cannot be read, again and again.
        """
        damaged = []
        with _manager(self.directory, None) as reader:
            for step in distributed.on_process_zero(
                lambda: sorted(reader.all_steps(), reverse=True)
            ):
                restored = self._restore(reader, step, like)
                if not isinstance(restored, str):
                    return restored
                if distributed.is_process_zero():
                    print(
                        f"!!! DAMAGED CHECKPOINT, using the one before: {restored}",
                        file=sys.stderr,
                        flush=True,
                    )
                damaged.append(step)
        if damaged:
            raise CorruptCheckpointError(
                f"{self.directory}: all checkpoints are damaged (steps {damaged}); bring them back "
                "from a copy, or start anew: --config.training.name=NAME"
            )
        return None

    def restore_origin(
        self, directory: Path, step: int, like: State
    ) -> tuple[State, dict[str, Any]]:
        """Restores one checkpoint of another run, and saves it as the first of this run.

        Args:
          directory: the folder of the other run's checkpoints.
          step: of the checkpoint.
          like: jax.ShapeDtypeStruct with shardings, of any mesh.

        Raises the errors of `restore`.
        """
        with _manager(directory, None) as reader:
            restored = self._restore(reader, step, like)
        if isinstance(restored, str):
            raise CorruptCheckpointError(f"{restored}; give another checkpoint")
        state, record = restored
        self.save(state, {name: record[name] for name in ("past", "pending") if name in record})
        return state, record

    def _restore(
        self, reader: ocp.CheckpointManager, step: int, like: State
    ) -> tuple[State, dict[str, Any]] | str:
        """Reads one checkpoint on all processes and verifies its checksums.

        Returns:
          The state and the record; or what is damaged, if it is, on any process.
        """
        path = Path(str(reader.directory)) / str(step)

        def read() -> tuple[dict[str, Any], Any] | CorruptCheckpointError:
            try:
                record = _read_record(reader, step)
                _check_identity(path, record, self.model, self.fingerprint)
                _check_tree(path, record, like)
                args = ocp.args.Composite(
                    params=ocp.args.StandardRestore(like.params),
                    optimizer=ocp.args.StandardRestore(like.optimizer),
                )
                return record, _reading(path, lambda: reader.restore(step, args=args))
            except CorruptCheckpointError as error:
                return error

        got = distributed.on_all_processes(read)  # all stop together for any other error

        def raise_damage() -> None:
            if isinstance(got, CorruptCheckpointError):
                raise got

        try:
            distributed.on_all_processes(raise_damage)
            assert not isinstance(got, CorruptCheckpointError)
            record, arrays = got
            sums = _checksums({"params": arrays.params, "optimizer": arrays.optimizer})
            _check_sums(path, record["checksums"], sums)
        except (CorruptCheckpointError, distributed.OtherProcessError) as error:
            return str(error)
        small = (
            jnp.int32(step),
            LossHistory.restored(record["losses"], record["skipped"], like.loss_history),
        )
        small = jax.device_put(
            small, jax.tree.map(lambda a: a.sharding, (like.step, like.loss_history))
        )
        return State(arrays.params, arrays.optimizer, *small), record

    def drop_after(self, step: int) -> None:
        """Moves the damaged checkpoints of later steps to `checkpoints-damaged`."""
        damaged = self.directory.with_name(self.directory.name + "-damaged")

        def move() -> None:
            for later in [later for later in self._manager.all_steps() if later > step]:
                damaged.mkdir(exist_ok=True)
                number = len(list(damaged.iterdir()))
                (self.directory / str(later)).rename(damaged / f"{number:03d}-step-{later}")

        distributed.on_process_zero(move)
        self._manager.reload()

    def wait(self) -> None:
        """Waits until the last save is on disk; raises CheckpointSaveError if it failed."""
        with self._as_save_error():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextmanager
    def _as_save_error(self, suppress: bool = False) -> Iterator[None]:
        """Turns any exception of Orbax or the storage into a CheckpointSaveError of one line.

        `suppress`: ignores the exception, because another one is being raised.
        """
        try:
            yield
        except Exception as error:
            if not suppress:
                raise CheckpointSaveError(
                    f"{self.directory}: a checkpoint could not be written, those before it are "
                    f"intact; free disk space or repair the disk, then run the same command to "
                    f"resume: {type(error).__name__}: {error}"
                ) from error


def restore_params(
    directory: Path,
    model: Model,
    *,
    step: int | None = None,
    sharding: Any = None,
) -> tuple[Params, int]:
    """Restores only the parameters of a checkpoint.

    Args:
      directory: the folder of the checkpoints.
      model: the model that the checkpoint must hold.
      step: of the checkpoint; None: the latest.
      sharding: one sharding for all parameters, or a tree of them; None: one local device.

    Returns:
      (params, step).

    Raises:
      FileNotFoundError: if there is no such checkpoint.
      ValueError: if it holds another model.
      CorruptCheckpointError: if its bytes are not what was saved.
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
    """Yields (path, array) of each parameter, so that only one is in memory at a time.

    >>> [path for path, _ in stream_params(directory, Model())][0]  # doctest: +SKIP
    ('embedding_VD',)

    Args:
      directory: the folder of the checkpoints.
      model: the model that the checkpoint must hold.
      step: of the checkpoint; None: the latest.

    Raises the errors of `restore_params`.
    """
    here = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    with _opened(directory, model, step) as (manager, chosen, record):
        for keys, p in jax.tree_util.tree_leaves_with_path(abstract(model).params):
            like = jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=here)
            path = tuple(key.key for key in keys)
            params = _read_params(manager, chosen, record, _nested(path, like))
            yield path, np.asarray(jax.tree.leaves(params)[0])


def save_params(directory: Path, model: Model, params: Params) -> None:
    """Writes the parameters of a model that was trained elsewhere, as a checkpoint of step 0.

    They belong to no mixture: training can start from them (training.start_from), but not resume.

    Args:
      directory: the folder of the checkpoints.
      model: the model.
      params: float32 arrays of NumPy or JAX.
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
    """Yields the manager, the step and the record of a checkpoint; `step=None` is the latest."""
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
    """Reads the parameters that are in `like`, all or some, and verifies their checksums."""
    path = Path(str(manager.directory)) / str(step)
    restore = ocp.args.PyTreeRestore(
        item=like,
        restore_args=ocp.checkpoint_utils.construct_restore_args(like),
        partial_restore=True,
    )
    args = ocp.args.Composite(params=restore)
    params = _reading(path, lambda: manager.restore(step, args=args)).params
    got = _checksums({"params": params})
    _check_sums(path, {name: record["checksums"].get(name) for name in got}, got)
    return params


def _nested(path: tuple[str, ...], value: Any) -> Any:
    """Wraps a value in dictionaries: ("a", "b"), 1 -> {"a": {"b": 1}}."""
    for name in reversed(path):
        value = {name: value}
    return value


def _manager(directory: Path, policy: Any) -> ocp.CheckpointManager:
    """Opens a directory of checkpoints.

    `policy`: which checkpoints to keep; None: read only, without a barrier between processes.
    """
    logging.getLogger("absl").addFilter(QUIET)
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        cleanup_tmp_directories=policy is not None,  # of interrupted saves
        create=policy is not None,
        multiprocessing_options=alone if policy is None else ocp.options.MultiprocessingOptions(),
    )
    return ocp.CheckpointManager(directory, options=options)


def preservation_policy(config: Checkpointing) -> Any:
    """Returns Orbax's policy: keep the latest, and permanently every multiple of `keep_every`.

    Raises ValueError if the fields of `config` do not fit.
    """
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
    """Reads the JSON record of a checkpoint and verifies its sha256."""
    path = Path(str(manager.directory)) / str(step)
    args = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = _reading(path, lambda: manager.restore(step, args=args)).record
    claimed = record.pop("sha256", None)
    if claimed != _sha256(record):
        raise CorruptCheckpointError(
            f"{path}: got sha256 {_sha256(record)} for its record, expected {claimed}"
        )
    return record


def _sha256(record: dict[str, Any]) -> str:
    """Computes the hash of a record as canonical JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _reading(path: Path, read: Callable[[], T]) -> T:
    """Returns `read()`; repeats it after an error that is no damage, such as of a file server.

    Raises:
      CorruptCheckpointError: if files are missing, or the store or a parser refuses their content.
      CheckpointReadError: if it still fails after the last of RETRY_SECONDS.
    """
    for pause in (*RETRY_SECONDS, None):
        try:
            return read()
        except Exception as error:
            what = f"{path}: {type(error).__name__}: {' '.join(str(error).split())}"
            if _is_damage(error):
                raise CorruptCheckpointError(what) from error
            if pause is None:
                raise CheckpointReadError(
                    f"{what}; it was tried {len(RETRY_SECONDS) + 1} times. The checkpoint may be "
                    "good, and was left as it is: run the same command again when it can be read"
                ) from error
            print(f"{what}; trying again in {pause:g} s", file=sys.stderr, flush=True)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _is_damage(error: BaseException) -> bool:
    """Returns whether an error says that files are missing or not what was written.

    Orbax may wrap the error of the store, which is then its cause.
    """
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | FileNotFoundError | KeyError):
        return True
    text = str(error)
    if isinstance(error, ValueError) and (STRUCTURE in text or DAMAGE.match(text)):
        return "OS error" not in text  # the store reports a failing file system as missing files
    return error.__cause__ is not None and _is_damage(error.__cause__)


def _check_tree(path: Path, record: dict[str, Any], like: State) -> None:
    """Raises ValueError if the arrays of a checkpoint are not those of the config's optimizer."""
    tree = {"params": like.params, "optimizer": like.optimizer}
    expected = {_name(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)}
    got = set(record["checksums"])
    if got != expected:
        raise ValueError(
            f"{path} holds the state of another optimizer: of its arrays the config's optimizer "
            f"has no {sorted(got - expected)[:2]}, and it lacks {sorted(expected - got)[:2]}; give "
            "the same training.optimizer.algorithm, or begin with its parameters alone: "
            "training.start_from"
        )


def _check_identity(path: Path, record: dict[str, Any], model: Model, fingerprint: str) -> None:
    """Raises ValueError if a checkpoint belongs to another mixture or another model."""
    if record["fingerprint"] != fingerprint:
        raise ValueError(
            f"{path} was trained on mixture {record['fingerprint']}, but the mixture given is "
            f"{fingerprint}: give the same baked data, or another run directory"
        )
    held = plain(Model()) | record["model"]  # a field that is newer than the checkpoint
    for name, expected in plain(model).items():
        if rule_of(f"model.{name}") is Rule.REFUSED and held[name] != expected:
            raise ValueError(
                f"{path} holds a model with {name}={held[name]!r}, but the config "
                f"has {name}={expected!r}: give the same model, or another run directory"
            )


def _check_sums(path: Path, expected: dict[str, int], got: dict[str, int]) -> None:
    """Raises CorruptCheckpointError if a checksum differs."""
    for name, value in expected.items():
        if got.get(name) != value:
            raise CorruptCheckpointError(
                f"{path}: checksum of {name}: got {got.get(name)}, expected {value}"
            )


def _checksums(tree: Any) -> dict[str, int]:
    """Computes path -> 32-bit checksum of each array, independent of the mesh."""
    sums = jax.device_get(_sums(tree))
    return {_name(path): int(value) for path, value in jax.tree_util.tree_leaves_with_path(sums)}


def _name(path: Any) -> str:
    """Returns the name of an array by its path in the tree: params/embedding_VD."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


@jax.jit
def _sums(tree: Any) -> Any:
    return jax.tree.map(_sum, tree)


def _sum(array: Array) -> Array:
    """Computes sum(bits * odd number by position) mod 2^32; any single changed value changes it."""
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")
    # The flat index of each element, without a reshape, which would gather a sharded array.
    index = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    # An odd factor is invertible mod 2^32, so that a changed value always changes its product.
    odd = index * jnp.uint32(0x3C6EF362) + jnp.uint32(1)
    return jnp.sum(bits.astype(jnp.uint32) * odd, dtype=jnp.uint32)

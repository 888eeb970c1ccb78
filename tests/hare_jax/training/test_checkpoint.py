from __future__ import annotations

import dataclasses
import errno
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from hare_jax.config import Algorithm, Checkpointing, DType, Mesh, Model, Optimizer, Remat
from hare_jax.runtime import sharding
from hare_jax.training import checkpoint, optim
from hare_jax.training.checkpoint import (
    CheckpointReadError,
    Checkpoints,
    CorruptCheckpointError,
    State,
    restore_params,
)
from hare_jax.training.faults import LossHistory
from hare_jax.training.state import place_state
from tests.hare_jax.builders import equal_trees

pytestmark = pytest.mark.slow

KEEP = Checkpointing(keep=2)
SMALL = Model(
    vocab_size=64, num_layers=1, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=24
)


def _placed(model: Model, mesh: Mesh) -> State:
    optimizer = optim.build(Optimizer(warmup_steps=0), 10)
    return place_state(model, optimizer, sharding.make_mesh(mesh))


@pytest.fixture
def placed(model: Model) -> State:
    return _placed(model, Mesh())


def _state(placed: State, step: int) -> State:
    """Arrays that differ in every place, leaf and step."""

    def fill(like: Any) -> jax.Array:
        values = jnp.arange(like.size, dtype=jnp.float32).reshape(like.shape) + 100 * step
        return jax.device_put(values.astype(like.dtype), like.sharding)

    filled = jax.tree.map(fill, placed)
    return dataclasses.replace(filled, step=jax.device_put(jnp.int32(step), placed.step.sharding))


def _save(directory: Path, model: Model, placed: State, *steps: int) -> None:
    with Checkpoints(directory, KEEP, model, "mixture") as checkpoints:
        for step in steps:
            checkpoints.save(_state(placed, step), {"past": {"seed": step}, "pending": [0.1 + 0.2]})
        checkpoints.wait()


def _restore(
    directory: Path, model: Model, placed: State, fingerprint: str = "mixture"
) -> tuple[State, dict[str, Any]] | None:
    with Checkpoints(directory, KEEP, model, fingerprint) as checkpoints:
        return checkpoints.restore(placed)


def test_restored_equals_saved(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path / "check points", model, placed, 3, 5)
    restored = _restore(tmp_path / "check points", model, placed)
    assert restored is not None
    state, record = restored
    assert equal_trees(state, _state(placed, 5))
    assert (record["step"], record["past"], record["pending"]) == (5, {"seed": 5}, [0.1 + 0.2])


def test_nothing_to_restore(tmp_path: Path, model: Model, placed: State) -> None:
    assert _restore(tmp_path / "none", model, placed) is None


def test_a_save_is_of_its_moment(
    tmp_path: Path, model: Model, placed: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []  # to Orbax, which writes it later
    json_save = ocp.args.JsonSave
    monkeypatch.setattr(ocp.args, "JsonSave", lambda item: given.append(item) or json_save(item))
    pending = [1.0]
    with Checkpoints(tmp_path, KEEP, model, "mixture") as checkpoints:
        checkpoints.save(_state(placed, 3), {"pending": pending})
        pending.clear()
    assert given[0]["pending"] == [1.0]


def test_keeps_the_latest(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 1, 2, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_keeps_some_for_good(tmp_path: Path, model: Model, placed: State) -> None:
    config = Checkpointing(every_steps=2, keep=1, keep_every=4)
    with Checkpoints(tmp_path, config, model, "mixture") as checkpoints:
        for step in (2, 3, 4, 6, 8, 10, 11):  # 3 and 11: a signal came
            checkpoints.save(_state(placed, step), {})
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 8, 11]


@pytest.mark.parametrize(("every_steps", "keep_every"), [(2, 3), (2, -2), (0, 0)])
def test_keeping_steps_that_are_never_saved_is_refused(
    tmp_path: Path, model: Model, every_steps: int, keep_every: int
) -> None:
    config = Checkpointing(every_steps=every_steps, keep_every=keep_every)
    message = rf"keep_every={keep_every}: expected 0, or a multiple of every_steps={every_steps}"
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, config, model, "mixture")


def test_the_loss_history_is_restored_exactly(tmp_path: Path, model: Model) -> None:
    optimizer = optim.build(Optimizer(warmup_steps=0), 10)
    placed = place_state(model, optimizer, sharding.make_mesh(Mesh()), window=4)
    losses_W = jax.device_put(
        np.float32([np.nan, 0.1, 1 / 3, 7]), placed.loss_history.losses_W.sharding
    )
    skipped = jax.device_put(jnp.int32(2), placed.loss_history.skipped.sharding)
    state = dataclasses.replace(_state(placed, 3), loss_history=LossHistory(losses_W, skipped))
    with Checkpoints(tmp_path, KEEP, model, "mixture") as checkpoints:
        checkpoints.save(state, {})
    restored = _restore(tmp_path, model, placed)
    assert restored is not None
    np.testing.assert_array_equal(restored[0].loss_history.losses_W, losses_W)
    assert int(restored[0].loss_history.skipped) == 2


def test_restores_onto_another_mesh(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3)
    other = _placed(model, Mesh(2, 2, 2))
    restored = _restore(tmp_path, model, other)
    assert restored is not None
    assert equal_trees(restored[0], _state(placed, 3))
    assert jax.tree.all(jax.tree.map(lambda a, p: a.sharding == p.sharding, restored[0], other))


def test_params_alone_for_evaluation(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3, 5)
    params, step = restore_params(tmp_path, model)
    assert step == 5 and equal_trees(params, _state(placed, 5).params)
    assert {len(a.sharding.device_set) for a in jax.tree.leaves(params)} == {1}
    params, step = restore_params(tmp_path, model, step=3)
    assert step == 3 and equal_trees(params, _state(placed, 3).params)


def test_how_it_is_computed_may_change(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3)
    other = dataclasses.replace(
        model, remat=Remat.FULL, compute_dtype=DType.BFLOAT16, reduce_dtype=DType.BFLOAT16
    )
    assert _restore(tmp_path, other, placed) is not None


def test_another_mixture_is_refused_by_name(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3)
    with pytest.raises(
        ValueError, match="trained on mixture mixture, but the mixture given is oth"
    ):
        _restore(tmp_path, model, placed, "other")


def test_another_model_is_refused_by_name(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3)
    other = dataclasses.replace(model, d_ff=64)
    with pytest.raises(ValueError, match="with d_ff=48, but the config has d_ff=64: give the same"):
        _restore(tmp_path, other, placed)
    with pytest.raises(ValueError, match="with d_ff=48, but the config has d_ff=64: give the same"):
        restore_params(tmp_path, other)


def _data_files(checkpoint: Path, item: str) -> list[Path]:
    """Where the arrays of an item are, some of them twice; of the record, its only file."""
    files = [path for path in (checkpoint / item).rglob("*") if path.parent.name == "d"]
    return files or [checkpoint / item / "metadata"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
@pytest.mark.parametrize("item", ["params", "optimizer", "record"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path,
    model: Model,
    placed: State,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    item: str,
) -> None:
    _save(tmp_path / "c", model, placed, 3, 5)
    for path in _data_files(tmp_path / "c" / "5", item):
        damage(path)
    restored = _restore(tmp_path / "c", model, placed)
    assert restored is not None
    assert equal_trees(restored[0], _state(placed, 3))
    message = f"!!! DAMAGED CHECKPOINT, using the one before: {tmp_path / 'c' / '5'}"
    assert message in capfd.readouterr().err


def _kind(path: Path) -> str:
    """A name for all files of a checkpoint that are of one kind; data files are named at random."""
    return re.sub(r"/d/.*", "/d", str(path))


KINDS = [
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
    "record/metadata",
    "record/commit_success.txt",
    *(
        f"{item}/{name}"
        for item in ("params", "optimizer")
        for name in (
            "_METADATA",
            "_sharding",
            "array_metadatas/process_0",
            "commit_success.txt",
            "d",
            "manifest.ocdbt",
            "ocdbt.process_0/d",
            "ocdbt.process_0/manifest.ocdbt",
        )
    ),
]


def test_the_kinds_of_files_are_all_there_are(tmp_path: Path, model: Model, placed: State) -> None:
    _save(tmp_path, model, placed, 3)
    files = [path.relative_to(tmp_path / "3") for path in (tmp_path / "3").rglob("*")]
    kinds = {_kind(path) for path in files if (tmp_path / "3" / path).is_file()}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("damage", [_flip, _truncate])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damaged_file_is_detected(
    saved_twice: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    kind: str,
) -> None:
    """The checkpoint before, loudly; or the same to the bit, where the file was not needed."""
    directory = shutil.copytree(saved_twice, tmp_path / "c")
    files = [path for path in (directory / "5").rglob("*") if path.is_file()]
    for path in [path for path in files if _kind(path.relative_to(directory / "5")) == kind]:
        damage(path)
    placed = _placed(SMALL, Mesh())
    restored = _restore(directory, SMALL, placed)
    assert restored is not None
    step = int(restored[0].step)
    assert equal_trees(restored[0], _state(placed, step))
    told = f"!!! DAMAGED CHECKPOINT, using the one before: {directory / '5'}"
    assert (step == 3) == (told in capfd.readouterr().err)


@pytest.fixture(scope="module")
def saved_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with checkpoints of steps 3 and 5, to be copied."""
    directory = tmp_path_factory.mktemp("saved") / "c"
    _save(directory, SMALL, _placed(SMALL, Mesh()), 3, 5)
    return directory


def test_arrays_that_read_well_but_are_not_those_saved_are_damage(
    tmp_path: Path, model: Model, placed: State, capfd: pytest.CaptureFixture[str]
) -> None:
    _save(tmp_path, model, placed, 3, 5)
    shutil.rmtree(tmp_path / "5" / "params")
    shutil.copytree(tmp_path / "3" / "params", tmp_path / "5" / "params")
    restored = _restore(tmp_path, model, placed)
    assert restored is not None and int(restored[0].step) == 3
    assert "5: checksum of params/embedding_VD: " in capfd.readouterr().err
    with pytest.raises(CorruptCheckpointError, match="5: checksum of params/embedding_VD: "):
        restore_params(tmp_path, model)


def test_one_changed_bit_anywhere_changes_the_checksum(model: Model, placed: State) -> None:
    state = _state(placed, 3)
    before = checkpoint._checksums(state)
    head_DV = np.array(state.params["head_DV"])
    head_DV.view(np.uint32)[17, 3] ^= 1
    head = jax.device_put(head_DV, state.params["head_DV"].sharding)
    params = {**state.params, "head_DV": head}
    after = checkpoint._checksums(dataclasses.replace(state, params=params))
    assert {name for name in before if before[name] != after[name]} == {"params/head_DV"}
    other = _state(_placed(model, Mesh(2, 2, 2)), 3)
    assert checkpoint._checksums(other) == before, "the same on every mesh"


def test_damage_is_moved_aside_so_that_its_step_can_be_saved_again(
    tmp_path: Path, model: Model, placed: State
) -> None:
    _save(tmp_path / "c", model, placed, 3, 5)
    for path in _data_files(tmp_path / "c" / "5", "params"):
        _flip(path)
    with Checkpoints(tmp_path / "c", KEEP, model, "mixture") as checkpoints:
        assert checkpoints.restore(placed) is not None
        checkpoints.drop_after(3)
        checkpoints.save(_state(placed, 5), {})
        checkpoints.wait()
    assert (tmp_path / "c-damaged" / "000-step-5").is_dir()
    restored = _restore(tmp_path / "c", model, placed)
    assert restored is not None and int(restored[0].step) == 5


def test_damage_everywhere_does_not_begin_again(
    tmp_path: Path, model: Model, placed: State
) -> None:
    _save(tmp_path, model, placed, 3, 5)
    for step in ("3", "5"):
        for path in _data_files(tmp_path / step, "params"):
            _flip(path)
    message = r"all checkpoints are damaged \(steps \[5, 3\]\); bring them back from a copy"
    with pytest.raises(CorruptCheckpointError, match=message) as e:
        _restore(tmp_path, model, placed)
    assert not re.search("remove|delete", str(e.value))
    with pytest.raises(CorruptCheckpointError):
        restore_params(tmp_path, model)


def _failing(monkeypatch: pytest.MonkeyPatch, errors: list[Exception]) -> None:
    """Lets reads of the arrays of step 5 raise these errors, one after the other."""
    restore = ocp.CheckpointManager.restore

    def failing(self: Any, step: int, *, args: Any) -> Any:
        if step == 5 and "params" in args and errors:
            raise errors.pop(0)
        return restore(self, step, args=args)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", failing)
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", (0.0, 0.0, 0.0))


STALE = OSError(errno.ESTALE, "Stale file handle")
NO_DAMAGE = [
    STALE,
    MemoryError(),
    ValueError('INTERNAL: Error reading "c/0": [OS error 116: ESTALE Stale file handle]'),
    ValueError('NOT_FOUND: Error reading "c/0": [OS error 116: ESTALE Stale file handle]'),
    ValueError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes"),
    RuntimeError("UNAVAILABLE: connection reset by peer"),
]


def test_a_read_error_that_passes_costs_nothing(
    saved_twice: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, [STALE, STALE])
    restored = _restore(saved_twice, SMALL, _placed(SMALL, Mesh()))
    assert restored is not None and int(restored[0].step) == 5
    err = capfd.readouterr().err
    assert err.count("Stale file handle; trying again in 0 s") == 2 and "DAMAGED" not in err


@pytest.mark.parametrize(
    "error", NO_DAMAGE, ids=lambda error: f"{type(error).__name__} {error}"[:40]
)
def test_what_cannot_be_read_is_not_called_damaged(
    saved_twice: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _failing(monkeypatch, [error] * 4)
    with pytest.raises(
        CheckpointReadError, match=r"5: .*tried 4 times\. The checkpoint may be good"
    ):
        _restore(saved_twice, SMALL, _placed(SMALL, Mesh()))
    monkeypatch.undo()
    restored = _restore(saved_twice, SMALL, _placed(SMALL, Mesh()))
    assert restored is not None and int(restored[0].step) == 5


def test_the_state_of_another_optimizer_is_named(saved_twice: Path) -> None:
    lion = optim.build(Optimizer(algorithm=Algorithm.LION, warmup_steps=0), 10)
    placed = place_state(SMALL, lion, sharding.make_mesh(Mesh()))
    with pytest.raises(
        ValueError, match=r"holds the state of another optimizer: .*optimizer/"
    ) as e:
        _restore(saved_twice, SMALL, placed)
    assert not isinstance(e.value, CorruptCheckpointError)
    assert "give the same training.optimizer.algorithm" in str(e.value)


def test_a_save_that_was_killed_is_no_checkpoint(
    tmp_path: Path, model: Model, placed: State
) -> None:
    _save(tmp_path, model, placed, 3, 5)
    (tmp_path / "5").rename(tmp_path / "5.orbax-checkpoint-tmp")  # what is there before the commit
    restored = _restore(tmp_path, model, placed)
    assert restored is not None and int(restored[0].step) == 3


def test_a_missing_checkpoint_is_named(tmp_path: Path, model: Model, placed: State) -> None:
    with pytest.raises(FileNotFoundError, match="none: no such directory of checkpoints"):
        restore_params(tmp_path / "none", model)
    _save(tmp_path / "c", model, placed, 3)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 4, there are \[3\]"):
        restore_params(tmp_path / "c", model, step=4)


def test_keeping_none_is_refused(tmp_path: Path, model: Model) -> None:
    with pytest.raises(ValueError, match=r"checkpointing\.keep=0: expected at least 1"):
        Checkpoints(tmp_path, Checkpointing(keep=0), model, "mixture")

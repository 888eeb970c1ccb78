from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import (
    Algorithm,
    Mesh,
    Model,
    Optimizer,
    Remat,
    Slices,
    Stage,
    Training,
)
from hare_jax.data import packed_dataset
from hare_jax.data.batch import Batch, from_records
from hare_jax.data.order import Order
from hare_jax.model import decoder
from hare_jax.runtime import sharding
from hare_jax.training import optim, train
from hare_jax.training.state import place_state
from tests.hare_jax.builders import B, T, tiny_model

pytestmark = pytest.mark.slow

STEPS = 4
EVERY_MESH = [
    (data, fsdp, devices // data // fsdp)
    for devices in (2, 4, 8)
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if devices % (data * fsdp) == 0
]


def _batches(steps: int) -> list[Batch]:
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(steps):
        records = []
        for _ in range(B):
            cut = int(rng.integers(2, T))
            row, lengths = rng.integers(3, 64, T + 1), [cut, T + 1 - cut]
            records.append(row.astype("<u2").tobytes() + np.array(lengths, "<u4").tobytes())
        batches.append(
            from_records(
                records,
                record_ids=range(B),
                source_ids=[b % 3 for b in range(B)],
                tokens_per_record=T + 1,
                dtype="uint16",
            )
        )
    return batches


def _train(
    model: Model,
    shape: tuple[int, int, int],
    algorithm: Algorithm = Algorithm.ADAMW,
    accumulation: int = 1,
    dropout: float = 0.0,
) -> tuple[list[Any], Any]:
    """Losses of a few steps on a mesh, and what the compiler says about the step."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.make_mesh(Mesh(*shape), devices)
    config = Training(
        stages=[Stage("all", "all", tokens=STEPS * B * T, dropout=dropout)],
        batch_size=B,
        accumulation=accumulation,
        loss_chunks=2,
        optimizer=Optimizer(algorithm, peak_lr=1e-2, warmup_steps=1),
    )
    order = Order(config, {"web": 100}, {"all": {"web": 1.0}}, T)
    optimizer = optim.build(config.optimizer, STEPS)
    placed = place_state(model, optimizer, mesh)
    with jax.set_mesh(mesh):
        state = train.init_state(model, 0, optimizer, placed)
        rows = sharding.local_rows(mesh, B, accumulation)
        batches = [sharding.place(batch, mesh, B, rows) for batch in _batches(2) * 2]
        step = train.make_step(model, config, optimizer, order, num_sources=3)
        compiled = train.compile_step(step, state, batches[0])
        values = []
        for batch in batches:
            state, value = compiled(state, batch)
            values.append(jax.device_get(value))
        assert jax.tree.all(
            jax.tree.map(
                lambda a, p: a.sharding.is_equivalent_to(p.sharding, a.ndim), state, placed
            )
        )
    return values, compiled


MODEL = tiny_model()


EIGHT_HEADS = dataclasses.replace(MODEL, num_heads=8, num_kv_heads=8, head_dim=4)


@cache
def _single(
    algorithm: Algorithm = Algorithm.ADAMW, dropout: float = 0.0, model: Model = MODEL
) -> list[Any]:
    return _train(model, (1, 1, 1), algorithm, dropout=dropout)[0]


def _same(values: list[Any], expected: list[Any]) -> None:
    for got, want in zip(values, expected, strict=True):
        for name in ("loss", "grad_norm", "param_norm", "source_loss_sum", "source_tokens"):
            np.testing.assert_allclose(got[name], want[name], rtol=2e-4, err_msg=name)


@pytest.fixture
def compiled_quickly() -> Iterator[None]:
    """Most of a mesh's time is spent on code that runs four times."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize("shape", EVERY_MESH, ids=lambda shape: "x".join(map(str, shape)))
def test_every_mesh_gives_the_losses_of_one_device(shape: tuple[int, int, int]) -> None:
    values, _ = _train(EIGHT_HEADS, shape)
    assert values[0]["loss"] > values[2]["loss"], "the same batch, seen again"
    _same(values, _single(model=EIGHT_HEADS))


def test_matrices_are_orthogonalised_across_devices() -> None:
    values, _ = _train(MODEL, (2, 2, 2), Algorithm.MUON)
    assert values[0]["loss"] > values[2]["loss"]
    _same(values, _single(Algorithm.MUON))


@pytest.mark.parametrize("shape, parts", [((1, 1, 1), 8), ((2, 2, 2), 2)])
def test_a_batch_in_parts_is_the_whole_batch(shape: tuple[int, int, int], parts: int) -> None:
    _same(_train(MODEL, shape, accumulation=parts)[0], _single())


def test_layers_in_a_row_are_the_scanned_layers() -> None:
    model = dataclasses.replace(MODEL, scan_layers=False, remat=Remat.ATTENTION)
    _same(_train(model, (2, 2, 2))[0], _single())


def test_dropout_is_the_same_on_every_mesh_and_does_drop() -> None:
    dropped = _single(dropout=0.5)
    _same(_train(MODEL, (2, 2, 2), dropout=0.5)[0], dropped)
    assert dropped[0]["loss"] != _single()[0]["loss"]


def test_the_whole_state_is_donated(model: Model) -> None:
    _, compiled = _train(model, (1, 1, 1))
    memory = compiled.memory_analysis()
    shapes = decoder.abstract(model).params
    params = sum(4 * a.size for a in jax.tree.leaves(shapes))
    # Parameters and two moments, in place; the batch alone is not.
    assert memory.alias_size_in_bytes >= 3 * params
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 1024


OUTER = {"embedding_VD", "head_DV"}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_fsdp_cuts_parameters_and_moments(model: Model, algorithm: Algorithm) -> None:
    mesh = sharding.make_mesh(Mesh(1, 4, 2))
    optimizer = optim.build(Optimizer(algorithm, warmup_steps=0), 10)
    placed = place_state(model, optimizer, mesh)
    moments = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path((placed.params, placed.optimizer)):
        parts = leaf.size // np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=int)
        matrix = getattr(path[-1], "key", "scale") in optim.MATRICES.keys() | OUTER
        assert parts == (8 if matrix else 1), path
        moments += path[0].idx == 1 and parts == 8
    matrices = len(optim.MATRICES) + len(OUTER)
    two = {Algorithm.ADAMW: matrices, Algorithm.LION: 0, Algorithm.MUON: 2}[algorithm]
    assert moments == matrices + two, "the second moments are those of AdamW alone"


def test_every_parameter_has_a_rule_of_its_rank(model: Model) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(decoder.abstract(model).params):
        assert len(sharding.RULES[path[-1].key]) in (0, leaf.ndim), path


@pytest.mark.parametrize(
    ("mesh", "shape"),
    [
        (Mesh(), (1, 8, 1)),
        (Mesh(-1, 2, 2), (2, 2, 2)),
        (Mesh(2, 2, -1), (2, 2, 2)),
        (Mesh(8, 1, 1), (8, 1, 1)),
    ],
)
def test_one_axis_is_inferred(mesh: Mesh, shape: tuple[int, ...]) -> None:
    made = sharding.make_mesh(mesh)
    assert made.devices.shape == shape
    assert made.axis_names == ("data", "fsdp", "tensor")


@pytest.mark.parametrize("mesh", [Mesh(-1, -1, 1), Mesh(3, -1, 1), Mesh(2, 2, 1), Mesh(0, -1, 1)])
def test_meshes_that_do_not_fit_are_refused(mesh: Mesh) -> None:
    with pytest.raises(ValueError, match=r"training.mesh is \{.*on 8 devices: expected sizes that"):
        sharding.make_mesh(mesh)


def _fakes(slices: int, each: int) -> list[Any]:
    """Devices of a cluster, in an order that tells nothing of where they are."""
    devices = [
        SimpleNamespace(id=i, slice_index=i // each, platform="gpu", device_kind="fake")
        for i in range(slices * each)
    ]
    return devices[1::2] + devices[::2]


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        # Data goes across by default: all of a copy of the parameters is in one slice.
        (Mesh(2, 2, 2), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
        (Mesh(4, 2, 1), [[[0], [1]], [[2], [3]], [[4], [5]], [[6], [7]]]),
        # Where data is too small, fsdp does, then tensor.
        (Mesh(1, 4, 2), [[[0, 1], [2, 3], [4, 5], [6, 7]]]),
        (Mesh(1, 1, 8), [[[0, 1, 2, 3, 4, 5, 6, 7]]]),
        # As asked.
        (Mesh(2, 2, 2, Slices(fsdp=2)), [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]),
        (Mesh(2, 2, 2, Slices(tensor=2)), [[[0, 4], [1, 5]], [[2, 6], [3, 7]]]),
    ],
)
def test_slow_networks_lie_along_the_axes_that_speak_least(mesh: Mesh, expected: Any) -> None:
    order = sharding.device_order(mesh, _fakes(2, 4))
    np.testing.assert_array_equal(np.vectorize(lambda device: device.id)(order), expected)


def test_four_slices_along_two_axes() -> None:
    order = sharding.device_order(Mesh(2, 4, 1), _fakes(4, 2))
    slices = np.vectorize(lambda device: device.slice_index)(order)[:, :, 0]
    np.testing.assert_array_equal(slices, [[0, 0, 1, 1], [2, 2, 3, 3]])


@pytest.mark.parametrize(
    "mesh",
    [Mesh(2, 2, 2, Slices(data=4)), Mesh(3, 2, 1, Slices(2)), Mesh(2, 2, 2, Slices(1, 1, 1))],
)
def test_slices_that_do_not_fit_are_refused(mesh: Mesh) -> None:
    message = r"does not fit 2 slices: expected counts .*training.mesh.data=2 keeps one copy"
    with pytest.raises(ValueError, match=message):
        sharding.device_order(mesh, _fakes(2, mesh.data * mesh.fsdp * mesh.tensor // 2))


def test_an_incomplete_slice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got slices of \[2, 4\] devices, expected the same"):
        sharding.device_order(Mesh(), [d for d in _fakes(2, 4) if d.id < 6])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {},
            r"attention/k_DGK of shape \(2, 32, 2, 8\): model.num_kv_heads=2 cannot be divided",
        ),
        ({"num_heads": 6, "num_kv_heads": 6}, r"k_DGK of shape .*: model.num_kv_heads=6 cannot"),
        (
            {"d_ff": 50},
            r"feed_forward/down_FD of shape \(2, 50, 32\): model.d_ff=50 cannot be divided into 4",
        ),
        (
            {"vocab_size": 66},
            r"embedding_VD of shape \(66, 32\): model.vocab_size=66 cannot be divided",
        ),
        (
            {"d_model": 33},
            r"model.d_model=33 cannot be divided into 2 equal parts along mesh axis 'fsdp'",
        ),
    ],
)
def test_parameters_that_the_mesh_does_not_divide_are_named(
    changed: dict[str, int], message: str
) -> None:
    model = dataclasses.replace(MODEL, **({"num_kv_heads": 4} if changed else {}) | changed)
    mesh = sharding.make_mesh(Mesh(1, 2, 4))
    with pytest.raises(ValueError, match=message + ".*choose a training.mesh.* that divides it"):
        sharding.params_sharding(mesh, decoder.abstract(model).params)


def test_a_parameter_without_a_rule_is_named() -> None:
    mesh = sharding.make_mesh(Mesh())
    with pytest.raises(ValueError, match="no sharding rule for parameter layers/bias: add 'bias'"):
        sharding.params_sharding(mesh, {"layers": {"bias": jnp.zeros(8)}})


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    mesh = sharding.make_mesh(Mesh(2, 4, 1))
    with pytest.raises(ValueError, match=r"batch_size=12 cannot be divided equally among the 8 p"):
        sharding.local_rows(mesh, 12)


def test_place_puts_each_row_where_the_mesh_has_it() -> None:
    mesh = sharding.make_mesh(Mesh(2, 2, 2))
    batch = _batches(1)[0]
    assert sharding.local_rows(mesh, B) == slice(0, B)
    placed = sharding.place(batch, mesh, B, slice(0, B))
    for key, value in placed.items():
        np.testing.assert_array_equal(value, batch[key])
        for shard in value.addressable_shards:
            np.testing.assert_array_equal(shard.data, batch[key][shard.index])
            assert shard.data.shape[0] == B // 4


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_batches_are_the_same_on_any_number_of_devices(
    bake: Callable[..., Path], devices: int
) -> None:
    dataset = packed_dataset.PackedDataset(bake())
    config = Training(stages=[Stage("all", "stage1", tokens=3 * B * T)], batch_size=B)
    order = packed_dataset.make_order(dataset, config)
    mesh = sharding.make_mesh(Mesh(-1, min(devices, 2), 1), jax.devices()[:devices])
    rows = sharding.local_rows(mesh, B)
    batches = packed_dataset.batches(dataset, order, first_step=0, rows=rows)
    for step, batch in enumerate(batches):
        placed = sharding.place(batch, mesh, B, rows)
        picks = list(
            zip(placed["source_id_B"].tolist(), placed["record_id_B"].tolist(), strict=True)
        )
        assert picks == order.records_of_step(step)
        assert len(placed["record_id_B"].addressable_shards) == devices
    assert step == 2

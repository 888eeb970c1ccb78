"""The mesh, and where each array lies on it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import Mesh, Slices
from hare_jax.data.batch import Batch
from hare_jax.model.decoder import BATCH_AXES

AXES = ("data", "fsdp", "tensor")

# The last name of a parameter's path -> its axes. Layers are stacked: their first axis is L.
RULES: dict[str, P] = {
    "embedding_VD": P("tensor", "fsdp"),
    "head_DV": P("fsdp", "tensor"),
    "q_DHK": P(None, "fsdp", "tensor", None),
    "k_DGK": P(None, "fsdp", "tensor", None),
    "v_DGK": P(None, "fsdp", "tensor", None),
    "o_HKD": P(None, "tensor", None, "fsdp"),
    "gate_DF": P(None, "fsdp", "tensor"),
    "up_DF": P(None, "fsdp", "tensor"),
    "down_FD": P(None, "tensor", "fsdp"),
    "scale": P(),
}

# What the config calls the axes of parameters that may be cut.
SIZES = {
    "V": "vocab_size",
    "D": "d_model",
    "H": "num_heads",
    "G": "num_kv_heads",
    "F": "d_ff",
}


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh (data, fsdp, tensor) over all devices, or those given; -1 takes what is left.

    Raises ValueError where the axes do not multiply to the number of devices, or cannot be laid
    across the slices that they are of.
    """
    devices = jax.devices() if devices is None else devices
    order = device_order(config, devices)
    return jax.sharding.Mesh(order, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_order(config: Mesh, devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices by their place on the mesh, [data, fsdp, tensor].

    Neighbours on the last axes are neighbors on the network of their slice. With two slices of
    four devices, data 2 and fsdp 4, each slice holds one copy of the parameters:

        data 0    slice 0: 0 1 2 3
        data 1    slice 1: 4 5 6 7
    """
    shape = _mesh_shape(config, len(devices))
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if len(set(slices.values())) > 1:
        raise ValueError(
            f"got slices of {sorted(slices.values())} devices, expected as many in each: leave "
            "the incomplete slice out"
        )
    across = _across_slices(config.slices, shape, len(slices))
    within = tuple(size // count for size, count in zip(shape, across, strict=True))
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )


def _mesh_shape(config: Mesh, devices: int) -> tuple[int, ...]:
    axes = {name: getattr(config, name) for name in AXES}
    given = math.prod(size for size in axes.values() if size != -1)
    inferred = [name for name, size in axes.items() if size == -1]
    fits = given > 0 and devices % given == 0 and (inferred or given == devices)
    if len(inferred) > 1 or any(size < 1 and size != -1 for size in axes.values()) or not fits:
        raise ValueError(
            f"training.mesh is {axes} on {devices} devices: expected sizes that multiply to "
            f"{devices}, one of which may be -1 for all that is left"
        )
    return tuple(devices // given if size == -1 else size for size in axes.values())


def _across_slices(config: Slices, shape: tuple[int, ...], slices: int) -> tuple[int, ...]:
    """How many slices each axis goes across; what the config leaves open is filled in order."""
    asked = tuple(getattr(config, name) for name in AXES)
    given = math.prod(count for count in asked if count)
    left = slices // given if given > 0 else 0
    across = []
    for size, count in zip(shape, asked, strict=True):
        across.append(count or math.gcd(size, left))
        left //= 1 if count else across[-1]
    cut = all(n > 0 and size % n == 0 for size, n in zip(shape, across, strict=True))
    if math.prod(across) != slices or not cut:
        sizes, counts = (dict(zip(AXES, values, strict=True)) for values in (shape, asked))
        raise ValueError(
            f"training.mesh {sizes} with training.mesh.slices {counts} "
            f"cannot be laid across {slices} slices: expected counts that multiply to {slices}, "
            f"each a divisor of its axis; training.mesh.data={slices} keeps a copy on each slice"
        )
    return tuple(across)


def params_sharding(mesh: jax.sharding.Mesh, params: Any) -> Any:
    """A NamedSharding for each parameter, by RULES.

    Raises ValueError where a parameter has no rule or an axis of it cannot be cut so.
    """

    def place(path: Any, param: Any) -> NamedSharding:
        name = path[-1].key
        if name not in RULES:
            raise ValueError(f"no sharding rule for parameter {_name(path)}: add {name!r} to RULES")
        letters = name.rpartition("_")[2].rjust(param.ndim)  # of q_DHK; the first axis is L
        for size, letter, axis in zip(param.shape, letters, RULES[name], strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"parameter {_name(path)} of shape {param.shape}: model.{SIZES[letter]}={size} "
                    f"cannot be cut in {mesh.shape[axis]} equal parts along mesh axis {axis!r}; "
                    f"choose a training.mesh.{axis} that divides it"
                )
        return NamedSharding(mesh, RULES[name])

    return jax.tree_util.tree_map_with_path(place, params)


def optimizer_sharding(
    mesh: jax.sharding.Mesh, optimizer: optax.GradientTransformation, params: Any
) -> Any:
    """Shardings of the optimizer's state: moments like their parameters, all else everywhere.

    A moment is known by the end of its path, which is that of its parameter.
    """
    places = {
        _keys(path): (param.shape, place)
        for (path, param), place in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jax.tree.leaves(params_sharding(mesh, params)),
            strict=True,
        )
    }

    def place(path: Any, leaf: Any) -> NamedSharding:
        shape, like = places.get(_keys(path), ((), replicated(mesh)))
        return like if leaf.shape == shape else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, jax.eval_shape(optimizer.init, params))


def _keys(path: Any) -> tuple[str, ...]:
    """The names of the dicts that a path ends with."""
    keys: list[str] = []
    for part in reversed(path):
        if not (isinstance(part, jax.tree_util.DictKey) and isinstance(part.key, str)):
            break
        keys.insert(0, part.key)
    return tuple(keys)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def rows_at_a_time(mesh: jax.sharding.Mesh, batch_size: int, accumulation: int = 1) -> int:
    """Rows that a device has of each part of the batch.

    Raises ValueError where the batch, or a part of it, cannot be shared equally.
    """
    shares = batch_shares(mesh)
    if accumulation < 1 or batch_size % (shares * accumulation):
        raise ValueError(
            f"training.batch_size={batch_size} cannot be shared equally among the {shares} parts "
            f"of mesh axes {BATCH_AXES} with training.accumulation={accumulation}: choose a "
            f"multiple of {shares * max(accumulation, 1)}"
        )
    return batch_size // (shares * accumulation)


def batch_shares(mesh: jax.sharding.Mesh) -> int:
    """How many parts the rows of a batch are cut in; devices of a tensor axis share one."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh: jax.sharding.Mesh, batch_size: int, accumulation: int = 1) -> slice:
    """The rows of the global batch that the devices of this process hold.

    Raises ValueError where the batch, or a part of it, cannot be shared equally.
    """
    rows_at_a_time(mesh, batch_size, accumulation)
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    rows = [index[0].indices(batch_size)[:2] for index in indices if index is not None]
    return slice(min(start for start, _ in rows), max(stop for _, stop in rows))


def place(batch: Batch, mesh: jax.sharding.Mesh, batch_size: int, rows: slice) -> Batch:
    """The global batch on the devices, of which this process has `rows` in `batch`."""

    def put(local: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, P(BATCH_AXES, *(None,) * (local.ndim - 1)))
        shape = (batch_size, *local.shape[1:])

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return local[start - rows.start : stop - rows.start]

        return jax.make_array_from_callback(shape, sharding, part)

    return {key: put(array) for key, array in batch.items()}


def _name(path: Any) -> str:
    return "/".join(str(part.key) for part in path)

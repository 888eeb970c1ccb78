"""The device mesh, and the sharding of every array on it."""

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
from hare_jax.model.constraints import BATCH_AXES

AXES = ("data", "fsdp", "tensor")

# The last name of a parameter's path -> the mesh axis that each of its axes is sharded over. The
# parameters of layers are stacked: their first axis is L. Over "tensor", q, k, v, gate and up are
# sharded along their outputs, o and down along their inputs, so that attention and feed-forward
# need one all-reduce each.
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

# The config field that gives the size of each axis that can be sharded.
SIZES = {
    "V": "vocab_size",
    "D": "d_model",
    "H": "num_heads",
    "G": "num_kv_heads",
    "F": "d_ff",
}


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Builds a mesh (data, fsdp, tensor) over `devices`, or all devices; size -1 is inferred.

    Raises ValueError if the sizes do not multiply to the number of devices, or if they do not fit
    the slices that the devices belong to.
    """
    devices = jax.devices() if devices is None else devices
    order = device_order(config, devices)
    return jax.sharding.Mesh(order, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_order(config: Mesh, devices: Sequence[jax.Device]) -> np.ndarray:
    """Arranges the devices as an array [data, fsdp, tensor].

    Neighbors on the last axes are neighbors on the network of their slice. With two slices of four
    devices, data 2 and fsdp 4, each slice holds one copy of the parameters:

        data 0    slice 0: 0 1 2 3
        data 1    slice 1: 4 5 6 7
    """
    shape = _mesh_shape(config, len(devices))
    slices = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if len(set(slices.values())) > 1:
        raise ValueError(
            f"got slices of {sorted(slices.values())} devices, expected the same number in each: "
            "leave the incomplete slice out"
        )
    # Each axis is the product of its size across slices and its size within a slice.
    across = _across_slices(config.slices, shape, len(slices))
    within = tuple(size // count for size, count in zip(shape, across, strict=True))
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )


def _mesh_shape(config: Mesh, devices: int) -> tuple[int, ...]:
    """Returns the sizes of the axes with -1 inferred; raises ValueError if they do not fit."""
    axes = {name: getattr(config, name) for name in AXES}
    given = math.prod(size for size in axes.values() if size != -1)
    inferred = [name for name, size in axes.items() if size == -1]
    fits = given > 0 and devices % given == 0 and (inferred or given == devices)
    if len(inferred) > 1 or any(size < 1 and size != -1 for size in axes.values()) or not fits:
        raise ValueError(
            f"training.mesh is {axes} on {devices} devices: expected sizes that multiply to "
            f"{devices}, at most one of which is -1 (inferred)"
        )
    return tuple(devices // given if size == -1 else size for size in axes.values())


def _across_slices(config: Slices, shape: tuple[int, ...], slices: int) -> tuple[int, ...]:
    """Returns the number of slices that each axis spans; 0 in the config is inferred in order."""
    configured = tuple(getattr(config, name) for name in AXES)
    given = math.prod(count for count in configured if count)
    left = slices // given if given > 0 else 0  # slices that the inferred axes must span
    across = []
    for size, count in zip(shape, configured, strict=True):
        across.append(count or math.gcd(size, left))
        left //= 1 if count else across[-1]
    cut = all(n > 0 and size % n == 0 for size, n in zip(shape, across, strict=True))
    if math.prod(across) != slices or not cut:
        sizes, counts = (dict(zip(AXES, values, strict=True)) for values in (shape, configured))
        raise ValueError(
            f"training.mesh {sizes} with training.mesh.slices {counts} "
            f"does not fit {slices} slices: expected counts that multiply to {slices}, each a "
            f"divisor of its axis; training.mesh.data={slices} keeps one copy on each slice"
        )
    return tuple(across)


def params_sharding(mesh: jax.sharding.Mesh, params: Any) -> Any:
    """Returns the NamedSharding of each parameter, by RULES.

    Raises ValueError if a parameter has no rule, or if a mesh axis does not divide its axis.
    """

    def place(path: Any, param: Any) -> NamedSharding:
        name = path[-1].key
        if name not in RULES:
            raise ValueError(f"no sharding rule for parameter {_name(path)}: add {name!r} to RULES")
        # The axes by letter: q_DHK of four axes is " DHK", since the first axis, L, has none.
        letters = name.rpartition("_")[2].rjust(param.ndim)
        for size, letter, axis in zip(param.shape, letters, RULES[name], strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"parameter {_name(path)} of shape {param.shape}: model.{SIZES[letter]}={size} "
                    f"cannot be divided into {mesh.shape[axis]} equal parts along mesh axis "
                    f"{axis!r}; choose a training.mesh.{axis} that divides it"
                )
        return NamedSharding(mesh, RULES[name])

    return jax.tree_util.tree_map_with_path(place, params)


def optimizer_sharding(
    mesh: jax.sharding.Mesh, optimizer: optax.GradientTransformation, params: Any
) -> Any:
    """Returns the shardings of the optimizer's state: a moment is sharded like its parameter.

    All other arrays are replicated. A moment is recognized by the end of its path, which is the
    path of its parameter.
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
    """Returns the dictionary keys that a path ends with."""
    keys: list[str] = []
    for part in reversed(path):
        if not (isinstance(part, jax.tree_util.DictKey) and isinstance(part.key, str)):
            break
        keys.insert(0, part.key)
    return tuple(keys)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds in full."""
    return NamedSharding(mesh, P())


def rows_at_a_time(mesh: jax.sharding.Mesh, batch_size: int, accumulation: int = 1) -> int:
    """Returns the rows per device in one forward pass: of the batch, or of one part of it.

    Raises ValueError if the batch cannot be divided equally.
    """
    shares = batch_shares(mesh)
    if batch_size < 1 or accumulation < 1 or batch_size % (shares * accumulation):
        raise ValueError(
            f"training.batch_size={batch_size} cannot be divided equally among the {shares} parts "
            f"of mesh axes {BATCH_AXES} with training.accumulation={accumulation}: choose a "
            f"multiple of {shares * max(accumulation, 1)}"
        )
    return batch_size // (shares * accumulation)


def batch_shares(mesh: jax.sharding.Mesh) -> int:
    """Returns the number of parts that a batch's rows are sharded into, over the batch axes."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_rows(mesh: jax.sharding.Mesh, batch_size: int, accumulation: int = 1) -> slice:
    """Returns the rows of the global batch that the devices of this process hold.

    Raises ValueError if the batch cannot be divided equally.
    """
    rows_at_a_time(mesh, batch_size, accumulation)
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    rows = [index[0].indices(batch_size)[:2] for index in indices if index is not None]
    return slice(min(start for start, _ in rows), max(stop for _, stop in rows))


def place(batch: Batch, mesh: jax.sharding.Mesh, batch_size: int, rows: slice) -> Batch:
    """Puts a batch onto the devices, sharded by rows.

    Args:
      batch: the rows of this process, numpy arrays.
      mesh: the mesh.
      batch_size: rows of the global batch.
      rows: which rows of the global batch `batch` holds; see `local_rows`.

    Returns:
      The global batch as jax arrays.
    """

    def put(local: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, P(BATCH_AXES, *(None,) * (local.ndim - 1)))
        shape = (batch_size, *local.shape[1:])

        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            return local[start - rows.start : stop - rows.start]

        return jax.make_array_from_callback(shape, sharding, part)

    return {key: put(array) for key, array in batch.items()}


def _name(path: Any) -> str:
    """Formats a path of dictionary keys: "layers/attention/q_DHK"."""
    return "/".join(str(part.key) for part in path)

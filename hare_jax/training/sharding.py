"""The mesh, and where each array lies on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import Mesh
from hare_jax.model.decoder import BATCH_AXES
from hare_jax.training.batch import Batch

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


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh (data, fsdp, tensor) over all devices, or those given; -1 takes what is left.

    Raises ValueError where the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    axes = {"data": config.data, "fsdp": config.fsdp, "tensor": config.tensor}
    given = math.prod(size for size in axes.values() if size != -1)
    inferred = [name for name, size in axes.items() if size == -1]
    fits = given > 0 and len(devices) % given == 0 and (inferred or given == len(devices))
    if len(inferred) > 1 or any(size < 1 and size != -1 for size in axes.values()) or not fits:
        raise ValueError(
            f"training.mesh is {axes} on {len(devices)} devices: expected sizes that multiply to "
            f"{len(devices)}, one of which may be -1 for all that is left"
        )
    shape = tuple(len(devices) // given if size == -1 else size for size in axes.values())
    return jax.make_mesh(shape, tuple(axes), axis_types=(AxisType.Auto,) * 3, devices=devices)


def of_params(mesh: jax.sharding.Mesh, params: Any) -> Any:
    """A NamedSharding for each parameter, by RULES.

    Raises ValueError where a parameter has no rule or an axis of it cannot be cut so.
    """

    def place(path: Any, param: Any) -> NamedSharding:
        name = path[-1].key
        if name not in RULES:
            raise ValueError(f"no sharding rule for parameter {_name(path)}: add {name!r} to RULES")
        for size, axis in zip(param.shape, RULES[name], strict=False):
            if axis is not None and size % mesh.shape[axis]:
                raise ValueError(
                    f"parameter {_name(path)} of shape {param.shape}: {size} cannot be cut in "
                    f"{mesh.shape[axis]} equal parts along mesh axis {axis!r}; "
                    f"choose another training.mesh.{axis}"
                )
        return NamedSharding(mesh, RULES[name])

    return jax.tree_util.tree_map_with_path(place, params)


def of_optimizer(
    mesh: jax.sharding.Mesh, optimizer: optax.GradientTransformation, params: Any
) -> Any:
    """Shardings of the optimizer's state: moments like their parameters, all else everywhere.

    A moment is known by the end of its path, which is that of its parameter.
    """
    places = {
        _keys(path): (param.shape, place)
        for (path, param), place in zip(
            jax.tree_util.tree_leaves_with_path(params),
            jax.tree.leaves(of_params(mesh, params)),
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


def local_rows(mesh: jax.sharding.Mesh, batch_size: int, accumulation: int = 1) -> slice:
    """The rows of the global batch that the devices of this process hold.

    Raises ValueError where the batch, or a part of it, cannot be shared equally.
    """
    shares = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if accumulation < 1 or batch_size % (shares * accumulation):
        raise ValueError(
            f"training.batch_size={batch_size} cannot be shared equally among the {shares} parts "
            f"of mesh axes {BATCH_AXES} with training.accumulation={accumulation}: choose a "
            f"multiple of {shares * max(accumulation, 1)}"
        )
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

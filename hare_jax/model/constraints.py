"""The mesh axes of the values inside the model, and constraints on their sharding."""

from __future__ import annotations

import math

import jax
from jax import Array
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")  # the mesh axes that shard the rows of a batch
HEAD_AXIS = "tensor"  # the mesh axis that shards heads, feed-forward and vocabulary


def on_mesh(x: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """Constrains the sharding of `x`: one mesh axis, several or None for each axis of `x`.

    Returns `x` unchanged if training's mesh is not set.
    """
    if not set(BATCH_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def share_rows(x: Array) -> Array:
    """Shards the first axis like the rows of the batch, so that the compiler does not move rows."""
    return on_mesh(x, BATCH_AXES, *(None,) * (x.ndim - 1))


def batch_shares() -> int:
    """Returns the number of parts that the current mesh shards the rows of a batch into."""
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    return math.prod(mesh.get(axis, 1) for axis in BATCH_AXES)

"""The description of an attention computation, by which a kernel decides if it supports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array
from jax.sharding import PartitionSpec

from hare_jax.model.constraints import BATCH_AXES, HEAD_AXIS, batch_shares


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """The properties of an attention computation that a kernel may not support."""

    platform: str  # cpu, gpu or tpu
    dtype: str
    queries: int  # per row
    keys: int  # per row
    head_dim: int
    packed: bool  # whether rows have segments
    shares: bool = True  # whether the mesh divides rows and key-value heads evenly


def request_of(
    q_BTHK: Array | jax.ShapeDtypeStruct, k_BSGK: Array | jax.ShapeDtypeStruct, *, packed: bool
) -> AttentionRequest:
    """Describes attention over these arrays, on the current mesh."""
    B, T, _, K = q_BTHK.shape
    S, G = k_BSGK.shape[1:3]
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    return AttentionRequest(
        platform=platform(),
        dtype=q_BTHK.dtype.name,
        queries=T,
        keys=S,
        head_dim=K,
        packed=packed,
        shares=B % batch_shares() == 0 and G % mesh.get(HEAD_AXIS, 1) == 0,
    )


def platform() -> str:
    """Returns the platform to compile for: that of the current mesh, else JAX's default.

    The devices of a mesh need not be attached: see hare_jax/aot.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None or not device.platform else device.platform
    return "gpu" if name.lower() == "cuda" else name.lower()


def rows_and_heads(axes: str) -> PartitionSpec:
    """Returns the sharding of an array by its letters: B over the batch axes, H and G over heads.

    >>> tuple(rows_and_heads("BTHK"))
    (('data', 'fsdp'), None, 'tensor', None)
    """
    places = {"B": BATCH_AXES, "H": HEAD_AXIS, "G": HEAD_AXIS}
    return PartitionSpec(*(places.get(axis) for axis in axes))


def on_each_device(
    kernel: Callable[..., Array],
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
) -> Array:
    """Runs a fused kernel on the rows and heads of each device of the current mesh.

    Args:
      kernel: (q, k, v, segments) -> [B, T, H, K], for the arrays of one device.
      q_BTHK: queries.
      k_BTGK: keys.
      v_BTGK: values.
      segments_BT: None: each row is one document.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return kernel(q_BTHK, k_BTGK, v_BTGK, segments_BT)
    heads, tokens = rows_and_heads("BTHK"), rows_and_heads("BT")
    return jax.shard_map(
        kernel,
        in_specs=(heads, heads, heads, None if segments_BT is None else tokens),
        out_specs=heads,
        check_vma=False,  # fused kernels do not declare how their results vary over the mesh
    )(q_BTHK, k_BTGK, v_BTGK, segments_BT)

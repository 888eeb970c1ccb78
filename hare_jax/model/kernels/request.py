"""What is asked of an attention kernel, so that each can say whether it can do it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import Array
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")  # the mesh axes that share the rows of a batch
HEAD_AXIS = "tensor"  # the mesh axis that shares the heads


@dataclass(frozen=True, slots=True)
class AttentionRequest:
    """`platform`: cpu, gpu or tpu; `shares` says whether a mesh cuts rows and heads evenly."""

    platform: str
    dtype: str
    queries: int
    keys: int
    head_dim: int
    packed: bool
    shares: bool = True


def request(
    q_BTHK: Array | jax.ShapeDtypeStruct, k_BSGK: Array | jax.ShapeDtypeStruct, *, packed: bool
) -> AttentionRequest:
    """The request that attention over these arrays is, on the mesh that is set."""
    B, T, _, K = q_BTHK.shape
    S, G = k_BSGK.shape[1:3]
    mesh = dict(jax.sharding.get_abstract_mesh().shape)
    rows = math.prod(mesh.get(axis, 1) for axis in BATCH_AXES)
    return AttentionRequest(
        platform=platform(),
        dtype=q_BTHK.dtype.name,
        queries=T,
        keys=S,
        head_dim=K,
        packed=packed,
        shares=B % rows == 0 and G % mesh.get(HEAD_AXIS, 1) == 0,
    )


def platform() -> str:
    """What is compiled for: the platform of the mesh, which need not be here, else JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None or not device.platform else device.platform
    return "gpu" if name.lower() == "cuda" else name.lower()


def rows_and_heads(axes: str) -> PartitionSpec:
    """How an array lies on the mesh: B is cut along the batch axes, H and G along the head axis."""
    places = {"B": BATCH_AXES, "H": HEAD_AXIS, "G": HEAD_AXIS}
    return PartitionSpec(*(places.get(axis) for axis in axes))


def on_each_device(
    kernel: Callable[..., Array],
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    segments_BT: Array | None,
) -> Array:
    """What a fused kernel makes of the rows and heads that each device of the mesh has."""
    if jax.sharding.get_abstract_mesh().empty:
        return kernel(q_BTHK, k_BTGK, v_BTGK, segments_BT)
    heads, tokens = rows_and_heads("BTHK"), rows_and_heads("BT")
    return jax.shard_map(
        kernel,
        in_specs=(heads, heads, heads, None if segments_BT is None else tokens),
        out_specs=heads,
        check_vma=False,  # fused kernels do not say how what they return varies over the mesh
    )(q_BTHK, k_BTGK, v_BTGK, segments_BT)

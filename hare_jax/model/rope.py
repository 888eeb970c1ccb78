"""Rotary positions (arXiv 2104.09864), and their scaling for contexts longer than in training.

Shapes: B rows, T positions, H heads, K width of a head. Pair i of a head, its elements i and
i + K/2, is rotated by the angle position * frequency_i with frequency_i = theta^(-2i / K).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.config import Model, RopeMethod, RopeScaling


def rope_tables(positions_BT: Array, model: Model) -> tuple[Array, Array]:
    """Computes cos and sin of the angles, float32 [B, T, K/2] each."""
    frequency_K = model.rope_theta ** (
        -jnp.arange(0, model.head_dim, 2, dtype=jnp.float32) / model.head_dim
    )
    scaling = model.rope_scaling
    if scaling.method is not RopeMethod.NONE:
        frequency_K *= jnp.asarray(_scales(scaling, model.head_dim, model.rope_theta))
    angle_BTK = positions_BT[:, :, None].astype(jnp.float32) * frequency_K[None, None, :]
    cos_BTK, sin_BTK = jnp.cos(angle_BTK), jnp.sin(angle_BTK)
    if scaling.method is RopeMethod.YARN:
        magnitude = attention_factor(scaling)
        return cos_BTK * magnitude, sin_BTK * magnitude
    return cos_BTK, sin_BTK


def rope_rows(positions_BT: Array, model: Model) -> tuple[Array, Array]:
    """Computes the same as `rope_tables`, for positions below T; a higher one gives NaN.

    The rows are read from a table of T positions. XLA regards a cosine as cheap, and would compute
    `rope_tables` again for each head of each layer that is not scanned: 4 % of a step on a CPU.
    """
    tables_1TK = rope_tables(jnp.arange(positions_BT.shape[1])[None], model)
    cos_TK, sin_TK = (table_1TK[0] for table_1TK in tables_1TK)

    def rows(table_TK: Array) -> Array:
        return table_TK.at[positions_BT].get(mode="fill", fill_value=jnp.nan)

    return rows(cos_TK), rows(sin_TK)


def tables_of_layer(
    tables: tuple[Array, Array], layer: Array, nope_every: int
) -> tuple[Array, Array]:
    """Returns the tables of a layer: those of angle 0 for each `nope_every`-th layer (NoPE).

    Args:
      tables: cos and sin, from `rope_tables` or `rope_rows`.
      layer: int32 [], 0 for the first layer.
      nope_every: 0: all layers have rotary positions; 4 in SmolLM3 (arXiv 2501.18795).
    """
    if not nope_every:
        return tables
    rotates = (layer + 1) % nope_every != 0
    return jnp.where(rotates, tables[0], 1.0), jnp.where(rotates, tables[1], 0.0)


def rotate(x_BTHK: Array, tables: tuple[Array, Array]) -> Array:
    """Rotates the pairs (i, i + K/2) of each head, like Hugging Face."""
    cos_BTHK, sin_BTHK = (table[:, :, None, :] for table in tables)
    # (low, high) is rotated by the angle: low cos - high sin, high cos + low sin.
    low, high = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    rotated = (low * cos_BTHK - high * sin_BTHK, high * cos_BTHK + low * sin_BTHK)
    return jnp.concatenate(rotated, axis=-1).astype(x_BTHK.dtype)


def attention_factor(scaling: RopeScaling) -> float:
    """Returns what YaRN multiplies cos and sin by (arXiv 2309.00071, section 3.4)."""
    return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0


def _scales(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """Returns the factor of each frequency, float32 [K/2]: from 1 / scaling.factor to 1."""
    pair = np.arange(0, head_dim, 2)
    slowest = 1 / scaling.factor  # positions are interpolated: as many as fit into the old context
    if scaling.method is RopeMethod.LINEAR:  # arXiv 2306.15595
        return np.full(len(pair), slowest, np.float32)
    # The number of rotations of a pair within the original context.
    rotations = scaling.original_length * theta ** (-pair / head_dim) / (2 * math.pi)
    if scaling.method is RopeMethod.LLAMA3:  # the released code of Llama 3.1
        low, high = scaling.low_rotations, scaling.high_rotations
        kept = np.clip((rotations - low) / (high - low), 0, 1)
    else:
        kept = 1 - _yarn_ramp(scaling, head_dim, theta)
    return (kept + (1 - kept) * slowest).astype(np.float32)


def _yarn_ramp(scaling: RopeScaling, head_dim: int, theta: float) -> np.ndarray:
    """Returns how much each pair is interpolated, [K/2] in [0, 1] (arXiv 2309.00071, section 3.2).

    The ramp goes from the pair that rotates `high_rotations` times within the original context to
    the one that rotates `low_rotations` times, both rounded outwards.
    """

    def pair_with(rotations: float) -> float:
        length = scaling.original_length / (rotations * 2 * math.pi)
        return head_dim * math.log(length) / (2 * math.log(theta))

    first = max(math.floor(pair_with(scaling.high_rotations)), 0)
    last = min(math.ceil(pair_with(scaling.low_rotations)), head_dim - 1)
    return np.clip((np.arange(head_dim // 2) - first) / max(last - first, 1e-3), 0, 1)

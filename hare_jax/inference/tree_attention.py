"""The forward pass over rows of prefix trees, as prefix_tree.py lays them out.

Shape legend: B rows, T tokens, D model width; H, G, K as in attention.py;
S keys.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from hare_jax.model import decoder
from hare_jax.model.kernels import xla


def hidden_states(
    model: decoder.Decoder, tokens_BT: Array, positions_BT: Array, ends_BT: Array
) -> Array:
    """Hidden states after the last norm, [B, T, D], of rows of prefix trees."""
    window = model.config.sliding_window

    def attend(q_BTHK: Array, k_BTGK: Array, v_BTGK: Array) -> Array:
        return tree_attention(q_BTHK, k_BTGK, v_BTGK, positions_BT, ends_BT, window)

    return model.hidden(tokens_BT, positions_BT, attend)


def tree_attention(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    positions_BT: Array,
    ends_BT: Array,
    window: int | None = None,
) -> Array:
    """Each query i sees the keys j <= i with i < ends[j], scaled by 1/sqrt(K); [B, T, H, K].

    `window`: of those, the ones less than so many positions before it.
    """
    index_1T = jnp.arange(q_BTHK.shape[1], dtype=jnp.int32)[None]

    def visible(queries: slice, keys: slice) -> Array:
        query_1T1, key_11S = index_1T[:, queries, None], index_1T[:, None, keys]
        seen_BTS = (key_11S <= query_1T1) & (query_1T1 < ends_BT[:, None, keys])
        if window is None:
            return seen_BTS
        distance_BTS = positions_BT[:, queries, None] - positions_BT[:, None, keys]
        return seen_BTS & (distance_BTS < window)

    return xla.attend(q_BTHK, k_BTGK, v_BTGK, visible)

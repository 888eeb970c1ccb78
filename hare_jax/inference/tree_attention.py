"""The forward pass over rows of prefix trees, in the layout of prefix_tree.py.

Shape legend: B rows, T tokens, D model width; H, G, K as in attention.py; S keys.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from hare_jax.model import decoder
from hare_jax.model.kernels import xla


def hidden_states(
    model: decoder.Decoder, tokens_BT: Array, positions_BT: Array, ends_BT: Array
) -> Array:
    """Returns the hidden states after the last norm, [B, T, D], of rows of prefix trees.

    Args:
      model: the decoder.
      tokens_BT: int32.
      positions_BT: int32, the depth of each token in its tree.
      ends_BT: int32, where the subtree of each token ends; 0 in padding.
    """
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
    """Computes attention in which query i sees the keys j <= i with i < ends[j]; [B, T, H, K].

    Args:
      q_BTHK: queries; scores are scaled by 1 / sqrt(K).
      k_BTGK: keys.
      v_BTGK: values.
      positions_BT: the depth of each token in its tree.
      ends_BT: where the subtree of each token ends.
      window: attend only to keys that are fewer than `window` positions back; None: to all.
    """
    index_1T = jnp.arange(q_BTHK.shape[1], dtype=jnp.int32)[None]

    def visible(queries: slice, keys: slice) -> Array:
        """Returns which keys each query sees, bool [B, T, S]."""
        query_1T1, key_11S = index_1T[:, queries, None], index_1T[:, None, keys]
        # j <= i: the key comes before the query; i < ends[j]: the query is in the key's subtree.
        seen_BTS = (key_11S <= query_1T1) & (query_1T1 < ends_BT[:, None, keys])
        if window is None:
            return seen_BTS
        # Places in a row are not positions in a text, so the window is measured in positions.
        distance_BTS = positions_BT[:, queries, None] - positions_BT[:, None, keys]
        return seen_BTS & (distance_BTS < window)

    return xla.attend(q_BTHK, k_BTGK, v_BTGK, visible)

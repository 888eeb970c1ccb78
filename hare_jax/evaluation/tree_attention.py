"""The forward pass over rows of prefix trees, as prefix_tree.py lays them out.

Shape legend: B rows, T tokens, D model width; H, G, R, K as in attention.py; N = R T queries of one
key-value head; S keys.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from hare_jax.model import decoder
from hare_jax.model.attention import rope_tables

QUERY_BLOCK = 256  # queries that meet the keys up to their own end, not those of the whole row
HIDDEN = -1e30  # added to a score: finite, so that no row of scores can become not-a-number


def hidden_states(
    model: decoder.Decoder, tokens_BT: Array, positions_BT: Array, ends_BT: Array
) -> Array:
    """Hidden states after the last norm, [B, T, D], of rows of prefix trees."""
    c = model.config

    def attend(q_BTHK: Array, k_BTGK: Array, v_BTGK: Array) -> Array:
        return tree_attention(q_BTHK, k_BTGK, v_BTGK, positions_BT, ends_BT, c.sliding_window)

    rope = rope_tables(positions_BT, c.head_dim, c.rope_theta)
    graph, layers = nnx.split(model.layers)

    def layer(x_BTD: Array, params: Any) -> tuple[Array, None]:
        return nnx.merge(graph, params)(x_BTD, rope, attend), None

    x_BTD, _ = jax.lax.scan(layer, embedded(model, tokens_BT), layers)
    return model.final_norm(x_BTD)


def embedded(model: decoder.Decoder, tokens_BT: Array) -> Array:
    return model.embedding_VD[...][tokens_BT].astype(model.config.compute_dtype.value)


def tree_attention(
    q_BTHK: Array,
    k_BTGK: Array,
    v_BTGK: Array,
    positions_BT: Array,
    ends_BT: Array,
    window: int | None = None,
) -> Array:
    """Each query i sees the keys j <= i with i < ends[j], scaled by 1/sqrt(K); [B, T, H, K].

    `window`: of those, the ones less than so many positions before it. Queries are taken by blocks,
    which meet only the keys up to their own end: half the work of the whole square.
    """
    B, T, H, K = q_BTHK.shape
    G = k_BTGK.shape[2]
    R = H // G
    q_BGRTK = (q_BTHK * K**-0.5).reshape(B, T, G, R, K).transpose(0, 2, 3, 1, 4)
    k_BGTK, v_BGTK = k_BTGK.transpose(0, 2, 1, 3), v_BTGK.transpose(0, 2, 1, 3)
    index_T = jnp.arange(T, dtype=jnp.int32)
    blocks = []
    for start in range(0, T, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, T)
        n = stop - start
        query_1T1 = index_T[None, start:stop, None]
        visible_BTS = (index_T[None, None, :stop] <= query_1T1) & (
            query_1T1 < ends_BT[:, None, :stop]
        )
        if window is not None:
            distance_BTS = positions_BT[:, start:stop, None] - positions_BT[:, None, :stop]
            visible_BTS &= distance_BTS < window
        bias_BTS = jnp.where(visible_BTS, 0.0, HIDDEN)
        q_BGNK = q_BGRTK[:, :, :, start:stop].reshape(B, G, R * n, K)
        scores_BGNS = jnp.einsum(
            "bgnk,bgsk->bgns", q_BGNK, k_BGTK[:, :, :stop], preferred_element_type=jnp.float32
        )
        scores_BGRTS = scores_BGNS.reshape(B, G, R, n, stop) + bias_BTS[:, None, None]
        weights_BGRTS = jnp.exp(scores_BGRTS - scores_BGRTS.max(axis=-1, keepdims=True))
        sums_BGRT1 = weights_BGRTS.sum(axis=-1, keepdims=True)
        mixed_BGNK = jnp.einsum(
            "bgns,bgsk->bgnk",
            weights_BGRTS.reshape(B, G, R * n, stop).astype(v_BGTK.dtype),
            v_BGTK[:, :, :stop],
            preferred_element_type=jnp.float32,
        )
        blocks.append(mixed_BGNK.reshape(B, G, R, n, K) / sums_BGRT1)
    out_BGRTK = jnp.concatenate(blocks, axis=3)
    return out_BGRTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K).astype(q_BTHK.dtype)

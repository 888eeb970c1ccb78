"""Continues a batch of contexts until each of them is complete.

Prefill computes the keys and values of the contexts once; they are only read afterwards. Those of
new tokens are in a separate cache, so that a decode step writes one token and copies nothing else.
After every TOKENS_PER_SYNC steps the host checks whether all rows are complete.

Shape legend: B rows, P positions of the longest context, N new tokens, S = P + N keys, L layers,
R query heads per key-value head; D, G, H, K, V as in decoder.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hare_jax.inference.sampling import Sampler, Sampling
from hare_jax.inference.tree_attention import tree_attention
from hare_jax.model import decoder
from hare_jax.model.kernels.xla import HIDDEN
from hare_jax.model.linear import precision_of
from hare_jax.model.rope import rope_tables, tables_of_layer

TOKENS_PER_SYNC = 16


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class DecodeState:
    """The caches of a batch: its contexts, then `used` new tokens."""

    context_k_LBPGK: Array
    context_v_LBPGK: Array
    new_k_LBNGK: Array
    new_v_LBNGK: Array
    lengths_B: Array  # int32: tokens of each context
    used: Array  # int32 []: new tokens in the cache
    x_BD: Array  # hidden states of the last tokens, after the last norm


def continue_batch(
    weights: decoder.Weights,
    contexts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    *,
    shape: tuple[int, int],
    max_new_tokens: int,
    is_complete: Callable[[list[int]], bool],
    sampling: Sampling,
    place: Callable[[np.ndarray], Array],
) -> list[list[int]]:
    """Returns at most `max_new_tokens` new tokens per context.

    Args:
      weights: the model.
      contexts: token ids, each with at least one.
      numbers: of the contexts among all requests; the draws of a row depend on them.
      shape: (rows, tokens) that the contexts are padded to.
      max_new_tokens: per context.
      is_complete: (new tokens) -> whether a row needs no more.
      sampling: how tokens are drawn.
      place: puts an array of B rows onto the devices.
    """
    rows = shape[0]
    tokens_BP = np.zeros(shape, np.int32)
    lengths_B = np.ones(rows, np.int32)
    numbers_B = np.zeros(rows, np.int32)
    for row, context in enumerate(contexts):
        tokens_BP[row, : len(context)] = context
        lengths_B[row], numbers_B[row] = len(context), numbers[row]
    sampler = Sampler.of(sampling, place(numbers_B))
    num_blocks = -(-max_new_tokens // TOKENS_PER_SYNC)
    capacity = num_blocks * TOKENS_PER_SYNC
    state = _prefill(capacity, weights, place(tokens_BP), place(lengths_B))
    new: list[list[int]] = [[] for _ in contexts]
    for _ in range(num_blocks):
        tokens_NB, state = _decode_block(weights, state, sampler)
        columns = np.asarray(tokens_NB).T.tolist()  # the rows of padding come last
        for completion, tokens in zip(new, columns, strict=False):
            completion += tokens
        if all(is_complete(completion) for completion in new):
            break
    return [completion[:max_new_tokens] for completion in new]


@functools.partial(jax.jit, static_argnums=0)
def _prefill(
    capacity: int, weights: decoder.Weights, tokens_BP: Array, lengths_B: Array
) -> DecodeState:
    """Computes the keys and values of the contexts, with room for `capacity` new tokens."""
    model = decoder.merge(weights)
    c = model.config
    B, length = tokens_BP.shape
    positions_BP = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (B, length))
    # A context is a tree without branches: each token is seen until the end of its context.
    ends_BP = jnp.broadcast_to(lengths_B[:, None], (B, length))
    rope = rope_tables(positions_BP, c)
    layer_graph, layers = nnx.split(model.layers)

    def layer(x_BPD: Array, scanned: Any) -> tuple[Array, tuple[Array, Array]]:
        layer_params, number = scanned
        computed: list[Array] = []  # keys and values, which leave the layer beside its result

        def attend(q_BPHK: Array, k_BPGK: Array, v_BPGK: Array) -> Array:
            computed[:] = k_BPGK, v_BPGK
            return tree_attention(q_BPHK, k_BPGK, v_BPGK, positions_BP, ends_BP, c.sliding_window)

        tables = tables_of_layer(rope, number, c.nope_every)
        x_BPD = nnx.merge(layer_graph, layer_params)(x_BPD, tables, attend)
        return x_BPD, (computed[0], computed[1])

    numbers_L = jnp.arange(c.num_layers)
    x_BPD, (k_LBPGK, v_LBPGK) = jax.lax.scan(layer, model.embed(tokens_BP), (layers, numbers_L))
    last_B11 = (lengths_B - 1)[:, None, None]
    x_B1D = jnp.take_along_axis(x_BPD, last_B11, axis=1)
    empty = jnp.zeros((c.num_layers, B, capacity, c.num_kv_heads, c.head_dim), k_LBPGK.dtype)
    return DecodeState(
        context_k_LBPGK=k_LBPGK,
        context_v_LBPGK=v_LBPGK,
        new_k_LBNGK=empty,
        new_v_LBNGK=empty,
        lengths_B=lengths_B,
        used=jnp.zeros((), jnp.int32),
        x_BD=model.final_norm(x_B1D)[:, 0],
    )


@jax.jit
def _decode_block(
    weights: decoder.Weights, state: DecodeState, sampler: Sampler
) -> tuple[Array, DecodeState]:
    """Returns more tokens of each row, int32 [TOKENS_PER_SYNC, B], and the state."""
    model = decoder.merge(weights)

    def step(state: DecodeState, _: None) -> tuple[DecodeState, Array]:
        token_B = sampler.choose(model.logits(state.x_BD), state.used)
        return _decode_step(model, token_B, state), token_B

    state, tokens_NB = jax.lax.scan(step, state, None, length=TOKENS_PER_SYNC)
    return tokens_NB, state


def _decode_step(model: decoder.Decoder, token_B: Array, state: DecodeState) -> DecodeState:
    """Returns the state after one more token of each row."""
    c = model.config
    position_B1 = (state.lengths_B + state.used)[:, None]
    rope = rope_tables(position_B1, c)
    graph, layers = nnx.split(model.layers)
    bias_BS = _attention_bias(state, c.sliding_window)

    def layer(carry: tuple[Array, Array, Array], scanned: Any) -> tuple[Any, None]:
        x_B1D, new_k_LBNGK, new_v_LBNGK = carry
        params, context_k_BPGK, context_v_BPGK, number = scanned
        updated: list[Array] = []  # caches, which leave the layer beside its result

        def attend(q_B1HK: Array, k_B1GK: Array, v_B1GK: Array) -> Array:
            # Writes one token into the caches of all layers, which are carried and not copied.
            start = (number, 0, state.used, 0, 0)
            write = jax.lax.dynamic_update_slice
            updated[:] = (
                write(new_k_LBNGK, k_B1GK[None], start),
                write(new_v_LBNGK, v_B1GK[None], start),
            )
            new_k_BNGK, new_v_BNGK = (cache[number] for cache in updated)
            return _attend_to_both(
                q_B1HK, (context_k_BPGK, new_k_BNGK), (context_v_BPGK, new_v_BNGK), bias_BS
            )

        tables = tables_of_layer(rope, number, c.nope_every)
        x_B1D = nnx.merge(graph, params)(x_B1D, tables, attend)
        return (x_B1D, updated[0], updated[1]), None

    start = (model.embed(token_B[:, None]), state.new_k_LBNGK, state.new_v_LBNGK)
    numbers_L = jnp.arange(c.num_layers)
    (x_B1D, new_k_LBNGK, new_v_LBNGK), _ = jax.lax.scan(
        layer, start, (layers, state.context_k_LBPGK, state.context_v_LBPGK, numbers_L)
    )
    return replace(
        state,
        new_k_LBNGK=new_k_LBNGK,
        new_v_LBNGK=new_v_LBNGK,
        used=state.used + 1,
        x_BD=model.final_norm(x_B1D)[:, 0],
    )


def _attention_bias(state: DecodeState, window: int | None) -> Array:
    """Returns 0 for each key that the new token sees, else a large negative number, [B, S]."""
    position_B1 = (state.lengths_B + state.used)[:, None]  # of the new token
    num_context, num_new = state.context_k_LBPGK.shape[2], state.new_k_LBNGK.shape[2]
    # Keys of the context have the positions 0 ... lengths - 1, so their distance is more than
    # `used`; what lies behind the context is padding.
    distance_BP = position_B1 - jnp.arange(num_context, dtype=jnp.int32)[None]
    seen_BP = (distance_BP > state.used) & _in_window(distance_BP, window)
    # New keys 0 ... used, the token itself included, are written; later ones are not.
    distance_N = state.used - jnp.arange(num_new, dtype=jnp.int32)
    seen_1N = ((distance_N >= 0) & _in_window(distance_N, window))[None]
    seen_BN = jnp.broadcast_to(seen_1N, (seen_BP.shape[0], num_new))
    return jnp.where(jnp.concatenate([seen_BP, seen_BN], axis=1), 0.0, HIDDEN)


def _attend_to_both(
    q_B1HK: Array, keys: tuple[Array, Array], values: tuple[Array, Array], bias_BS: Array
) -> Array:
    """Computes attention of one query per row over two caches, [B, 1, H, K].

    One softmax spans both: softmax(q [k_context, k_new]^T / sqrt(K) + bias) [v_context, v_new].

    Args:
      q_B1HK: queries.
      keys: of the context, [B, P, G, K], and of new tokens, [B, N, G, K].
      values: of the context and of new tokens.
      bias_BS: added to the scores.
    """
    B, _, H, K = q_B1HK.shape
    G = keys[0].shape[2]
    q_BGRK = (q_B1HK * K**-0.5).reshape(B, G, H // G, K)  # the query heads of each key head
    einsum = functools.partial(
        jnp.einsum, precision=precision_of(q_BGRK), preferred_element_type=jnp.float32
    )
    scores = [einsum("bgrk,bsgk->bgrs", q_BGRK, k) for k in keys]
    scores_BGRS = jnp.concatenate(scores, axis=-1) + bias_BS[:, None, None]
    weights_BGRS = jax.nn.softmax(scores_BGRS, axis=-1).astype(values[0].dtype)
    P = keys[0].shape[1]
    both_weights = (weights_BGRS[..., :P], weights_BGRS[..., P:])
    mixed_BGRK = sum(
        einsum("bgrs,bsgk->bgrk", w, v) for w, v in zip(both_weights, values, strict=True)
    )
    return jnp.asarray(mixed_BGRK).reshape(B, 1, H, K).astype(q_B1HK.dtype)


def _in_window(distance: Array, window: int | None) -> Array | bool:
    return True if window is None else distance < window

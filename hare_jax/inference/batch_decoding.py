"""Continues many contexts at once, until each has said what stops it.

The keys and values of the contexts are computed once and only read afterwards; those of the new
tokens lie apart, so that a step writes one token and copies nothing. Between stretches of
TOKENS_PER_SYNC steps the host looks whether all rows have stopped.

Shape legend: B rows, P positions of the longest context, N new tokens, L layers, D, G, K, V as in
decoder.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from hare_jax.inference.generate import keep
from hare_jax.inference.tree_attention import tree_attention
from hare_jax.model import decoder
from hare_jax.model.attention import rope_tables
from hare_jax.model.kernels.xla import HIDDEN

TOKENS_PER_SYNC = 16


@dataclass(slots=True, frozen=True)
class Sampling:
    """`temperature=0` takes the most probable token. `top_k` (0: all), `top_p` (1: all)."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class DecodeState:
    """What a batch has read: contexts, then `used` new tokens; `x_BD` is the last hidden state."""

    context_k_LBPGK: Array
    context_v_LBPGK: Array
    new_k_LBNGK: Array
    new_v_LBNGK: Array
    lengths_B: Array  # int32: tokens of each context
    used: Array  # int32 []
    x_BD: Array
    numbers_B: Array  # int32: which request a row is, for its random numbers


def continue_batch(
    weights: decoder.Weights,
    contexts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    *,
    rows: int,
    length: int,
    max_new_tokens: int,
    stopped: Callable[[list[int]], bool],
    sampling: Sampling,
    place: Callable[[np.ndarray], Any],
) -> list[list[int]]:
    """Up to `max_new_tokens` tokens after each context (and some more, up to a whole stretch).

    `rows`, `length`: the shape that the contexts are padded to. `stopped(tokens)`: whether a row
    needs no more. `place`: puts an array of B rows onto the devices.
    """
    tokens_BP = np.zeros((rows, length), np.int32)
    lengths_B = np.ones(rows, np.int32)
    numbers_B = np.zeros(rows, np.int32)
    for row, context in enumerate(contexts):
        tokens_BP[row, : len(context)] = context
        lengths_B[row], numbers_B[row] = len(context), numbers[row]
    stretches = -(-max_new_tokens // TOKENS_PER_SYNC)
    reading = _read(
        stretches * TOKENS_PER_SYNC, weights, *map(place, (tokens_BP, lengths_B, numbers_B))
    )
    key = jax.random.key(sampling.seed)
    new: list[list[int]] = [[] for _ in contexts]
    for _ in range(stretches):
        tokens_NB, reading = _extend(
            sampling.temperature == 0,
            sampling.top_k,
            sampling.top_p < 1,
            weights,
            reading,
            key,
            sampling.temperature,
            sampling.top_p,
        )
        columns = np.asarray(tokens_NB).T.tolist()
        for completion, tokens in zip(new, columns, strict=False):
            completion += tokens
        if all(stopped(completion) for completion in new):
            break
    return [completion[:max_new_tokens] for completion in new]


@functools.partial(jax.jit, static_argnums=0)
def _read(
    new_tokens: int,
    weights: decoder.Weights,
    tokens_BP: Array,
    lengths_B: Array,
    numbers_B: Array,
) -> DecodeState:
    model = decoder.merge(weights)
    c = model.config
    B, length = tokens_BP.shape
    positions_BP = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (B, length))
    ends_BP = jnp.broadcast_to(lengths_B[:, None], (B, length))
    rope = rope_tables(positions_BP, c.head_dim, c.rope_theta)
    layer_graph, layers = nnx.split(model.layers)

    def layer(x_BPD: Array, layer_params: Any) -> tuple[Array, tuple[Array, Array]]:
        kept: list[Array] = []

        def attend(q_BPHK: Array, k_BPGK: Array, v_BPGK: Array) -> Array:
            kept[:] = k_BPGK, v_BPGK
            return tree_attention(q_BPHK, k_BPGK, v_BPGK, positions_BP, ends_BP, c.sliding_window)

        x_BPD = nnx.merge(layer_graph, layer_params)(x_BPD, rope, attend)
        return x_BPD, (kept[0], kept[1])

    x_BPD, (k_LBPGK, v_LBPGK) = jax.lax.scan(layer, model.embed(tokens_BP), layers)
    last_B11 = (lengths_B - 1)[:, None, None]
    x_BD = jnp.take_along_axis(x_BPD, last_B11, axis=1)
    nothing = jnp.zeros((c.num_layers, B, new_tokens, c.num_kv_heads, c.head_dim), k_LBPGK.dtype)
    return DecodeState(
        k_LBPGK,
        v_LBPGK,
        nothing,
        nothing,
        lengths_B,
        jnp.zeros((), jnp.int32),
        model.final_norm(x_BD)[:, 0],
        numbers_B,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _extend(
    greedy: bool,
    top_k: int,
    nucleus: bool,
    weights: decoder.Weights,
    reading: DecodeState,
    key: Array,
    temperature: Array,
    top_p: Array,
) -> tuple[Array, DecodeState]:
    """TOKENS_PER_SYNC more tokens of each row, int32 [TOKENS_PER_SYNC, B]."""
    model = decoder.merge(weights)

    def choose(reading: DecodeState) -> Array:
        logits_BV = model.logits(reading.x_BD)
        if greedy:
            return _argmax(logits_BV)
        logits_BV = keep(logits_BV / temperature, top_k, top_p if nucleus else None)
        keys_B = jax.vmap(
            lambda number: jax.random.fold_in(jax.random.fold_in(key, number), reading.used)
        )(reading.numbers_B)
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)

    def step(reading: DecodeState, _: None) -> tuple[DecodeState, Array]:
        token_B = choose(reading)
        return _decode_step(model, token_B, reading), token_B

    reading, tokens_NB = jax.lax.scan(step, reading, None, length=TOKENS_PER_SYNC)
    return tokens_NB, reading


def _decode_step(model: decoder.Decoder, token_B: Array, reading: DecodeState) -> DecodeState:
    """The reading after one more token of each row."""
    c, r = model.config, reading
    position_B1 = (r.lengths_B + r.used)[:, None]
    rope = rope_tables(position_B1, c.head_dim, c.rope_theta)
    graph, layers = nnx.split(model.layers)
    distance_BP = position_B1 - jnp.arange(r.context_k_LBPGK.shape[2], dtype=jnp.int32)[None]
    distance_N = r.used - jnp.arange(r.new_k_LBNGK.shape[2], dtype=jnp.int32)
    seen_BP = (distance_BP > r.used) & _in_window(distance_BP, c.sliding_window)
    seen_BN = ((distance_N >= 0) & _in_window(distance_N, c.sliding_window))[None]
    seen_BS = jnp.concatenate(
        [seen_BP, jnp.broadcast_to(seen_BN, (seen_BP.shape[0], seen_BN.shape[1]))], axis=1
    )
    bias_BS = jnp.where(seen_BS, 0.0, HIDDEN)

    def layer(carry: tuple[Array, Array, Array], scanned: Any) -> tuple[Any, None]:
        x_B1D, new_k_LBNGK, new_v_LBNGK = carry
        params, context_k_BPGK, context_v_BPGK, number = scanned
        written: list[Array] = []

        def attend(q_B1HK: Array, k_B1GK: Array, v_B1GK: Array) -> Array:
            at = (number, 0, r.used, 0, 0)
            put = jax.lax.dynamic_update_slice
            written[:] = put(new_k_LBNGK, k_B1GK[None], at), put(new_v_LBNGK, v_B1GK[None], at)
            new_k_BNGK, new_v_BNGK = (array[number] for array in written)
            return _attend_two(
                q_B1HK, (context_k_BPGK, new_k_BNGK), (context_v_BPGK, new_v_BNGK), bias_BS
            )

        x_B1D = nnx.merge(graph, params)(x_B1D, rope, attend)
        return (x_B1D, written[0], written[1]), None

    start = (model.embed(token_B[:, None]), r.new_k_LBNGK, r.new_v_LBNGK)
    numbers_L = jnp.arange(c.num_layers)
    (x_B1D, new_k_LBNGK, new_v_LBNGK), _ = jax.lax.scan(
        layer, start, (layers, r.context_k_LBPGK, r.context_v_LBPGK, numbers_L)
    )
    return DecodeState(
        r.context_k_LBPGK,
        r.context_v_LBPGK,
        new_k_LBNGK,
        new_v_LBNGK,
        r.lengths_B,
        r.used + 1,
        model.final_norm(x_B1D)[:, 0],
        r.numbers_B,
    )


def _attend_two(
    q_B1HK: Array, keys: tuple[Array, Array], values: tuple[Array, Array], bias_BS: Array
) -> Array:
    """One query a row over keys and values that lie in two arrays, [B, 1, H, K]."""
    B, _, H, K = q_B1HK.shape
    G = keys[0].shape[2]
    q_BGRK = (q_B1HK * K**-0.5).reshape(B, G, H // G, K)
    scores = [
        jnp.einsum("bgrk,bsgk->bgrs", q_BGRK, k, preferred_element_type=jnp.float32) for k in keys
    ]
    scores_BGRS = jnp.concatenate(scores, axis=-1) + bias_BS[:, None, None]
    weights_BGRS = jax.nn.softmax(scores_BGRS, axis=-1).astype(values[0].dtype)
    P = keys[0].shape[1]
    parts = (weights_BGRS[..., :P], weights_BGRS[..., P:])
    mixed_BGRK = sum(
        jnp.einsum("bgrs,bsgk->bgrk", w, v, preferred_element_type=jnp.float32)
        for w, v in zip(parts, values, strict=True)
    )
    return jnp.asarray(mixed_BGRK).reshape(B, 1, H, K).astype(q_B1HK.dtype)


def _in_window(distance: Array, window: int | None) -> Array | bool:
    return True if window is None else distance < window


def _argmax(logits_BV: Array) -> Array:
    """The first of the highest; on CPU several times as fast as jnp.argmax."""
    V = logits_BV.shape[-1]
    index_V = jnp.arange(V, dtype=jnp.int32)[None]
    top_BV = logits_BV == logits_BV.max(axis=-1, keepdims=True)
    return jnp.where(top_BV, index_V, V).min(axis=-1)

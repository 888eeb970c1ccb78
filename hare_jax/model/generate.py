"""Continues prompts, token by token, with a cache of keys and values.

Shapes: B prompts, P positions of the longest prompt, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.model.decoder import Cache, Params, merge


def generate(
    graph: Any,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """Up to `max_new_tokens` tokens after each prompt, ending before `eos_id`.

    `graph`, `params`: decoder.split. `temperature=0` takes the most probable token. `top_k` (0:
    all) and `top_p` (1: all) leave only the most probable tokens: so many, and as many as make up
    that probability. A completion depends on its prompt, its place and `seed`, not on the other
    prompts.

        >>> generate(graph, params, [[1, 7, 8], [1]], max_new_tokens=3, eos_id=2, temperature=0)
        [[9, 10, 11], [7]]

    Compiles once for each shape (B, P, max_new_tokens). Raises ValueError for an empty prompt or
    numbers out of range.
    """
    _check(prompts, max_new_tokens, temperature, top_k, top_p)
    length = max(len(prompt) for prompt in prompts)
    tokens_BP = np.zeros((len(prompts), length), np.int32)
    positions_BP = np.full((len(prompts), length), -1, np.int32)  # padding, on the left
    for row, prompt in enumerate(prompts):
        tokens_BP[row, length - len(prompt) :] = prompt
        positions_BP[row, length - len(prompt) :] = np.arange(len(prompt))
    new_BN = _continue(
        graph,
        max_new_tokens,
        temperature == 0,
        top_k,
        top_p < 1,
        params,
        tokens_BP,
        positions_BP,
        eos_id,
        temperature,
        top_p,
        jax.random.key(seed),
    )
    return [_until(row, eos_id) for row in np.asarray(new_BN).tolist()]


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _continue(
    graph: Any,
    max_new_tokens: int,
    greedy: bool,
    top_k: int,
    nucleus: bool,
    params: Params,
    tokens_BP: Array,
    positions_BP: Array,
    eos_id: Array,
    temperature: Array,
    top_p: Array,
    key: Array,
) -> Array:
    """New tokens, int32 [B, N]; after the first `eos_id` of a row only `eos_id`."""
    model = merge(graph, params)
    B, P = tokens_BP.shape
    row_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(B))

    def choose(x_BTD: Array, index: Array) -> Array:
        logits_BV = model.logits(x_BTD[:, -1])
        if greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        keys = jax.vmap(lambda row_key: jax.random.fold_in(row_key, index))(row_keys)
        logits_BV = keep(logits_BV / temperature, top_k, top_p if nucleus else None)
        return jax.vmap(jax.random.categorical)(keys, logits_BV).astype(jnp.int32)

    def unfinished(loop: tuple[Array, Array, Array, Cache]) -> Array:
        index, new_BN, _, _ = loop
        last_B = new_BN[:, jnp.maximum(index - 1, 0)]
        return (index < max_new_tokens) & ((index == 0) | jnp.any(last_B != eos_id))

    def extend(loop: tuple[Array, Array, Array, Cache]) -> tuple[Array, Array, Array, Cache]:
        index, new_BN, x_BTD, cache = loop
        ended_B = (index > 0) & (new_BN[:, jnp.maximum(index - 1, 0)] == eos_id)
        token_B = jnp.where(ended_B, eos_id, choose(x_BTD, index))
        new_BN = new_BN.at[:, index].set(token_B)
        position_BT = positions_BP[:, -1:] + 1 + index
        x_BTD, cache = model.decode(token_B[:, None], position_BT, cache)
        return index + 1, new_BN, x_BTD, cache

    x_BPD, cache = model.decode(tokens_BP, positions_BP, model.init_cache(B, P + max_new_tokens))
    new_BN = jnp.full((B, max_new_tokens), eos_id, jnp.int32)
    start = (jnp.int32(0), new_BN, x_BPD[:, -1:], cache)
    return jax.lax.while_loop(unfinished, extend, start)[1]


def keep(logits_BV: Array, top_k: int, top_p: Array | float | None) -> Array:
    """Logits with -inf for all but the `top_k` highest (0: all), then all but the smallest set of
    highest ones whose probabilities reach `top_p` (None: all). The highest always stays."""
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    if 0 < top_k < logits_BV.shape[-1]:
        lowest_B1 = sorted_BV[:, top_k - 1, None]
        logits_BV = jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)
        sorted_BV = jnp.where(sorted_BV < lowest_B1, -jnp.inf, sorted_BV)
    if top_p is not None:
        probabilities_BV = jax.nn.softmax(sorted_BV, axis=-1)
        before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
        lowest_B1 = jnp.where(before_BV < top_p, sorted_BV, jnp.inf).min(axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)
    return logits_BV


def _until(tokens: list[int], eos_id: int) -> list[int]:
    return tokens[: tokens.index(eos_id)] if eos_id in tokens else tokens


def _check(
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
) -> None:
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("prompts: expected at least one, of at least one token (BOS) each")
    for name, value, fits, expected in (
        ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "1 or more"),
        ("temperature", temperature, temperature >= 0, "0 or more"),
        ("top_k", top_k, top_k >= 0, "0 (all) or more"),
        ("top_p", top_p, 0 < top_p <= 1, "more than 0 and at most 1"),
    ):
        if not fits:
            raise ValueError(f"{name}={value}: expected {expected}")

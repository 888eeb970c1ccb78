"""Continues prompts, token by token, with a cache of keys and values.

Shapes: B prompts, P positions of the longest prompt, N new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.model.decoder import KVCache, Weights, merge


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class Sampler:
    """How the next token is drawn; a row's draws depend on its key and the number of the token."""

    temperature: Array
    top_p: Array
    keys_B: Array
    greedy: bool = field(metadata={"static": True})
    top_k: int = field(metadata={"static": True})
    nucleus: bool = field(metadata={"static": True})

    @classmethod
    def of(cls, rows: int, temperature: float, top_k: int, top_p: float, seed: int) -> Sampler:
        keys_B = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(rows))
        return cls(
            jnp.float32(temperature), jnp.float32(top_p), keys_B, temperature == 0, top_k, top_p < 1
        )

    def choose(self, logits_BV: Array, index: Array) -> Array:
        """Token number `index` of each row, int32 [B]."""
        if self.greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        keys_B = jax.vmap(lambda key: jax.random.fold_in(key, index))(self.keys_B)
        logits_BV /= self.temperature
        logits_BV = keep(logits_BV, self.top_k, self.top_p if self.nucleus else None)
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def generate(
    weights: Weights,
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

    `temperature=0` takes the most probable token. `top_k` (0:
    all) and `top_p` (1: all) leave only the most probable tokens: so many, and as many as make up
    that probability. A completion depends on its prompt, its place and `seed`, not on the other
    prompts.

        >>> generate(weights, [[1, 7, 8], [1]], max_new_tokens=3, eos_id=2, temperature=0)
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
    sampling = Sampler.of(len(prompts), temperature, top_k, top_p, seed)
    new_BN = _continue(max_new_tokens, weights, tokens_BP, positions_BP, eos_id, sampling)
    return [_until(row, eos_id) for row in np.asarray(new_BN).tolist()]


def stream(
    weights: Weights,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    eos_id: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """The tokens that `generate` has for one prompt, each as soon as it is known.

        >>> list(stream(weights, [1, 7, 8], max_new_tokens=3, eos_id=2, temperature=0))
        [9, 10, 11]

    Compiles once for prompts of up to 16, of up to 32, 64, ... tokens and each `max_new_tokens`.
    """
    _check([prompt], max_new_tokens, temperature, top_k, top_p)
    padding = max(16, 1 << (len(prompt) - 1).bit_length()) - len(prompt)
    tokens_BP = np.array([[0] * padding + list(prompt)], np.int32)
    positions_BP = np.array([[-1] * padding + list(range(len(prompt)))], np.int32)
    sampling = Sampler.of(1, temperature, top_k, top_p, seed)
    token_B, cache = _first(max_new_tokens, weights, tokens_BP, positions_BP, sampling)
    for index in range(max_new_tokens):
        known_B = token_B
        if index + 1 < max_new_tokens:  # computed while the caller shows the one before
            at = np.int32(len(prompt) + index)
            token_B, cache = _next(weights, known_B, at, np.int32(index + 1), cache, sampling)
        token = int(known_B[0])
        if token == eos_id:
            return
        yield token


@partial(jax.jit, static_argnums=0)
def _first(
    max_new_tokens: int,
    weights: Weights,
    tokens_BP: Array,
    positions_BP: Array,
    sampling: Sampler,
) -> tuple[Array, KVCache]:
    """The token after the prompt, and the cache with the prompt in it and room for the others."""
    model = merge(weights)
    cache = model.init_cache(tokens_BP.shape[0], tokens_BP.shape[1] + max_new_tokens)
    x_BPD, cache = model.decode(tokens_BP, positions_BP, cache)
    return sampling.choose(model.logits(x_BPD[:, -1]), jnp.int32(0)), cache


@partial(jax.jit, donate_argnums=4)
def _next(
    weights: Weights,
    token_B: Array,
    position: Array,
    index: Array,
    cache: KVCache,
    sampling: Sampler,
) -> tuple[Array, KVCache]:
    """Token number `index`, after `token_B` at `position`."""
    model = merge(weights)
    position_BT = jnp.full((token_B.shape[0], 1), position)
    x_BTD, cache = model.decode(token_B[:, None], position_BT, cache)
    return sampling.choose(model.logits(x_BTD[:, -1]), index), cache


@partial(jax.jit, static_argnums=0)
def _continue(
    max_new_tokens: int,
    weights: Weights,
    tokens_BP: Array,
    positions_BP: Array,
    eos_id: Array,
    sampling: Sampler,
) -> Array:
    """New tokens, int32 [B, N]; after the first `eos_id` of a row only `eos_id`."""
    model = merge(weights)
    B, P = tokens_BP.shape

    def unfinished(loop: tuple[Array, Array, Array, KVCache]) -> Array:
        index, new_BN, _, _ = loop
        last_B = new_BN[:, jnp.maximum(index - 1, 0)]
        return (index < max_new_tokens) & ((index == 0) | jnp.any(last_B != eos_id))

    def extend(loop: tuple[Array, Array, Array, KVCache]) -> tuple[Array, Array, Array, KVCache]:
        index, new_BN, x_BTD, cache = loop
        ended_B = (index > 0) & (new_BN[:, jnp.maximum(index - 1, 0)] == eos_id)
        chosen_B = sampling.choose(model.logits(x_BTD[:, -1]), index)
        token_B = jnp.where(ended_B, eos_id, chosen_B)
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

"""Continues prompts token by token, with a cache of keys and values.

Shape legend: B prompts, P positions of the longest prompt, N new tokens, D model width,
V vocabulary,
E ids that end a completion.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.inference.sampling import Sampler, Sampling
from hare_jax.model.decoder import KVCache, Weights, merge

MIN_STREAM_LENGTH = 16  # tokens that a prompt of `stream` is padded to at least


def generate(
    weights: Weights,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling | None = None,
) -> list[list[int]]:
    """Returns at most `max_new_tokens` tokens per prompt, up to but without an end.

    A completion depends on its prompt, its index and the seed, not on the other prompts.

        >>> generate(weights, [[1, 7, 8], [1]], max_new_tokens=3, eos_ids=[2])  # doctest: +SKIP
        [[9, 10, 11], [7]]

    One program is compiled for each shape (B, P, max_new_tokens).

    Args:
      weights: the model.
      prompts: token ids, each with at least one (BOS).
      max_new_tokens: per prompt.
      eos_ids: the tokens that end a completion; [-1]: none does.
      sampling: how tokens are drawn; None: the most probable one.

    Raises:
      ValueError: a prompt is empty, or a number is out of range.
    """
    sampling = sampling or Sampling()
    _check(prompts, max_new_tokens, sampling)
    length = max(len(prompt) for prompt in prompts)
    tokens_BP, positions_BP = _pad_left(prompts, length)
    sampler = Sampler.of(sampling, jnp.arange(len(prompts), dtype=jnp.int32))
    new_BN = _continue(max_new_tokens, weights, tokens_BP, positions_BP, _array(eos_ids), sampler)
    return [before_end(row, eos_ids) for row in np.asarray(new_BN).tolist()]


def stream(
    weights: Weights,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    sampling: Sampling | None = None,
) -> Iterator[int]:
    """Yields the tokens that `generate` returns for one prompt, each as soon as it is known.

        >>> list(stream(weights, [1, 7, 8], max_new_tokens=3, eos_ids=[2]))  # doctest: +SKIP
        [9, 10, 11]

    One program is compiled for prompts of up to 16, of up to 32, 64, ... tokens and each
    `max_new_tokens`. Arguments and errors are those of `generate`.
    """
    sampling = sampling or Sampling()
    _check([prompt], max_new_tokens, sampling)
    length = max(MIN_STREAM_LENGTH, 1 << (len(prompt) - 1).bit_length())
    tokens_BP, positions_BP = _pad_left([prompt], length)
    sampler = Sampler.of(sampling, jnp.zeros(1, jnp.int32))
    token_B, cache = _prefill(max_new_tokens, weights, tokens_BP, positions_BP, sampler)
    for index in range(max_new_tokens):
        known_B = token_B
        if index + 1 < max_new_tokens:  # computed while the caller shows the token before
            position = np.int32(len(prompt) + index)
            token_B, cache = _next(weights, known_B, position, np.int32(index + 1), cache, sampler)
        token = int(known_B[0])
        if token in eos_ids:
            return
        yield token


def _pad_left(prompts: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens and positions, int32 [B, P]; padding on the left has position -1."""
    tokens_BP = np.zeros((len(prompts), length), np.int32)
    positions_BP = np.full((len(prompts), length), -1, np.int32)
    for row, prompt in enumerate(prompts):
        tokens_BP[row, length - len(prompt) :] = prompt
        positions_BP[row, length - len(prompt) :] = np.arange(len(prompt))
    return tokens_BP, positions_BP


@partial(jax.jit, static_argnums=0)
def _prefill(
    max_new_tokens: int,
    weights: Weights,
    tokens_BP: Array,
    positions_BP: Array,
    sampler: Sampler,
) -> tuple[Array, KVCache]:
    """Returns the token after the prompt, and the cache with the prompt and room for new tokens."""
    model = merge(weights)
    cache = model.init_cache(tokens_BP.shape[0], tokens_BP.shape[1] + max_new_tokens)
    x_BPD, cache = model.decode(tokens_BP, positions_BP, cache)
    return sampler.choose(model.logits(x_BPD[:, -1]), jnp.int32(0)), cache


@partial(jax.jit, donate_argnums=4)
def _next(
    weights: Weights,
    token_B: Array,
    position: Array,
    index: Array,
    cache: KVCache,
    sampler: Sampler,
) -> tuple[Array, KVCache]:
    """Returns new token number `index`, after `token_B` at `position`, and the cache."""
    model = merge(weights)
    position_B1 = jnp.full((token_B.shape[0], 1), position)
    x_B1D, cache = model.decode(token_B[:, None], position_B1, cache)
    return sampler.choose(model.logits(x_B1D[:, -1]), index), cache


@partial(jax.jit, static_argnums=0)
def _continue(
    max_new_tokens: int,
    weights: Weights,
    tokens_BP: Array,
    positions_BP: Array,
    eos_E: Array,
    sampler: Sampler,
) -> Array:
    """Returns new tokens, int32 [B, N]; after the first end of a row all are ends."""
    model = merge(weights)
    B, P = tokens_BP.shape

    def is_end(token_B: Array) -> Array:
        return jnp.any(token_B[:, None] == eos_E[None], axis=1)

    def is_unfinished(loop: tuple[Array, Array, Array, KVCache]) -> Array:
        index, new_BN, _, _ = loop
        last_B = new_BN[:, jnp.maximum(index - 1, 0)]
        return (index < max_new_tokens) & ((index == 0) | jnp.any(~is_end(last_B)))

    def step(loop: tuple[Array, Array, Array, KVCache]) -> tuple[Array, Array, Array, KVCache]:
        index, new_BN, x_B1D, cache = loop
        has_ended_B = (index > 0) & is_end(new_BN[:, jnp.maximum(index - 1, 0)])
        chosen_B = sampler.choose(model.logits(x_B1D[:, -1]), index)
        token_B = jnp.where(has_ended_B, eos_E[0], chosen_B)
        new_BN = new_BN.at[:, index].set(token_B)
        # The last position of each prompt is in its last column, since padding is on the left.
        position_B1 = positions_BP[:, -1:] + 1 + index
        x_B1D, cache = model.decode(token_B[:, None], position_B1, cache)
        return index + 1, new_BN, x_B1D, cache

    x_BPD, cache = model.decode(tokens_BP, positions_BP, model.init_cache(B, P + max_new_tokens))
    new_BN = jnp.full((B, max_new_tokens), eos_E[0], jnp.int32)
    start = (jnp.int32(0), new_BN, x_BPD[:, -1:], cache)
    return jax.lax.while_loop(is_unfinished, step, start)[1]


def _array(eos_ids: Sequence[int]) -> np.ndarray:
    return np.array(eos_ids, np.int32)


def before_end(tokens: list[int], eos_ids: Sequence[int]) -> list[int]:
    """Returns the tokens before the first of `eos_ids`.

    >>> before_end([5, 6, 3, 2], [2, 3])
    [5, 6]
    """
    return list(itertools.takewhile(lambda token: token not in eos_ids, tokens))


def _check(prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling) -> None:
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError("prompts: expected at least one, of at least one token (BOS) each")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: expected 1 or more")
    sampling.check()

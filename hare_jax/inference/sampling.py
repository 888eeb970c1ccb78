"""Choice of the next token from logits.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(slots=True, frozen=True)
class Sampling:
    """Settings for drawing tokens; by default each token is the most probable one."""

    temperature: float = 0.0  # 0: the most probable token
    top_k: int = 0  # draw from the k most probable tokens; 0: from all
    top_p: float = 1.0  # draw from the most probable tokens that make up this probability
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError if a number is out of range."""
        for name, value, is_valid, expected in (
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (all) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "more than 0 and at most 1"),
        ):
            if not is_valid:
                raise ValueError(f"{name}={value}: expected {expected}")


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class Sampler:
    """`Sampling` as an argument of compiled programs, which depend only on its static fields.

    The draws of a row depend on the seed, on the row's number and on the number of the token.
    """

    key: Array
    row_B: Array  # int32: the number of each row
    temperature: Array
    top_p: Array
    is_greedy: bool = field(metadata={"static": True})
    top_k: int = field(metadata={"static": True})
    has_top_p: bool = field(metadata={"static": True})

    @classmethod
    def of(cls, sampling: Sampling, row_B: Array) -> Sampler:
        """Returns the sampler of rows with the numbers `row_B`, int32."""
        return cls(
            jax.random.key(sampling.seed),
            row_B,
            jnp.float32(sampling.temperature),
            jnp.float32(sampling.top_p),
            sampling.temperature == 0,
            sampling.top_k,
            sampling.top_p < 1,
        )

    def choose(self, logits_BV: Array, index: Array) -> Array:
        """Returns token number `index` of each row, int32 [B]."""
        if self.is_greedy:
            return argmax(logits_BV)
        keys_B = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(self.key, row), index))(
            self.row_B
        )
        logits_BV = logits_BV / self.temperature
        logits_BV = keep_most_probable(
            logits_BV, self.top_k, self.top_p if self.has_top_p else None
        )
        return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def keep_most_probable(logits_BV: Array, top_k: int, top_p: Array | float | None) -> Array:
    """Returns logits with -inf for tokens that must not be drawn.

    The most probable token is always kept.

    Args:
      logits_BV: of all tokens.
      top_k: keep the k highest; 0: all.
      top_p: of those, keep the smallest set of highest ones whose probabilities, renormalized,
        reach this sum; None: all.
    """
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)  # highest first
    if 0 < top_k < logits_BV.shape[-1]:
        lowest_B1 = sorted_BV[:, top_k - 1, None]
        logits_BV = jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)
        sorted_BV = jnp.where(sorted_BV < lowest_B1, -jnp.inf, sorted_BV)
    if top_p is not None:
        probabilities_BV = jax.nn.softmax(sorted_BV, axis=-1)
        # A token is in the set if those before it do not reach top_p yet.
        before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
        lowest_B1 = jnp.where(before_BV < top_p, sorted_BV, jnp.inf).min(axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < lowest_B1, -jnp.inf, logits_BV)
    return logits_BV


def argmax(logits_BV: Array) -> Array:
    """Returns the first of the highest, int32 [B]; on a CPU several times as fast as jnp.argmax."""
    V = logits_BV.shape[-1]
    index_V = jnp.arange(V, dtype=jnp.int32)[None]
    is_top_BV = logits_BV == logits_BV.max(axis=-1, keepdims=True)
    return jnp.where(is_top_BV, index_V, V).min(axis=-1)

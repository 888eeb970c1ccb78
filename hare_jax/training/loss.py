"""Cross-entropy of the next token, without the logits of a whole batch in memory.

Shapes: B rows, T positions, C positions a chunk, D model width, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def weighted_loss(
    x_BTD: Array,
    head_DV: Array,
    targets_BT: Array,
    mask_BT: Array,
    weights_B: Array,
    *,
    total_weight: Array | None = None,
    chunks: int = 1,
    z_loss: float = 0.0,
) -> tuple[Array, Array]:
    """(total, per_example_B), float32: total is what to minimise, in nats a counted token.

        total = sum_b w_b sum_t m_bt (ce_bt + z_loss * lse_bt^2) / sum_b w_b sum_t m_bt
        per_example_b = sum_t m_bt ce_bt                          (constant to differentiation)

    with ce = lse - logit of the target, lse = log of the sum of exp(logits). Uniform `weights_B`
    make `total` the mean over tokens. `total_weight` takes the place of the denominator: with that
    of a whole batch, the totals of its parts add up to the batch's. z_loss keeps lse near zero
    (PaLM, arXiv 2204.02311, 5).

    The logits of T / chunks positions exist at one time. Their gradient is taken in the same pass,
    so that nothing is computed twice; hence reverse-mode differentiation only, once.

    Raises ValueError where `chunks` does not divide T.
    """
    _check_chunks(x_BTD.shape[1], chunks)
    weighted_BT = weights_B[:, None] * mask_BT
    if total_weight is None:
        total_weight = weighted_BT.sum()
    coefficient_BT = weighted_BT / jnp.maximum(total_weight, 1.0)
    total, ce_BT = _total(chunks, z_loss, x_BTD, head_DV, targets_BT, coefficient_BT)
    return total, (jax.lax.stop_gradient(ce_BT) * mask_BT).sum(axis=1)


def token_losses(x_BTD: Array, head_DV: Array, targets_BT: Array, *, chunks: int = 1) -> Array:
    """Cross-entropy of each target, float32 [B, T], in nats; masked positions are not left out.

    Raises ValueError where `chunks` does not divide T.
    """
    _check_chunks(x_BTD.shape[1], chunks)
    return _total(chunks, 0.0, x_BTD, head_DV, targets_BT, jnp.ones(targets_BT.shape))[1]


def loss_by_source(
    per_example_B: Array, mask_BT: Array, source_id_B: Array, num_sources: int
) -> tuple[Array, Array]:
    """Sums of loss and of counted tokens for each source, float32 [num_sources] each."""
    by_source = partial(jax.ops.segment_sum, segment_ids=source_id_B, num_segments=num_sources)
    return by_source(per_example_B), by_source(mask_BT.sum(axis=1))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(
    chunks: int, z_loss: float, x_BTD: Array, head_DV: Array, targets_BT: Array, c_BT: Array
) -> tuple[Array, Array]:
    """(sum of c * (ce + z_loss * lse^2), ce_BT)."""
    head_DV = head_DV.astype(x_BTD.dtype)

    def chunk(total: Array, scanned: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x_BCD, targets_BC, c_BC = scanned
        _, lse_BC, ce_BC = _cross_entropy(x_BCD, head_DV, targets_BC)
        return total + (c_BC * (ce_BC + z_loss * lse_BC**2)).sum(), ce_BC

    total, ce = jax.lax.scan(chunk, jnp.zeros(()), _cut(chunks, x_BTD, targets_BT, c_BT))
    return total, _join(ce)


def _total_forward(
    chunks: int, z_loss: float, x_BTD: Array, head_DV: Array, targets_BT: Array, c_BT: Array
) -> tuple[tuple[Array, Array], Any]:
    head = head_DV.astype(x_BTD.dtype)

    def chunk(carry: tuple[Array, Array], scanned: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        total, dhead_DV = carry
        x_BCD, targets_BC, c_BC = scanned
        logits_BCV, lse_BC, ce_BC = _cross_entropy(x_BCD, head, targets_BC)
        loss_BC = ce_BC + z_loss * lse_BC**2
        # d ce / d logits = softmax - onehot, and d lse^2 / d logits = 2 lse softmax
        softmax_BCV = jnp.exp(logits_BCV - lse_BC[:, :, None])
        dlogits_BCV = softmax_BCV * (1 + 2 * z_loss * lse_BC)[:, :, None]
        dlogits_BCV -= _hit(targets_BC, logits_BCV.shape)
        dlogits_BCV = (dlogits_BCV * c_BC[:, :, None]).astype(x_BCD.dtype)
        dx_BCD = jnp.einsum("bcv,dv->bcd", dlogits_BCV, head)
        dhead_DV += jnp.einsum(
            "bcd,bcv->dv", x_BCD, dlogits_BCV, preferred_element_type=jnp.float32
        )
        return (total + (c_BC * loss_BC).sum(), dhead_DV), (dx_BCD, loss_BC, ce_BC)

    start = (jnp.zeros(()), jnp.zeros(head_DV.shape, jnp.float32))
    (total, dhead_DV), parts = jax.lax.scan(chunk, start, _cut(chunks, x_BTD, targets_BT, c_BT))
    dx_BTD, loss_BT, ce_BT = (_join(part) for part in parts)
    return (total, ce_BT), (dx_BTD, dhead_DV.astype(head_DV.dtype), loss_BT)


def _total_backward(
    chunks: int, z_loss: float, gradients: Any, cotangents: tuple[Array, Array]
) -> tuple[Array, Array, None, Array]:
    dx_BTD, dhead_DV, loss_BT = gradients
    dtotal = cotangents[0]  # that of ce_BT is zero: weighted_loss stops it
    return dx_BTD * dtotal.astype(dx_BTD.dtype), dhead_DV * dtotal, None, loss_BT * dtotal


_total.defvjp(_total_forward, _total_backward)


def _cross_entropy(x_BCD: Array, head_DV: Array, targets_BC: Array) -> tuple[Array, Array, Array]:
    """Logits, log of the sum of their exponentials, and cross-entropy, float32."""
    logits_BCV = jnp.einsum("bcd,dv->bcv", x_BCD, head_DV, preferred_element_type=jnp.float32)
    lse_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    # A sum under a mask, unlike a gather, stays local where the vocabulary is sharded.
    target_BC = jnp.where(_hit(targets_BC, logits_BCV.shape), logits_BCV, 0.0).sum(axis=-1)
    return logits_BCV, lse_BC, lse_BC - target_BC


def _hit(targets_BC: Array, shape: tuple[int, ...]) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, 2) == targets_BC[:, :, None]


def _cut(chunks: int, *arrays: Array) -> Any:
    """[B, T, ...] -> [chunks, B, C, ...]: along T, since B is shared among devices."""

    def cut(a: Array) -> Array:
        return a.reshape(a.shape[0], chunks, a.shape[1] // chunks, *a.shape[2:]).swapaxes(0, 1)

    return tuple(cut(a) for a in arrays)


def _join(a: Array) -> Array:
    """[chunks, B, C, ...] -> [B, T, ...]."""
    a = a.swapaxes(0, 1)
    return a.reshape(a.shape[0], a.shape[1] * a.shape[2], *a.shape[3:])


def _check_chunks(length: int, chunks: int) -> None:
    if chunks < 1 or length % chunks:
        raise ValueError(
            f"loss_chunks={chunks} does not divide the sequence length {length}: "
            f"use a divisor, such as {max(d for d in (1, 2, 4, 8, 16) if length % d == 0)}"
        )

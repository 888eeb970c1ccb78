"""Next-token cross-entropy, computed in chunks so that the logits never exist for all positions.

On a mesh the head is gathered once for all chunks, and its gradient is summed over devices once.

Shapes: B rows, T positions, C positions per chunk, D model width, V vocabulary, S parts of the
batch that the mesh makes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.model.constraints import BATCH_AXES, HEAD_AXIS, batch_shares, on_mesh
from hare_jax.model.linear import precision_of


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
    """Computes the weighted loss to minimize, and the loss of each row.

        total = sum_b w_b sum_t m_bt (ce_bt + z_loss * lse_bt^2) / sum_b w_b sum_t m_bt
        per_example_b = sum_t m_bt ce_bt                          (constant to differentiation)

    with ce = lse - logit of the target and lse = log(sum(exp(logits))). With uniform weights,
    `total` is the mean over tokens. z_loss keeps lse near zero (PaLM, arXiv 2204.02311, section 5).

    Only the logits of T / chunks positions exist at a time. The forward pass also computes their
    gradient, so that no logits are computed twice; only one reverse-mode differentiation is
    supported.

    Args:
      x_BTD: hidden states after the last norm.
      head_DV: output matrix, float32.
      targets_BT: int32.
      mask_BT: float32, 1 for a counted token.
      weights_B: float32 weight of each row.
      total_weight: float32 [], replaces the denominator. With the denominator of a whole batch,
        the totals of its parts add up to the total of the batch.
      chunks: number of chunks of a sequence.
      z_loss: weight of lse^2.

    Returns:
      (total, per_example_B): float32 [] in nats per counted token, and float32 [B] in nats.

    Raises:
      ValueError: if `chunks` does not divide T.
    """
    check_chunks(x_BTD.shape[1], chunks)
    weighted_BT = weights_B[:, None] * mask_BT
    if total_weight is None:
        total_weight = weighted_BT.sum()
    coefficient_BT = weighted_BT / jnp.maximum(total_weight, 1.0)
    total, ce_BT = _total(chunks, z_loss, x_BTD, head_DV, targets_BT, coefficient_BT)
    return total, (jax.lax.stop_gradient(ce_BT) * mask_BT).sum(axis=1)


def loss_by_source(
    per_example_B: Array, mask_BT: Array, source_id_B: Array, num_sources: int
) -> tuple[Array, Array]:
    """Sums the loss and the counted tokens of each source.

    Args:
      per_example_B: loss of each row in nats.
      mask_BT: 1 for a counted token.
      source_id_B: source of each row.
      num_sources: length of the results.

    Returns:
      (loss, tokens): float32 [num_sources] each.
    """
    by_source = partial(jax.ops.segment_sum, segment_ids=source_id_B, num_segments=num_sources)
    return by_source(per_example_B), by_source(mask_BT.sum(axis=1))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _total(
    chunks: int, z_loss: float, x_BTD: Array, head_DV: Array, targets_BT: Array, c_BT: Array
) -> tuple[Array, Array]:
    """Returns (sum of c * (ce + z_loss * lse^2), ce_BT); c_BT is the coefficient of each token."""
    head_DV = _gather(head_DV, x_BTD)

    def chunk(total: Array, scanned: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        x_BCD, targets_BC, c_BC = scanned
        _, lse_BC, ce_BC = _cross_entropy(x_BCD, head_DV, targets_BC)
        return total + (c_BC * (ce_BC + z_loss * lse_BC**2)).sum(), ce_BC

    total, ce = jax.lax.scan(chunk, jnp.zeros(()), _chunks_first(chunks, x_BTD, targets_BT, c_BT))
    return total, _join(ce)


def _total_forward(
    chunks: int, z_loss: float, x_BTD: Array, head_DV: Array, targets_BT: Array, c_BT: Array
) -> tuple[tuple[Array, Array], Any]:
    """Computes the result of `_total`, and its gradients for a cotangent of 1."""
    head = _gather(head_DV, x_BTD)
    shares = batch_shares()

    def chunk(carry: tuple[Array, Array], scanned: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        total, dhead_SDV = carry
        x_BCD, targets_BC, c_BC = scanned
        logits_BCV, lse_BC, ce_BC = _cross_entropy(x_BCD, head, targets_BC)
        loss_BC = ce_BC + z_loss * lse_BC**2
        # d ce / d logits = softmax - onehot, and d lse^2 / d logits = 2 lse softmax
        softmax_BCV = jnp.exp(logits_BCV - lse_BC[:, :, None])
        dlogits_BCV = softmax_BCV * (1 + 2 * z_loss * lse_BC)[:, :, None]
        dlogits_BCV -= _one_hot(targets_BC, logits_BCV.shape)
        dlogits_BCV = (dlogits_BCV * c_BC[:, :, None]).astype(x_BCD.dtype)
        # logits = x head: dx = dlogits head^T, and dhead = x^T dlogits, summed over all chunks.
        dx_BCD = jnp.einsum("bcv,dv->bcd", dlogits_BCV, head, precision=precision_of(head))
        # The rows of a device are one part: nothing is summed over devices here.
        dhead_SDV += jnp.einsum(
            "sbcd,sbcv->sdv",
            x_BCD.reshape(shares, -1, *x_BCD.shape[1:]),
            dlogits_BCV.reshape(shares, -1, *dlogits_BCV.shape[1:]),
            precision=precision_of(head),
            preferred_element_type=jnp.float32,
        )
        dhead_SDV = on_mesh(dhead_SDV, BATCH_AXES, None, HEAD_AXIS)
        return (total + (c_BC * loss_BC).sum(), dhead_SDV), (dx_BCD, loss_BC, ce_BC)

    start = (jnp.zeros(()), jnp.zeros((shares, *head_DV.shape), jnp.float32))
    (total, dhead_SDV), parts = jax.lax.scan(
        chunk, start, _chunks_first(chunks, x_BTD, targets_BT, c_BT)
    )
    dhead_DV = dhead_SDV.sum(axis=0)
    dx_BTD, loss_BT, ce_BT = (_join(part) for part in parts)
    return (total, ce_BT), (dx_BTD, dhead_DV.astype(head_DV.dtype), loss_BT)


def _total_backward(
    chunks: int, z_loss: float, gradients: Any, cotangents: tuple[Array, Array]
) -> tuple[Array, Array, None, Array]:
    """Scales the gradients of `_total_forward` by the cotangent of the total."""
    dx_BTD, dhead_DV, loss_BT = gradients
    dtotal = cotangents[0]  # the cotangent of ce_BT is zero, by stop_gradient in weighted_loss
    return dx_BTD * dtotal.astype(dx_BTD.dtype), dhead_DV * dtotal, None, loss_BT * dtotal


_total.defvjp(_total_forward, _total_backward)


def _gather(head_DV: Array, x_BTD: Array) -> Array:
    """Returns the head in the dtype of `x_BTD`, with all of D on each device."""
    return on_mesh(head_DV.astype(x_BTD.dtype), None, HEAD_AXIS)


def _cross_entropy(x_BCD: Array, head_DV: Array, targets_BC: Array) -> tuple[Array, Array, Array]:
    """Returns (logits_BCV, lse_BC, ce_BC), float32."""
    logits_BCV = jnp.einsum(
        "bcd,dv->bcv",
        x_BCD,
        head_DV,
        precision=precision_of(head_DV),
        preferred_element_type=jnp.float32,
    )
    lse_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
    # A masked sum, unlike a gather, needs no communication of logits if V is sharded.
    target_BC = jnp.where(_one_hot(targets_BC, logits_BCV.shape), logits_BCV, 0.0).sum(axis=-1)
    return logits_BCV, lse_BC, lse_BC - target_BC


def _one_hot(targets_BC: Array, shape: tuple[int, ...]) -> Array:
    """Returns bool [B, C, V], True at the target."""
    return jax.lax.broadcasted_iota(jnp.int32, shape, 2) == targets_BC[:, :, None]


def _chunks_first(chunks: int, *arrays: Array) -> Any:
    """Splits T: [B, T, ...] -> [chunks, B, C, ...]. B stays, since it is sharded over devices."""

    def split(a: Array) -> Array:
        return a.reshape(a.shape[0], chunks, a.shape[1] // chunks, *a.shape[2:]).swapaxes(0, 1)

    return tuple(split(a) for a in arrays)


def _join(a: Array) -> Array:
    """Joins the chunks: [chunks, B, C, ...] -> [B, T, ...]."""
    a = a.swapaxes(0, 1)
    return a.reshape(a.shape[0], a.shape[1] * a.shape[2], *a.shape[3:])


def check_chunks(length: int, chunks: int) -> None:
    """Raises ValueError if `chunks` does not divide `length`."""
    if chunks < 1 or length % chunks:
        raise ValueError(
            f"loss_chunks={chunks} does not divide the sequence length {length}: "
            f"use a divisor, such as {max(d for d in (1, 2, 4, 8, 16) if length % d == 0)}"
        )

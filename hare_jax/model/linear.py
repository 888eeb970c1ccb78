"""The matrix product of the layers, in the compute dtype or in 8 bits.

Shapes: N = rows * positions, I inputs, O outputs.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.config import Matmul

FORWARD = jnp.float8_e4m3fn  # more precision: weights and activations
BACKWARD = jnp.float8_e5m2  # more range: gradients


def linear(x: Array, weight: Array, inputs: int, matmul: Matmul) -> Array:
    """Multiplies activations by a matrix.

    Args:
      x: [B, T, in ...].
      weight: float32 [in ..., out ...].
      inputs: number of input axes, over which the product sums.
      matmul: in the dtype of `x`, or in 8 bits.

    Returns:
      [B, T, out ...] in the dtype of `x`.
    """
    w = weight.astype(x.dtype)
    width = math.prod(w.shape[:inputs])
    # Rows and positions become one axis: with two, XLA on CPU transposes for the gradient of the
    # weight, which takes 2.5 times as long.
    x_NI, w_IO = x.reshape(-1, width), w.reshape(width, -1)
    y_NO = fp8_matmul(x_NI, w_IO) if matmul is Matmul.FP8 else x_NI @ w_IO
    return y_NO.reshape(*x.shape[:2], *w.shape[inputs:])


@jax.custom_vjp
def fp8_matmul(x_NI: Array, w_IO: Array) -> Array:
    """Computes x @ w with both factors rounded to e4m3, and incoming gradients rounded to e5m2.

    The recipe of arXiv 2209.05433 with current scaling: each tensor is scaled by its own maximum at
    this step, so that no state is kept between steps. Values are quantized, dequantized and
    multiplied in the dtype of `x_NI`. XLA rewrites this pattern into one 8-bit product on GPUs that
    support it; elsewhere it computes the same without a gain.
    """
    return _forward(x_NI, w_IO)[0]


def _forward(x_NI: Array, w_IO: Array) -> tuple[Array, Any]:
    """Returns x @ w, and both factors in 8 bits for the backward pass."""
    x8, w8 = _quantize(x_NI, FORWARD), _quantize(w_IO, FORWARD)
    return _dequantize(*x8) @ _dequantize(*w8), (x8, w8)


def _backward(saved: Any, dy_NO: Array) -> tuple[Array, Array]:
    """Computes dx = dy w^T and dw = x^T dy."""
    x8, w8 = saved
    dy_NO = _dequantize(*_quantize(dy_NO, BACKWARD))
    return dy_NO @ _dequantize(*w8).T, _dequantize(*x8).T @ dy_NO


fp8_matmul.defvjp(_forward, _backward)


def _quantize(x: Array, dtype: Any) -> tuple[Array, Array]:
    """Returns `x` / scale in 8 bits, and the scale: a power of two for which the maximum fits.

    A power of two costs no precision, neither in 8 bits nor in the dtype of `x`. If `x` has a
    non-finite element, the scale is not finite either, and all results become NaN.
    """
    ratio = jnp.abs(x).max().astype(jnp.float32) / jnp.finfo(dtype).max.astype(jnp.float32)
    # The exponent bits of a float32 alone are the largest power of two that is at most the ratio;
    # twice that is above the ratio, so that max(abs(x)) / scale is within the range of `dtype`.
    exponent = jax.lax.bitcast_convert_type(ratio, jnp.int32) & 0x7F80_0000
    power = jax.lax.bitcast_convert_type(exponent, jnp.float32)
    # Power 0 means that x is zero (or too small for float32): any scale fits.
    scale = jnp.where(power > 0, 2 * power, 1.0).astype(x.dtype)
    return (x / scale).astype(dtype), scale


def _dequantize(x8: Array, scale: Array) -> Array:
    """Returns x8 * scale in the dtype of `scale`."""
    return x8.astype(scale.dtype) * scale

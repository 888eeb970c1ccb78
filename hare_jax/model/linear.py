"""The matrix product of the layers, in the compute dtype or in 8 bits.

Shapes: N = rows * positions, I inputs, O outputs.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.config import DType, Matmul

FORWARD = jnp.float8_e4m3fn  # more precision: weights and activations
BACKWARD = jnp.float8_e5m2  # more range: gradients


def linear(
    x: Array,
    weight: Array,
    inputs: int,
    matmul: Matmul,
    reduce_dtype: DType = DType.FLOAT32,
) -> Array:
    """Multiplies activations by a matrix.

    Args:
      x: [B, T, in ...].
      weight: float32 [in ..., out ...].
      inputs: number of input axes, over which the product sums.
      matmul: in the dtype of `x`, or in 8 bits.
      reduce_dtype: of the gradient of `weight` while it is summed over rows and devices.

    Returns:
      [B, T, out ...] in the dtype of `x`.
    """
    shape = weight.shape
    width = math.prod(shape[:inputs])
    # Rows and positions become one axis: with two, XLA on CPU transposes for the gradient of the
    # weight, which takes 2.5 times as long.
    x_NI, weight_IO = x.reshape(-1, width), weight.reshape(width, -1)
    product = fp8_matmul if matmul is Matmul.FP8 else mixed_matmul
    return product(x_NI, weight_IO, reduce_dtype.value).reshape(*x.shape[:2], *shape[inputs:])


def precision_of(x: Array) -> jax.lax.Precision | None:
    """Returns the precision of a product with `x`: float32 means float32.

    By default XLA computes float32 products in TF32 (10 bits of mantissa) on GPUs from Ampere on,
    and in one bfloat16 pass (7 bits) on TPUs.
    """
    return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def mixed_matmul(x_NI: Array, weight_IO: Array, reduce_dtype: str = "float32") -> Array:
    """Computes x @ weight in the dtype of `x_NI`, and the gradient of the weight in `reduce_dtype`.

    Differentiated by JAX, the cast of the weight makes its gradient bfloat16 before it is summed
    over devices. Here its products are summed in `reduce_dtype`, on each device and over devices.
    """
    return _multiply(x_NI, weight_IO.astype(x_NI.dtype))


def _mixed_forward(x_NI: Array, weight_IO: Array, reduce_dtype: str) -> tuple[Array, Any]:
    """Returns x @ weight and both factors; the weight as it was passed, which costs no memory."""
    return mixed_matmul(x_NI, weight_IO, reduce_dtype), (x_NI, weight_IO)


def _mixed_backward(reduce_dtype: str, saved: Any, dy_NO: Array) -> tuple[Array, Array]:
    """Computes dx = dy weight^T and dweight = x^T dy."""
    x_NI, weight_IO = saved
    dx_NI = _multiply(dy_NO, weight_IO.astype(x_NI.dtype).T)
    return dx_NI, _weight_gradient(x_NI, dy_NO, reduce_dtype).astype(weight_IO.dtype)


mixed_matmul.defvjp(_mixed_forward, _mixed_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fp8_matmul(x_NI: Array, weight_IO: Array, reduce_dtype: str = "float32") -> Array:
    """Computes x @ weight with both factors rounded to e4m3, and incoming gradients to e5m2.

    The recipe of arXiv 2209.05433 with current scaling: each tensor is scaled by its own maximum at
    this step, so that no state is kept between steps. Values are quantized, dequantized and
    multiplied in the dtype of `x_NI`. XLA rewrites this pattern into one 8-bit product on GPUs that
    support it; elsewhere it computes the same without a gain.
    """
    return _fp8_forward(x_NI, weight_IO, reduce_dtype)[0]


def _fp8_forward(x_NI: Array, weight_IO: Array, reduce_dtype: str) -> tuple[Array, Any]:
    """Returns x @ weight, and both factors in 8 bits for the backward pass."""
    x8, w8 = _quantize(x_NI, FORWARD), _quantize(weight_IO.astype(x_NI.dtype), FORWARD)
    # The gradient of the weight has its dtype: an empty array carries it.
    saved = (x8, w8, jnp.zeros((0,), weight_IO.dtype))
    return _multiply(_dequantize(*x8), _dequantize(*w8)), saved


def _fp8_backward(reduce_dtype: str, saved: Any, dy_NO: Array) -> tuple[Array, Array]:
    """Computes dx = dy weight^T and dweight = x^T dy from factors in 8 bits."""
    x8, w8, like = saved
    dy_NO = _dequantize(*_quantize(dy_NO, BACKWARD))
    dx_NI = _multiply(dy_NO, _dequantize(*w8).T)
    return dx_NI, _weight_gradient(_dequantize(*x8), dy_NO, reduce_dtype).astype(like.dtype)


fp8_matmul.defvjp(_fp8_forward, _fp8_backward)


def _multiply(x_NI: Array, w_IO: Array) -> Array:
    """Computes x @ w in the dtype of both."""
    return jnp.matmul(x_NI, w_IO, precision=precision_of(x_NI))


def _weight_gradient(x_NI: Array, dy_NO: Array, reduce_dtype: str) -> Array:
    """Computes x^T dy, [I, O] in `reduce_dtype`."""
    return jax.lax.dot_general(
        x_NI,
        dy_NO,
        (((0,), (0,)), ((), ())),
        precision=precision_of(x_NI),
        preferred_element_type=jnp.promote_types(reduce_dtype, x_NI.dtype),
    )


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

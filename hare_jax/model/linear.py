"""The matrix product of the layers, in the compute dtype or in 8 bits.

Shapes: N rows times positions, I inputs, O outputs.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hare_jax.config import Matmul

FORWARD = jnp.float8_e4m3fn  # more precision: weights and what they are applied to
BACKWARD = jnp.float8_e5m2  # more range: gradients


def linear(x: Array, weight: Array, inputs: int, matmul: Matmul) -> Array:
    """[B, T, in ...] by float32 [in ..., out ...] -> [B, T, out ...], in the dtype of `x`.

    `inputs`: how many axes are summed over. Rows and positions are one axis inside: with two, XLA
    on CPU transposes for the weight's gradient, which takes 2.5 times as long.
    """
    w = weight.astype(x.dtype)
    width = math.prod(w.shape[:inputs])
    x_NI, w_IO = x.reshape(-1, width), w.reshape(width, -1)
    y_NO = fp8_matmul(x_NI, w_IO) if matmul is Matmul.FP8 else x_NI @ w_IO
    return y_NO.reshape(*x.shape[:2], *w.shape[inputs:])


@jax.custom_vjp
def fp8_matmul(x_NI: Array, w_IO: Array) -> Array:
    """x @ w with both rounded to e4m3, in the dtype of `x_NI`; incoming gradients rounded to e5m2.

    The recipe of arXiv 2209.05433, scaled by what each tensor holds at this step, so that nothing
    need be remembered from step to step. Values are rounded and turned back, and multiplied in the
    dtype of `x_NI`: the pattern that XLA turns into one 8-bit product on GPUs that have it, and
    that computes the same, at no gain, everywhere else.
    """
    return _forward(x_NI, w_IO)[0]


def _forward(x_NI: Array, w_IO: Array) -> tuple[Array, Any]:
    x8, w8 = _quantize(x_NI, FORWARD), _quantize(w_IO, FORWARD)
    return _dequantize(*x8) @ _dequantize(*w8), (x8, w8)


def _backward(kept: Any, dy_NO: Array) -> tuple[Array, Array]:
    x8, w8 = kept
    dy_NO = _dequantize(*_quantize(dy_NO, BACKWARD))
    return dy_NO @ _dequantize(*w8).T, _dequantize(*x8).T @ dy_NO


fp8_matmul.defvjp(_forward, _backward)


def _quantize(x: Array, dtype: Any) -> tuple[Array, Array]:
    """`x` / scale in 8 bits, and the scale: a power of two that fits the largest number.

    A power of two costs no precision, in 8 bits or in the dtype of `x`. Where `x` holds anything
    that is not finite so is the scale not, and all that is computed with it is not a number.
    """
    ratio = jnp.abs(x).max().astype(jnp.float32) / jnp.finfo(dtype).max.astype(jnp.float32)
    exponent = jax.lax.bitcast_convert_type(ratio, jnp.int32) & 0x7F80_0000
    power = jax.lax.bitcast_convert_type(exponent, jnp.float32)  # of two, at most the ratio
    scale = jnp.where(power > 0, 2 * power, 1.0).astype(x.dtype)
    return (x / scale).astype(dtype), scale


def _dequantize(x8: Array, scale: Array) -> Array:
    return x8.astype(scale.dtype) * scale

"""What remat keeps of a fused attention kernel, counted in what is lowered."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from hare_jax.config import AttentionKernel, DType, Model, Remat
from hare_jax.model import decoder
from hare_jax.model.kernels import cudnn, request, splash

FORWARD = {"cuda": "@__cudnn$fmhaSoftmax(", "tpu": '"splash_mha_fwd_segmented'}
BACKWARD = {"cuda": "@__cudnn$fmhaSoftmaxBackward(", "tpu": '"splash_mha_dkv_segmented'}
ONCE, TWICE = 1, 2


def _gradient(model: Model, platform: str) -> str:
    """StableHLO of the gradient of a packed batch, for a platform that is not here."""
    weights = decoder.abstract(model)
    tokens = jnp.zeros((2, 128), jnp.int32)

    def loss(weights: decoder.Weights) -> jax.Array:
        hidden = decoder.merge(weights)(tokens, tokens, tokens)
        return (hidden.astype(jnp.float32) ** 2).sum()

    with cudnn.as_on_hopper():
        traced = jax.jit(jax.grad(loss)).trace(weights)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("remat", "forward_runs"),
    [(Remat.NONE, ONCE), (Remat.ATTENTION, ONCE), (Remat.FULL, TWICE)],
)
@pytest.mark.parametrize(
    ("kernel", "platform"), [(AttentionKernel.CUDNN, "cuda"), (AttentionKernel.SPLASH, "tpu")]
)
def test_forward_kernel_is_not_run_again(
    model: Model,
    kernel: AttentionKernel,
    platform: str,
    remat: Remat,
    forward_runs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One body for all layers is lowered, so that each kernel stands there as often as it runs."""
    for module in (request, splash):
        monkeypatch.setattr(module, "platform", lambda: "gpu" if platform == "cuda" else "tpu")
    model = dataclasses.replace(
        model, attention=kernel, remat=remat, compute_dtype=DType.BFLOAT16, head_dim=64
    )
    text = _gradient(model, platform)
    assert text.count(FORWARD[platform]) == forward_runs
    assert text.count(BACKWARD[platform]) == 1

"""The paper's models: sizes and fields, written out once more."""

from __future__ import annotations

import pytest

from configs import aot, hare_1b, hare_250m
from hare_jax.config import DType, Remat
from hare_jax.model.decoder import abstract, flops_per_token, num_params

MODELS = {"hare_1b": hare_1b.get_config("mixture"), "hare_250m": hare_250m.get_config("mixture")}


@pytest.mark.parametrize(
    ("name", "parameters"), [("hare_1b", 1_123_117_056), ("hare_250m", 245_924_864)]
)
def test_parameters(name: str, parameters: int) -> None:
    import jax

    model = MODELS[name].model
    assert num_params(model) == parameters
    assert sum(array.size for array in jax.tree.leaves(abstract(model).params)) == parameters


def test_hare_1b_is_the_papers() -> None:
    model, training = MODELS["hare_1b"].model, MODELS["hare_1b"].training
    assert (model.num_layers, model.d_model, model.d_ff) == (22, 2048, 5632)
    assert (model.num_heads, model.num_kv_heads, model.head_dim) == (32, 8, 64)
    assert (model.vocab_size, model.rope_theta, model.norm_eps) == (32_000, 1e4, 1e-5)
    assert not model.tied_head and model.sliding_window is None
    assert model.compute_dtype is DType.BFLOAT16 and model.remat is Remat.ATTENTION
    assert training is not None
    stages = [(stage.name, stage.mixture, stage.tokens) for stage in training.stages]
    assert stages == [
        ("stage 1", "stage1", 52_000_000_000),
        ("stage 2", "stage2", 548_000_000_000),
    ]
    assert training.batch_size * 2048 == 2_097_152  # tokens a step
    assert (training.optimizer.peak_lr, training.optimizer.b2) == (3e-4, 0.95)
    assert flops_per_token(model, 2048) == 6 * 1_057_488_896 + 6 * 22 * 2048 * 2048


def test_hare_250m_is_smaller_in_every_way() -> None:
    model, training = MODELS["hare_250m"].model, MODELS["hare_250m"].training
    assert (model.num_layers, model.d_model, model.d_ff) == (16, 1024, 2816)
    assert (model.num_heads, model.num_kv_heads, model.head_dim) == (16, 4, 64)
    assert (model.vocab_size, model.rope_theta, model.norm_eps) == (32_000, 1e4, 1e-5)
    assert training is not None
    assert [(stage.mixture, stage.tokens) for stage in training.stages] == [("stage2", 5 * 10**9)]


def test_what_is_compiled_ahead_of_time_is_hare_1b() -> None:
    config = aot.get_config("v5e-8")
    assert (config.hardware, config.sequence_length) == ("v5e-8", 2048)
    assert config.model == MODELS["hare_1b"].model
    assert config.training == MODELS["hare_1b"].training
    with pytest.raises(ValueError, match="needs a name, such as v5e-8"):
        aot.get_config()

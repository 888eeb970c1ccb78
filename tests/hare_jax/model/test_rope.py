from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import Model, RopeMethod, RopeScaling
from hare_jax.model.rope import rope_rows, rope_tables, rotate, tables_of_layer

HEAD_OF_8 = Model(head_dim=8)


def test_rotate_pairs_the_halves() -> None:
    # One head of four numbers at position 1: angles 1 and 1 / theta^(2/4).
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    out = rotate(x, rope_tables(jnp.array([[1]]), Model(head_dim=4, rope_theta=100.0)))[0, 0, 0]
    a, b = 1.0, 0.1
    expected = [
        1 * np.cos(a) - 3 * np.sin(a),
        2 * np.cos(b) - 4 * np.sin(b),
        3 * np.cos(a) + 1 * np.sin(a),
        4 * np.cos(b) + 2 * np.sin(b),
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_rows_of_the_table_are_those_of_the_positions() -> None:
    positions = jnp.array([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 6]])
    rows, tables = rope_rows(positions, HEAD_OF_8), rope_tables(positions, HEAD_OF_8)
    for row, table in zip(rows, tables, strict=True):
        assert (row[:, :5] == table[:, :5]).all()
        assert (row[0, 5] == table[0, 5]).all()
        assert jnp.isnan(row[1, 5]).all()  # there is no position 6 in a row of six


def test_scores_depend_on_distance_alone() -> None:
    q, k = (jax.random.normal(jax.random.key(seed), (2, 6, 4, 8)) for seed in (0, 1))

    def scores(start: int) -> jax.Array:
        rope = rope_tables(jnp.tile(start + jnp.arange(6)[None], (2, 1)), HEAD_OF_8)
        return jnp.einsum("bthk,bshk->bhts", rotate(q, rope), rotate(k, rope))

    np.testing.assert_allclose(scores(0), scores(1000), atol=2e-3)


SCALINGS = {
    "linear": RopeScaling(RopeMethod.LINEAR, 4.0),
    "llama3": RopeScaling(RopeMethod.LLAMA3, 8.0, 512),
    "yarn": RopeScaling(RopeMethod.YARN, 4.0, 512, high_rotations=32.0),
    "yarn, own factor": RopeScaling(
        RopeMethod.YARN, 16.0, 64, 2.0, high_rotations=24.0, attention_factor=1.5
    ),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_positions_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = Model(d_model=64, num_heads=2, head_dim=32, rope_scaling=SCALINGS[name])
    scaling = model.rope_scaling
    parameters = {
        "rope_type": scaling.method.value,
        "rope_theta": model.rope_theta,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_length,
    }
    if scaling.method is RopeMethod.LLAMA3:
        parameters["low_freq_factor"] = scaling.low_rotations
        parameters["high_freq_factor"] = scaling.high_rotations
    if scaling.method is RopeMethod.YARN:
        parameters["beta_fast"], parameters["beta_slow"] = (
            scaling.high_rotations,
            scaling.low_rotations,
        )
        parameters["attention_factor"] = scaling.attention_factor or None
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=2, head_dim=32, rope_parameters=parameters
    )
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    positions = np.arange(0, 4000, 37)[None]
    cos, sin = theirs(torch.zeros(1), torch.tensor(positions))
    for ours, expected in zip(rope_tables(jnp.asarray(positions), model), (cos, sin), strict=True):
        np.testing.assert_allclose(ours, expected[..., :16].numpy(), atol=2e-3)


def test_every_fourth_layer_may_be_without_positions() -> None:
    tables = rope_tables(jnp.arange(5)[None], HEAD_OF_8)
    x = jax.random.normal(jax.random.key(0), (1, 5, 2, 8))
    changed = [
        not np.array_equal(rotate(x, tables_of_layer(tables, jnp.int32(layer), 4)), x)
        for layer in range(8)
    ]
    assert changed == [True, True, True, False] * 2
    assert tables_of_layer(tables, jnp.int32(3), 0) is tables

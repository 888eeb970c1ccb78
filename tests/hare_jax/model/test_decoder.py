from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import AttentionKernel, DType, Model, Remat
from hare_jax.model import decoder
from hare_jax.model.kernels import splash

pytestmark = pytest.mark.slow

KERNELS = [AttentionKernel.XLA, AttentionKernel.SPLASH]  # the second interpreted


def _random(config: Model, seed: int = 0) -> decoder.Weights:
    """Parameters far from their initial values, so that every one of them matters."""
    shapes = decoder.abstract(config)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    params = [jnp.asarray(rng.normal(1.0, 0.5, a.shape) * 0.3, jnp.float32) for a in leaves]
    return jax.tree.unflatten(tree, params)


_init = jax.jit(decoder.init, static_argnums=(0, 1))


def _row(*lengths: int, pad: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """tokens, positions, segment ids of one packed row."""
    total = sum(lengths) + pad
    tokens = jax.random.randint(jax.random.key(sum(lengths)), (1, total), 3, 64)
    segments = np.repeat(range(1, len(lengths) + 1), lengths)
    positions = np.concatenate([np.arange(n) for n in lengths])
    fill = (0, pad)
    return tokens, jnp.pad(positions, fill)[None], jnp.pad(segments, fill)[None]


@jax.jit
def _forward(weights: decoder.Weights, *row: jax.Array | None) -> jax.Array:
    model = decoder.merge(weights)
    return model.logits(model(*row))


def _huggingface(config: Model, params: decoder.Params, tokens: np.ndarray) -> np.ndarray:
    """MistralForCausalLM written out in numpy float64: one document, its layers one by one."""
    c, p = config, jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps)

    frequency = 1 / c.rope_theta ** (np.arange(0, c.head_dim, 2) / c.head_dim)
    angles = np.outer(np.arange(len(tokens)), np.concatenate([frequency, frequency]))

    def rope(x_THK: np.ndarray) -> np.ndarray:
        half = c.head_dim // 2
        turned = np.concatenate([-x_THK[..., half:], x_THK[..., :half]], -1)
        return x_THK * np.cos(angles)[:, None] + turned * np.sin(angles)[:, None]

    x = p["embedding_VD"][tokens]
    ahead = np.subtract.outer(np.arange(len(tokens)), np.arange(len(tokens)))
    hidden = (ahead < 0) | (ahead >= (c.sliding_window or len(tokens)))
    for i in range(c.num_layers):
        layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        attn, mlp = layer["attention"], layer["feed_forward"]
        h = norm(x, layer["attention_norm"]["scale"])
        q = rope(np.einsum("td,dhk->thk", h, attn["q_DHK"]))
        k = rope(np.einsum("td,dgk->tgk", h, attn["k_DGK"]))
        v = np.einsum("td,dgk->tgk", h, attn["v_DGK"])
        k, v = (np.repeat(a, c.num_heads // c.num_kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("thk,shk->hts", q, k) / math.sqrt(c.head_dim)
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shk,hkd->td", weights, v, attn["o_HKD"])
        h = norm(x, layer["feed_forward_norm"]["scale"])
        gate = h @ mlp["gate_DF"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ mlp["up_DF"])) @ mlp["down_FD"]
    head = p["embedding_VD"].T if c.tied_head else p["head_DV"]
    return norm(x, p["final_norm"]["scale"]) @ head


def test_hare_has_as_many_parameters_as_published() -> None:
    shapes = decoder.abstract(Model()).params
    assert sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) == 1_123_117_056
    assert decoder.num_params(Model()) == 1_123_117_056


@pytest.mark.parametrize("tied_head", [False, True])
def test_num_params_counts_the_arrays(model: Model, tied_head: bool) -> None:
    model.tied_head = tied_head
    shapes = decoder.abstract(model).params
    counted = sum(math.prod(a.shape) for a in jax.tree.leaves(shapes))
    assert decoder.num_params(model) == counted


def test_flops_per_token_follows_the_formula() -> None:
    assert decoder.flops_per_token(Model(), 2048) == 6 * 1_057_488_896 + 6 * 22 * 2048 * 2048


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("tied_head", [False, True])
def test_logits_equal_the_architecture_written_out(
    model: Model, window: int | None, tied_head: bool
) -> None:
    model.sliding_window, model.tied_head = window, tied_head
    weights = _random(model)
    tokens, positions, segments = _row(11)
    logits = _forward(weights, tokens, positions, segments)[0]
    expected = _huggingface(model, weights.params, np.asarray(tokens[0]))
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("window", [None, 3])
def test_packed_equals_unpacked(
    model: Model, kernel: AttentionKernel, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents in one row have the logits and give the gradients that they have alone."""
    model.sliding_window = window
    unpacked = _random(dataclasses.replace(model, attention=AttentionKernel.XLA))
    lengths, pad = (5, 1, 7), 3
    if kernel is AttentionKernel.SPLASH:
        monkeypatch.setattr(splash, "refusal", lambda asked: None)
        lengths, pad = (60, 1, 50), 17  # a row of 128
    graph = decoder.abstract(dataclasses.replace(model, attention=kernel)).graph
    tokens, positions, segments = _row(*lengths, pad=pad)

    def packed(weights: decoder.Weights) -> tuple[jax.Array, jax.Array]:
        logits = _forward(weights, tokens, positions, segments)[0, : sum(lengths)]
        return (logits**2).mean(), logits

    def alone(weights: decoder.Weights) -> tuple[jax.Array, jax.Array]:
        parts, start = [], 0
        for n in lengths:
            document = tokens[:, start : start + n]
            row = (document, jnp.arange(n)[None], jnp.ones((1, n), jnp.int32))
            parts.append(_forward(weights, *row)[0])
            start += n
        logits = jnp.concatenate(parts)
        return (logits**2).mean(), logits

    (_, logits), grads = jax.jit(jax.value_and_grad(packed, has_aux=True))(
        decoder.Weights(graph, unpacked.params)
    )
    (_, expected), expected_grads = jax.jit(jax.value_and_grad(alone, has_aux=True))(unpacked)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()))


def test_no_segment_ids_is_one_document_a_row(model: Model) -> None:
    weights = _random(model)
    tokens, positions, segments = _row(9)
    without = _forward(weights, tokens, positions, None)
    assert (without == _forward(weights, tokens, positions, segments)).all()


def test_the_future_is_not_seen(model: Model) -> None:
    weights = _random(model)
    tokens, positions, segments = _row(8)
    changed = tokens.at[0, 5].set(3 + (tokens[0, 5] - 2) % 61)
    before = _forward(weights, tokens, positions, segments)[0]
    after = _forward(weights, changed, positions, segments)[0]
    assert (before[:5] == after[:5]).all()
    assert (before[5:] != after[5:]).any(axis=-1).all()


@pytest.mark.parametrize("remat", [Remat.DOTS, Remat.FULL])
def test_remat_changes_no_gradient(model: Model, remat: Remat) -> None:
    weights = _random(model)
    other = decoder.Weights.of(dataclasses.replace(model, remat=remat), weights.params)
    row = _row(5, 4)

    @jax.jit
    @jax.grad
    def gradient(weights: decoder.Weights) -> jax.Array:
        return (_forward(weights, *row) ** 2).mean()

    grads = jax.tree.leaves(gradient(weights))
    for got, want in zip(jax.tree.leaves(gradient(other)), grads, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_remat_keeps_less(model: Model) -> None:
    def saved(remat: Remat) -> int:
        weights = decoder.abstract(dataclasses.replace(model, remat=remat, num_layers=8))
        row = _row(64)
        loss = jax.jit(jax.grad(lambda w: (_forward(w, *row) ** 2).mean()))
        return loss.lower(weights).compile().memory_analysis().temp_size_in_bytes

    assert saved(Remat.FULL) < saved(Remat.NONE)


def test_rotations_are_computed_once_for_all_layers(model: Model) -> None:
    model.num_layers, model.scan_layers = 3, False
    weights = _random(model)

    def loss(weights: decoder.Weights, *row: jax.Array) -> jax.Array:
        return _forward(weights, *row).sum()

    compiled = jax.jit(jax.grad(loss)).lower(weights, *_row(3, 5)).compile().as_text()
    assert compiled.count(" cosine(") == compiled.count(" sine(") == 1


def test_bfloat16_is_near_and_logits_are_float32(model: Model) -> None:
    params = _init(model, 0)
    row = _row(6, 3)
    exact = _forward(decoder.Weights.of(model, params), *row)
    half = dataclasses.replace(model, compute_dtype=DType.BFLOAT16)
    logits = _forward(decoder.Weights.of(half, params), *row)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, atol=0.05 * float(jnp.abs(exact).max()))


def test_init_is_a_function_of_the_seed(model: Model) -> None:
    one, again, two = (_init(model, seed) for seed in (1, 1, 2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, again))
    assert bool((one["embedding_VD"] != two["embedding_VD"]).any())
    assert {a.dtype for a in jax.tree.leaves(one)} == {jnp.dtype("float32")}
    layers = one["layers"]["attention"]["q_DHK"]
    assert bool((layers[0] != layers[1]).any()), "layers must not start as copies of each other"


def test_untrained_loss_is_that_of_a_uniform_guess(model: Model) -> None:
    weights = decoder.Weights.of(model, _init(model, 0))
    tokens, positions, segments = _row(32)
    log_p = jax.nn.log_softmax(_forward(weights, tokens, positions, segments))
    loss = -jnp.take_along_axis(log_p[:, :-1], tokens[:, 1:, None], -1).mean()
    assert abs(float(loss) - math.log(64)) < 0.1


@pytest.mark.parametrize("window", [None, 3])
def test_cached_decode_equals_the_full_forward(model: Model, window: int | None) -> None:
    model.sliding_window = window
    weights = _random(model)
    tokens, positions, _ = _row(10)
    tokens = jnp.concatenate([tokens, tokens[:, ::-1]])
    positions = jnp.tile(positions, (2, 1))
    m = decoder.merge(weights)
    decode = jax.jit(m.decode)
    full = m(tokens, positions, None)
    read, cache = decode(tokens[:, :4], positions[:, :4], m.init_cache(2, 12))
    parts = [read]
    for t in range(4, 10):
        x, cache = decode(tokens[:, t : t + 1], positions[:, t : t + 1], cache)
        parts.append(x)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), full, rtol=1e-4, atol=1e-5)
    assert int(cache.used) == 10


def test_decode_does_not_see_padding(model: Model) -> None:
    weights = _random(model)
    m = decoder.merge(weights)
    tokens, positions, _ = _row(6)
    plain, _ = m.decode(tokens, positions, m.init_cache(1, 6))
    padded_tokens = jnp.pad(tokens, ((0, 0), (3, 0)), constant_values=9)
    padded_positions = jnp.pad(positions, ((0, 0), (3, 0)), constant_values=-1)
    padded, _ = m.decode(padded_tokens, padded_positions, m.init_cache(1, 11))
    np.testing.assert_allclose(padded[:, 3:], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, "num_heads must be a multiple of num_kv_heads, got 4 and 3"),
        ({"head_dim": 7}, "head_dim must be even for rotary positions, got 7"),
        ({"sliding_window": 0}, "sliding_window must be at least 1 token, or None for all, got 0"),
    ],
)
def test_impossible_models_are_refused(model: Model, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder.abstract(dataclasses.replace(model, **changes))

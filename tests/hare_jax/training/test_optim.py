from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hare_jax.config import Algorithm, Model, Optimizer, Schedule
from hare_jax.model import decoder
from hare_jax.training import optim


def _rates(config: Optimizer, steps: int) -> np.ndarray:
    rate = optim.learning_rate(config, steps)
    return np.asarray(jax.vmap(rate)(jnp.arange(steps)))


def test_warmup_rises_from_the_first_step_to_the_peak() -> None:
    rates = _rates(Optimizer(peak_lr=1.0, warmup_steps=4), 20)
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)


def test_cosine_equals_optax() -> None:
    config = Optimizer(peak_lr=3e-4, warmup_steps=10, final_lr_fraction=0.1)
    expected = optax.cosine_decay_schedule(3e-4, 90, alpha=0.1)
    got = _rates(config, 100)[10:]
    np.testing.assert_allclose(got, [expected(step) for step in range(90)], rtol=1e-5)


def test_wsd_is_flat_then_falls_to_the_final_rate() -> None:
    config = Optimizer(
        peak_lr=1.0, warmup_steps=0, schedule=Schedule.WSD, decay_fraction=0.2, final_lr_fraction=0
    )
    rates = _rates(config, 50)
    np.testing.assert_allclose(rates[:41], 1.0)
    np.testing.assert_allclose(rates[40:], np.linspace(1.0, 0.1, 10), rtol=1e-5)


def test_constant_is_flat() -> None:
    config = Optimizer(peak_lr=2.0, warmup_steps=0, schedule=Schedule.CONSTANT)
    assert set(_rates(config, 9).tolist()) == {2.0}


def test_decay_leaves_norms_alone(model: Model) -> None:
    shapes = decoder.abstract(model).params
    flat = jax.tree_util.tree_leaves_with_path(optim.decayed(shapes))
    spared = [jax.tree_util.keystr(path, simple=True) for path, yes in flat if not yes]
    assert len(flat) == 12 and len(spared) == 3
    assert all("norm" in name for name in spared)


def _step(config: Optimizer, params: Any, grads: Any, steps: int = 10) -> Any:
    optimizer = optim.build(config, steps)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


def test_first_step_is_adamw_by_hand() -> None:
    params = {"head_DV": jnp.array([[1.0, -2.0]]), "scale": jnp.array([1.0])}
    grads = {"head_DV": jnp.array([[0.3, -0.4]]), "scale": jnp.array([0.1])}
    config = Optimizer(peak_lr=0.01, warmup_steps=0, weight_decay=0.1, clip_norm=10.0)
    after = _step(config, params, grads)
    # The first update of Adam is the sign of the gradient; decay adds 0.1 * parameter.
    expected = np.array([[1.0 - 0.01 * (1 + 0.1), -2.0 - 0.01 * (-1 - 0.2)]])
    np.testing.assert_allclose(after["head_DV"], expected, rtol=1e-5)
    np.testing.assert_allclose(after["scale"], [0.99], rtol=1e-5)


def test_first_step_is_lion_by_hand() -> None:
    params = {"head_DV": jnp.array([[1.0, -2.0]]), "scale": jnp.array([1.0])}
    grads = {"head_DV": jnp.array([[0.3, -0.4]]), "scale": jnp.array([0.1])}
    config = Optimizer(Algorithm.LION, peak_lr=0.01, warmup_steps=0, weight_decay=0.1, clip_norm=9)
    after = _step(config, params, grads)
    expected = np.array([[1.0 - 0.01 * (1 + 0.1), -2.0 - 0.01 * (-1 - 0.2)]])
    np.testing.assert_allclose(after["head_DV"], expected, rtol=1e-5)
    np.testing.assert_allclose(after["scale"], [0.99], rtol=1e-5)


@pytest.mark.slow
def test_muon_makes_each_layers_matrix_near_orthogonal_and_leaves_the_rest_to_adamw(
    model: Model,
) -> None:
    params = decoder.init(model, 0)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    given: dict[str, Any] = {"peak_lr": 1e-3, "warmup_steps": 0, "weight_decay": 0.1}
    changes = [
        jax.tree.map(jnp.subtract, _step(Optimizer(algorithm, **given), params, grads), params)
        for algorithm in (Algorithm.MUON, Algorithm.ADAMW)
    ]
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    seen = 0
    for path, param, muon, adamw in zip(
        paths, *map(jax.tree.leaves, (params, *changes)), strict=True
    ):
        if path[-1].key not in optim.MATRICES:
            np.testing.assert_array_equal(muon, adamw, err_msg=str(path))
            continue
        rows = {"o_HKD": 2}.get(path[-1].key, 1)  # axes that are summed over
        for change, of_layer in zip(muon, param, strict=True):
            fan_in = int(np.prod(change.shape[:rows]))
            step = (change + 1e-4 * of_layer).reshape(fan_in, -1) / -1e-3
            singular = np.linalg.svd(step, compute_uv=False) / (0.2 * max(step.shape) ** 0.5)
            assert (singular > 0.6).mean() > 0.9 and singular.max() < 1.3, path  # but the smallest
            seen += 1
    assert seen == 7 * model.num_layers


def test_the_gradient_is_clipped_by_its_norm_over_all_parameters() -> None:
    grads = {"a": jnp.array([[3.0]]), "scale": jnp.array([4.0])}
    optimizer = optim.build(Optimizer(warmup_steps=0, clip_norm=1.0, b1=0.0), 10)
    _, state = optimizer.update(grads, optimizer.init(grads), grads)
    mu = state[1][0].mu
    np.testing.assert_allclose([mu["a"][0, 0], mu["scale"][0]], [0.6, 0.8], rtol=1e-5)


def test_errors() -> None:
    with pytest.raises(ValueError, match="warmup_steps=10: expected 0 or more, and less than the"):
        optim.build(Optimizer(warmup_steps=10), 10)
    with pytest.raises(ValueError, match=r"decay_fraction=0.0: expected in \(0, 1\]"):
        optim.build(Optimizer(warmup_steps=1, decay_fraction=0.0), 10)

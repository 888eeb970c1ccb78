from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import Model
from hare_jax.inference.generate import generate, stream
from hare_jax.inference.sampling import Sampling, keep_most_probable
from hare_jax.model import decoder

pytestmark = pytest.mark.slow

PROMPTS = [[1, 7, 8, 9], [1], [1, 30, 31, 32, 33, 34]]
NO_EOS = 64  # no token has this id


@pytest.fixture
def weights(model: Model) -> decoder.Weights:
    model.sliding_window = 5
    shapes = decoder.abstract(model)
    rng = np.random.default_rng(0)
    leaves, tree = jax.tree.flatten(shapes)
    params = [jnp.asarray(rng.normal(0.0, 0.5, a.shape), jnp.float32) for a in leaves]
    return jax.tree.unflatten(tree, params)


@jax.jit
def _next_token(weights: decoder.Weights, tokens_BT: jax.Array, at: jax.Array) -> jax.Array:
    model = decoder.merge(weights)
    x_BTD = model(tokens_BT, jnp.arange(tokens_BT.shape[1])[None], None)
    return model.logits(x_BTD)[0, at].argmax()


def _greedy_without_cache(weights: decoder.Weights, prompt: list[int], steps: int) -> list[int]:
    tokens = list(prompt)
    padded = np.zeros((1, 16), np.int32)  # what comes after `at` is not seen
    for _ in range(steps):
        padded[0, : len(tokens)] = tokens
        tokens.append(int(_next_token(weights, padded, len(tokens) - 1)))
    return tokens[len(prompt) :]


def test_greedy_equals_the_full_forward_token_by_token(weights: decoder.Weights) -> None:
    got = generate(weights, PROMPTS, max_new_tokens=8, eos_ids=[NO_EOS])
    assert got == [_greedy_without_cache(weights, prompt, 8) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in got}) > 1


def test_ends_before_eos_and_the_others_go_on(weights: decoder.Weights) -> None:
    free = generate(weights, PROMPTS, max_new_tokens=8, eos_ids=[NO_EOS])
    eos_id = next(token for token in free[0] if token not in free[1])
    ended = generate(weights, PROMPTS, max_new_tokens=8, eos_ids=[eos_id])
    assert ended[0] == free[0][: free[0].index(eos_id)]
    assert ended[1] == free[1]


def test_sampling_is_a_function_of_the_seed_and_not_of_the_neighbors(
    weights: decoder.Weights,
) -> None:
    def sample(prompts: list[list[int]], seed: int) -> list[list[int]]:
        return generate(
            weights, prompts, max_new_tokens=8, eos_ids=[NO_EOS], sampling=Sampling(1.0, seed=seed)
        )

    three = sample(PROMPTS, 0)
    assert three == sample(PROMPTS, 0)
    assert three != sample(PROMPTS, 1)
    assert sample([PROMPTS[0], [1, 5, 6, 7, 8, 9], [1]], 0)[0] == three[0]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, top_k=30, top_p=0.9)], ids=str)
def test_streamed_tokens_are_the_generated_ones(
    weights: decoder.Weights, sampling: Sampling
) -> None:
    for prompt in [[1, 7], [1, *range(3, 23)]]:
        options: dict[str, Any] = {"max_new_tokens": 9, "eos_ids": [NO_EOS], "sampling": sampling}
        [expected] = generate(weights, [prompt], **options)
        assert list(stream(weights, prompt, **options)) == expected
        ended = {**options, "eos_ids": [expected[4]]}
        until = expected.index(expected[4])
        assert list(stream(weights, prompt, **ended)) == expected[:until]


def test_streamed_tokens_come_one_by_one(weights: decoder.Weights) -> None:
    tokens = stream(weights, [1, 7], max_new_tokens=1000, eos_ids=[NO_EOS], sampling=Sampling(1.0))
    assert len([next(tokens), next(tokens)]) == 2  # long before the other 998


def test_one_token_left_is_greedy(weights: decoder.Weights) -> None:
    greedy = generate(weights, PROMPTS, max_new_tokens=8, eos_ids=[NO_EOS])
    assert greedy == generate(
        weights, PROMPTS, max_new_tokens=8, eos_ids=[NO_EOS], sampling=Sampling(1.0, top_k=1)
    )
    assert greedy == generate(
        weights, PROMPTS, max_new_tokens=8, eos_ids=[NO_EOS], sampling=Sampling(1.0, top_p=1e-6)
    )


def test_sampled_frequencies_are_the_models(weights: decoder.Weights) -> None:
    model = decoder.merge(weights)
    x = model(jnp.array([[1, 7]]), jnp.arange(2)[None], None)
    expected = jax.nn.softmax(model.logits(x)[0, -1] / 2.0)
    rows = generate(
        weights, [[1, 7]] * 4000, max_new_tokens=1, eos_ids=[NO_EOS], sampling=Sampling(2.0)
    )
    got = np.bincount([row[0] for row in rows], minlength=64) / len(rows)
    np.testing.assert_allclose(got, expected, atol=0.035)  # 4 standard errors of a half


LOGITS = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, None, [0, 1, 2, 3]),
        (2, None, [1, 3]),
        (9, None, [0, 1, 2, 3]),
        (0, 0.3, [1]),
        (0, 0.5, [1, 3]),
        (0, 0.75, [1, 2, 3]),
        (2, 0.5, [1]),  # of the two that are left, the first has 4/7
    ],
)
def test_keep(top_k: int, top_p: float | None, kept: list[int]) -> None:
    logits = keep_most_probable(LOGITS, top_k, top_p)
    assert np.flatnonzero(np.isfinite(logits[0])).tolist() == kept
    assert (logits[0, np.array(kept)] == LOGITS[0, np.array(kept)]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts: expected at least one"),
        ({"prompts": [[1], []]}, "of at least one token"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected 1 or more"),
        ({"sampling": Sampling(-1.0)}, "temperature=-1.0: expected 0 or more"),
        ({"sampling": Sampling(top_k=-1)}, "top_k=-1: expected 0"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p=0.0: expected more than 0"),
    ],
)
def test_errors(weights: decoder.Weights, changes: dict[str, Any], message: str) -> None:
    arguments = {"prompts": [[1]], "max_new_tokens": 1, "eos_ids": [2], **changes}
    with pytest.raises(ValueError, match=message):
        generate(weights, **arguments)
    if len(arguments["prompts"]) == 1:
        [arguments["prompt"]] = arguments.pop("prompts")
        with pytest.raises(ValueError, match=message):
            next(stream(weights, **arguments))


def test_each_of_several_ends_ends(weights: decoder.Weights) -> None:
    [free] = generate(weights, [[1, 7]], max_new_tokens=8, eos_ids=[NO_EOS])
    first = next(i for i, token in enumerate(free) if token not in free[:i] and i > 1)
    ends = [NO_EOS, free[first]]
    assert generate(weights, [[1, 7]], max_new_tokens=8, eos_ids=ends) == [free[:first]]
    assert list(stream(weights, [1, 7], max_new_tokens=8, eos_ids=ends)) == free[:first]

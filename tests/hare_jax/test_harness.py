from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import AttentionKernel, Matmul, Model, Remat
from hare_jax.evaluation import harness
from hare_jax.evaluation.harness import ModelScorer
from hare_jax.evaluation.packing import Request, Score
from hare_jax.model import decoder

MAX_LENGTH = 160  # more than the shortest row, so that two row lengths occur


@pytest.fixture
def params(model: Model) -> decoder.Params:
    """Larger than at initialisation, so that tokens and contexts matter."""
    return jax.tree.map(lambda x: 3 * x, decoder.init(model, 0))


@pytest.fixture
def scorer(model: Model, params: decoder.Params) -> ModelScorer:
    return ModelScorer(model, params, max_length=MAX_LENGTH, batch_tokens=512, bos_id=1)


def some_requests() -> list[Request]:
    """Shared contexts, shared beginnings, choices of one token, short, long and too long ones."""
    rng = np.random.default_rng(0)

    def tokens(n: int) -> list[int]:
        return rng.integers(3, 64, n).tolist()

    requests = []
    for length in (3, 20, 90, 150):
        context = [1, *tokens(length)]
        requests += [Request(context, tokens(n)) for n in (1, 1, 4, 9)]
    requests += [Request(requests[0].context, requests[2].continuation[:2])]
    requests += [Request([1, *tokens(200)], tokens(5)), Request([], tokens(3))]
    return requests


def logits_after(model: Model, params: decoder.Params, tokens: list[int]) -> np.ndarray:
    """[len(tokens), V]: one row, no packing, no batch. What follows a token does not matter."""
    row = jnp.array([tokens + [0] * (MAX_LENGTH - len(tokens))], jnp.int32)
    return np.asarray(full_forward(decoder.abstract(model)[0], params, row))[0, : len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def full_forward(graph: Any, params: decoder.Params, tokens_BT: jax.Array) -> jax.Array:
    built = decoder.merge(graph, params)
    positions_BT = jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None]
    return built.logits(built(tokens_BT, positions_BT, None))


def directly(model: Model, params: decoder.Params, request: Request) -> Score:
    context, continuation = list(request.context) or [1], list(request.continuation)
    whole = (context + continuation)[-(MAX_LENGTH + 1) :]
    logits = logits_after(model, params, whole[:-1])[-len(continuation) :]
    log_prob = logits - np.log(np.sum(np.exp(logits.astype(np.float64)), axis=-1, keepdims=True))
    total = float(log_prob[np.arange(len(continuation)), continuation].sum())
    return Score(total, logits.argmax(-1).tolist() == continuation, len(continuation))


def assert_same(got: Sequence[Score], expected: Sequence[Score]) -> None:
    assert [s[1:] for s in got] == [s[1:] for s in expected]
    np.testing.assert_allclose([s[0] for s in got], [s[0] for s in expected], atol=2e-4, rtol=1e-5)


def test_a_score_is_that_of_the_full_forward_pass(
    model: Model, params: decoder.Params, scorer: ModelScorer
) -> None:
    requests = some_requests()
    greedy = [int(logits_after(model, params, [1, 5, 6, 7])[-1].argmax())]
    requests.append(Request([1, 5, 6, 7], greedy))
    other = (greedy[0] + 1) % 64
    then = int(logits_after(model, params, [1, 5, 6, 7, other])[-1].argmax())
    requests.append(Request([1, 5, 6, 7], [other, then]))
    scores = scorer.scores(requests)
    expected = [directly(model, params, request) for request in requests]
    assert_same(scores, expected)
    assert [s.is_greedy for s in scores[-2:]] == [True, False]


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_scores_do_not_depend_on_the_batch_size(
    model: Model, params: decoder.Params, scorer: ModelScorer, batch_tokens: int
) -> None:
    other = ModelScorer(model, params, max_length=MAX_LENGTH, batch_tokens=batch_tokens, bos_id=1)
    assert_same(other.scores(some_requests()), scorer.scores(some_requests()))


def test_scores_do_not_depend_on_order_or_on_the_other_requests(scorer: ModelScorer) -> None:
    requests = some_requests()
    expected = scorer.scores(requests)
    shuffled = np.random.default_rng(1).permutation(len(requests)).tolist()
    assert_same(scorer.scores([requests[i] for i in shuffled]), [expected[i] for i in shuffled])
    for request, score in zip(requests[::3], expected[::3], strict=True):
        assert_same(scorer.scores([request]), [score])


def test_the_context_that_is_cut_away_does_not_count(scorer: ModelScorer) -> None:
    whole = some_requests()[-2]
    kept = Request(whole.context[-(MAX_LENGTH + 1 - 5) :], whole.continuation)
    other_start = Request([9, *whole.context[1:]], whole.continuation)
    scores = scorer.scores([whole, kept, other_start])
    assert_same(scores[1:], [scores[0]] * 2)


def test_only_scored_positions_meet_the_head(
    scorer: ModelScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One choice of one token after each of 3 contexts: 3 positions, whatever the batch holds."""
    predict, seen = harness._predict, []
    monkeypatch.setattr(harness, "HEAD_POSITIONS", 2)
    monkeypatch.setattr(
        harness, "_predict", lambda *args: seen.append(args[3].shape) or predict(*args)
    )
    scorer.scores([Request([1, *range(3, n)], [5]) for n in (10, 20, 30)])
    assert seen == [(2,), (2,)]


def test_progress_counts_every_request_once(scorer: ModelScorer) -> None:
    finished: list[int] = []
    requests = some_requests()
    scorer.scores(requests, finished.append)
    assert len(finished) > 1
    assert sum(finished) == len(requests)


def test_how_it_was_trained_changes_no_score(
    model: Model, params: decoder.Params, scorer: ModelScorer
) -> None:
    """Neither a kernel that is not here, nor 8 bits, whose rounding is that of a whole batch."""
    config = dataclasses.replace(
        model, attention=AttentionKernel.CUDNN, remat=Remat.FULL, matmul=Matmul.FP8
    )
    other = ModelScorer(config, params, max_length=MAX_LENGTH, batch_tokens=512, bos_id=1)
    assert_same(other.scores(some_requests()), scorer.scores(some_requests()))


def test_token_losses_are_those_of_the_full_forward_pass(
    model: Model, params: decoder.Params, scorer: ModelScorer
) -> None:
    """Two segments and padding in a row; the head sees more than HEAD_POSITIONS positions."""
    rng = np.random.default_rng(0)
    row = rng.integers(3, 64, 141).astype(np.int32)
    segments = np.repeat([1, 2, 0], [60, 70, 10]).astype(np.int32)
    positions = np.concatenate([np.arange(60), np.arange(70), np.zeros(10)]).astype(np.int32)
    batch = [np.stack([x, x, x]) for x in (row[:-1], row[1:], positions, segments)]
    loss_BT = scorer.token_losses(*batch)

    documents = (row[:60], row[60:130])
    for start, document in zip((0, 60), documents, strict=True):
        for at in (1, 7, len(document) - 1):
            request = Request(document[:at].tolist(), [int(document[at])])
            expected = -directly(model, params, request).log_likelihood
            np.testing.assert_allclose(loss_BT[:, start + at - 1], expected, atol=1e-4)
    assert (loss_BT[:, 130:] == 0).all()


def test_parameters_with_nan_are_refused(model: Model, params: decoder.Params) -> None:
    broken = {**params, "final_norm": jax.tree.map(lambda x: x * np.nan, params["final_norm"])}
    scorer = ModelScorer(model, broken, max_length=MAX_LENGTH, batch_tokens=512, bos_id=1)
    with pytest.raises(ValueError, match="2 of 2 log-likelihoods are not finite"):
        scorer.scores([Request([1], [5]), Request([1], [6])])

"""The engine that scores token ids with a model: log-likelihoods of continuations, losses of text.

    scorer = ModelScorer(config, params, max_length=256, batch_tokens=4096, bos_id=1)
    scorer.scores([Request([1, 415, 5565], [349, 3890])])   # [Score(-7.31, False, 2)]

Everything runs at fixed shapes under jit: one program for each row length, and one for the head,
which sees only the positions that are scored. A score depends neither on the batch size nor on the
other requests. Log-softmax is float32.

Shape legend: B rows, T tokens, D model width, V vocabulary, N scored positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hare_jax.config import Model
from hare_jax.evaluation import packing
from hare_jax.evaluation.packing import Request, Score
from hare_jax.model import decoder

# Positions whose logits exist at one time: 128 x 32 000 in float32 are 16 MB.
HEAD_POSITIONS = 128


class Scorer(Protocol):
    """Whatever assigns probabilities to tokens: a model, or a baseline without one."""

    def scores(
        self, requests: Sequence[Request], advance: Callable[[int], None] = ...
    ) -> list[Score]:
        """One score a request, in order. `advance(n)` is told of n more finished requests."""

    def token_losses(
        self,
        tokens_BT: np.ndarray,
        targets_BT: np.ndarray,
        positions_BT: np.ndarray,
        segment_ids_BT: np.ndarray,
    ) -> np.ndarray:
        """-log p(target | tokens of its segment up to it) in nats, float32 [B, T]; 0 in padding."""


def _nobody(finished: int) -> None:
    """Nobody watches."""


class ModelScorer:
    """Scores with a decoder.

    `max_length`: tokens the model reads at a time; a longer context loses its first tokens.
    `batch_tokens`: tokens of a batch, padding included.
    """

    def __init__(
        self,
        config: Model,
        params: decoder.Params,
        *,
        max_length: int,
        batch_tokens: int,
        bos_id: int,
    ):
        self.graph, _ = decoder.abstract(decoder.for_inference(config))
        self.params = params
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.bos_id = bos_id

    def scores(
        self, requests: Sequence[Request], advance: Callable[[int], None] = _nobody
    ) -> list[Score]:
        """One score a request, in order.

        Raises:
          ValueError: a request without a continuation, or with one longer than `max_length`; or
            parameters that give no finite log-likelihood.
        """
        readable = [packing.truncated(r, self.max_length, self.bos_id)[0] for r in requests]

        log_likelihood = np.zeros(len(readable))
        is_greedy = np.ones(len(readable), bool)
        packed_rows = packing.rows(packing.paths(readable), self.max_length)
        for batch in packing.batches(packed_rows, self.batch_tokens):
            log_prob_N, is_top_N = self._targets(
                (batch.tokens_BT, batch.positions_BT, batch.segment_ids_BT),
                batch.index_N,
                batch.target_N,
            )
            np.add.at(log_likelihood, batch.request_N, log_prob_N.astype(np.float64))
            np.logical_and.at(is_greedy, batch.request_N, is_top_N)
            advance(len(np.unique(batch.request_N)))
        if not np.isfinite(log_likelihood).all():
            raise ValueError(
                f"{np.sum(~np.isfinite(log_likelihood))} of {len(readable)} log-likelihoods are not"
                " finite: the parameters hold NaN or infinity; evaluate an earlier checkpoint"
            )
        return [
            Score(float(total), bool(greedy), len(request.continuation))
            for total, greedy, request in zip(log_likelihood, is_greedy, readable, strict=True)
        ]

    def token_losses(
        self,
        tokens_BT: np.ndarray,
        targets_BT: np.ndarray,
        positions_BT: np.ndarray,
        segment_ids_BT: np.ndarray,
    ) -> np.ndarray:
        """See Scorer. Where T changes or B does, a program is compiled."""
        index_N = np.flatnonzero(segment_ids_BT).astype(np.int32)
        loss_BT = np.zeros(tokens_BT.shape, np.float32)
        log_prob_N, _ = self._targets(
            (tokens_BT, positions_BT, segment_ids_BT), index_N, targets_BT.ravel()[index_N]
        )
        loss_BT.ravel()[index_N] = -log_prob_N
        return loss_BT

    def _targets(
        self, inputs: tuple[np.ndarray, ...], index_N: np.ndarray, target_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability of each target, and whether it is the most probable token."""
        x_ND = _hidden(self.graph, self.params, *inputs)
        answers = []
        for start in range(0, len(index_N), HEAD_POSITIONS):
            chunk = slice(start, start + HEAD_POSITIONS)
            answers.append(
                _predict(
                    self.graph, self.params, x_ND, _padded(index_N[chunk]), _padded(target_N[chunk])
                )
            )
        log_prob_N, is_top_N = (np.concatenate(part) for part in zip(*answers, strict=True))
        return log_prob_N[: len(index_N)], is_top_N[: len(index_N)]


def _padded(chunk_N: np.ndarray) -> np.ndarray:
    return np.pad(chunk_N, (0, HEAD_POSITIONS - len(chunk_N)))


@functools.partial(jax.jit, static_argnums=0)
def _hidden(
    graph: Any, params: decoder.Params, tokens_BT: Array, positions_BT: Array, segment_ids_BT: Array
) -> Array:
    """Hidden states of all positions, [B * T, D]."""
    x_BTD = decoder.merge(graph, params)(tokens_BT, positions_BT, segment_ids_BT)
    return x_BTD.reshape(-1, x_BTD.shape[-1])


@functools.partial(jax.jit, static_argnums=0)
def _predict(
    graph: Any, params: decoder.Params, x_ND: Array, index_N: Array, target_N: Array
) -> tuple[Array, Array]:
    logits_NV = decoder.merge(graph, params).logits(x_ND[index_N])
    target_logit_N = jnp.take_along_axis(logits_NV, target_N[:, None], axis=-1)[:, 0]
    log_prob_N = target_logit_N - jax.nn.logsumexp(logits_NV, axis=-1)
    # Not argmax(logits) == target: on CPU that takes four times as long as all the rest.
    return log_prob_N, target_logit_N == jnp.max(logits_NV, axis=-1)

"""The inference engine: scores and continues token ids on all devices.

    engine = InferenceEngine(config, params, max_length=2048, batch_tokens=8192)
    engine.scores([ScoreRequest([1, 415, 5565], [349, 3890])])      # [Score(-7.31, False, 2)]
    engine.generate([[1, 415, 5565]], max_new_tokens=64, is_complete=lambda tokens: 2 in tokens)

A score depends neither on the batch nor on other requests, although common prefixes of requests are
read once (prefix_tree.py). Rows are distributed over the devices, each of which holds all
parameters. The output head is applied only to the positions that are scored. Log-softmax is
computed in float32. One program is compiled for each row length.

Shape legend: B rows, T tokens of a row, D model width, V vocabulary, P devices, N scored positions
of a device, W positions of one chunk of the head.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import Model
from hare_jax.inference import prefix_tree
from hare_jax.inference.batch_decoding import continue_batch
from hare_jax.inference.prefix_tree import PackedTrees
from hare_jax.inference.requests import Done, Score, ScoreRequest, ignore_scores, truncate
from hare_jax.inference.sampling import Sampling
from hare_jax.inference.tree_attention import hidden_states
from hare_jax.model import decoder

HEAD_CHUNK = 128  # positions whose logits exist at once: 128 x 32 000 in float32 are 16 MB
MAX_IN_FLIGHT = 2  # batches that are computed while the host prepares the next one


class ScoreBatch(NamedTuple):
    """A batch of packed prefix trees: arrays of the host or of the devices, or their shardings."""

    tokens_BT: Any  # int32
    positions_BT: Any  # int32
    ends_BT: Any  # int32, see prefix_tree.py
    index_PN: Any  # int32: the scored positions of a device, within its [B * T / P]
    target_PN: Any  # int32: the token that follows each of them
    num_chunks: Any  # int32 []: chunks of HEAD_CHUNK positions that are not all padding


class InferenceEngine:
    """A model on all devices of this process."""

    def __init__(
        self,
        config: Model,
        params: decoder.Params,
        *,
        max_length: int,
        batch_tokens: int,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Copies the parameters to each device.

        Args:
          config: the architecture.
          params: its parameters.
          max_length: tokens that the model reads at most; a longer context loses its first tokens.
          batch_tokens: tokens of a batch on each device, including padding.
          devices: of this process; None: all of them.
        """
        config = decoder.for_inference(config)
        self.config = config
        devices = jax.local_devices() if devices is None else devices
        types = (AxisType.Auto,)
        self.mesh = jax.make_mesh((len(devices),), ("rows",), axis_types=types, devices=devices)
        self.weights = jax.device_put(
            decoder.Weights.of(config, decoder.in_compute_dtype(params, config)),
            NamedSharding(self.mesh, P()),
        )
        self.max_length = max_length
        self.batch_tokens = batch_tokens

    def scores(self, requests: Sequence[ScoreRequest], done: Done = ignore_scores) -> list[Score]:
        """Returns one score per request, in order.

        Args:
          requests: contexts and continuations.
          done: called with each score once, as soon as it is known.

        Raises:
          ValueError: a context or continuation is empty, a continuation is longer than
            `max_length`, or a log-likelihood is not finite.
        """
        truncated = [truncate(request, self.max_length)[0] for request in requests]
        log_likelihood, is_greedy = np.zeros(len(requests)), np.ones(len(requests), bool)
        rows = prefix_tree.pack_rows(prefix_tree.trees(truncated))
        in_flight: deque[tuple[PackedTrees, tuple[Array, Array]]] = deque()

        def score(i: int) -> Score:
            if not np.isfinite(log_likelihood[i]):
                raise ValueError(
                    "a log-likelihood is not finite: the parameters contain NaN or infinity; "
                    "evaluate an earlier checkpoint"
                )
            num_tokens = len(truncated[i].continuation)
            return Score(float(log_likelihood[i]), bool(is_greedy[i]), num_tokens)

        def fetch() -> None:
            """Waits for the oldest batch and adds its results to those of the requests."""
            batch, results = in_flight.popleft()
            log_prob_PN, is_top_PN = (np.asarray(array) for array in results)
            finished: set[int] = set()
            for device, request_N in enumerate(batch.request):
                n = len(request_N)  # the rest is padding
                # A request has one entry per token of its continuation.
                np.add.at(log_likelihood, request_N, log_prob_PN[device, :n].astype(np.float64))
                np.logical_and.at(is_greedy, request_N, is_top_PN[device, :n])
                finished.update(request_N.tolist())
            done({i: score(i) for i in finished})

        for batch in prefix_tree.batches(rows, self.batch_tokens, self.mesh.size):
            in_flight.append((batch, self._score(batch)))
            if len(in_flight) > MAX_IN_FLIGHT:
                fetch()
        while in_flight:
            fetch()
        return [score(i) for i in range(len(requests))]

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        is_complete: Callable[[list[int]], bool],
        sampling: Sampling | None = None,
        done: Callable[[int, list[int]], None] = lambda index, tokens: None,
    ) -> list[list[int]]:
        """Returns at most `max_new_tokens` new tokens per context, in order.

        A completion depends on its context, its index and the seed, not on the other contexts.

        Args:
          contexts: token ids; a context loses its first tokens if `max_length` leaves no room.
          max_new_tokens: per context.
          is_complete: (new tokens) -> whether the context needs no more; those it has are kept.
          sampling: how tokens are drawn; None: the most probable one.
          done: called with the index of each context and its new tokens.

        Raises:
          ValueError: a context is empty, or `max_length` leaves no room for any.
        """
        max_context = self.max_length - max_new_tokens
        if max_context < 1:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} leaves no room for a context: the model reads at "
                f"most {self.max_length} tokens; generate fewer, or raise max_length"
            )
        if any(not len(context) for context in contexts):
            raise ValueError("a context is empty: give at least BOS")
        truncated = [list(context)[-max_context:] for context in contexts]
        self._check_ids(*(np.asarray(context) for context in truncated))
        completions: list[list[int]] = [[] for _ in contexts]
        lengths = [len(context) for context in truncated]
        for batch, rows, length in prefix_tree.context_batches(
            lengths, self.max_length, self.batch_tokens, self.mesh.size
        ):
            new = continue_batch(
                self.weights,
                [truncated[i] for i in batch],
                batch,
                shape=(rows, length),
                max_new_tokens=max_new_tokens,
                is_complete=is_complete,
                sampling=sampling or Sampling(),
                place=self._place,
            )
            for i, tokens in zip(batch, new, strict=True):
                completions[i] = tokens
                done(i, tokens)
        return completions

    def _check_ids(self, *arrays: np.ndarray) -> None:
        """Raises ValueError for an id without a row: a device would read another row silently."""
        highest = max((int(array.max()) for array in arrays if array.size), default=0)
        lowest = min((int(array.min()) for array in arrays if array.size), default=0)
        if not 0 <= lowest <= highest < self.config.vocab_size:
            raise ValueError(
                f"got the token ids {lowest} to {highest}, expected 0 to"
                f" {self.config.vocab_size - 1}: the model has vocab_size="
                f"{self.config.vocab_size}; use the tokenizer that it was trained with"
            )

    def _place(self, array: np.ndarray) -> Array:
        """Distributes an array of B rows over the devices."""
        return jax.device_put(array, NamedSharding(self.mesh, P("rows")))

    def _score(self, batch: PackedTrees) -> tuple[Array, Array]:
        """Starts the computation of a batch; returns what `_score` does.

        The scored positions of all devices are padded to the same number N, a multiple of the
        tokens of a device. Since mostly a token is followed by at most one scored target, N is
        nearly always that number, so that a row length has one program.
        """
        rows, length = batch.tokens_BT.shape
        self._check_ids(batch.tokens_BT, *batch.target)
        longest = max(len(place) for place in batch.place)
        tokens_per_device = rows * length // self.mesh.size
        size = max(HEAD_CHUNK, -(-longest // tokens_per_device) * tokens_per_device)

        def pad(by_device: Iterable[np.ndarray]) -> np.ndarray:
            return np.stack([np.pad(array, (0, size - len(array))) for array in by_device])

        on_host = ScoreBatch(
            batch.tokens_BT,
            batch.positions_BT,
            batch.ends_BT,
            pad(batch.place),
            pad(batch.target),
            np.int32(-(-longest // HEAD_CHUNK)),
        )
        return _score(self.mesh, self.weights, on_host)


@functools.partial(jax.jit, static_argnums=0)
def _score(mesh: Mesh, weights: decoder.Weights, batch: ScoreBatch) -> tuple[Array, Array]:
    """Returns the log-probability of each target, and whether it is the most probable, [P, N]."""
    rows = P("rows")
    return jax.shard_map(
        _score_on_device,
        mesh=mesh,
        in_specs=(P(), ScoreBatch(rows, rows, rows, rows, rows, P())),
        out_specs=(rows, rows),
        check_vma=False,
    )(weights, batch)


def _score_on_device(weights: decoder.Weights, batch: ScoreBatch) -> tuple[Array, Array]:
    """Computes what `_score` returns for the rows of one device, [1, N]."""
    model = decoder.merge(weights)
    x_BTD = hidden_states(model, batch.tokens_BT, batch.positions_BT, batch.ends_BT)
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])  # [B * T / P, D]
    index_N, target_N = batch.index_PN[0], batch.target_PN[0]

    def score_chunk(number: Array, results: tuple[Array, Array]) -> tuple[Array, Array]:
        start = number * HEAD_CHUNK
        index_W = jax.lax.dynamic_slice_in_dim(index_N, start, HEAD_CHUNK)
        target_W = jax.lax.dynamic_slice_in_dim(target_N, start, HEAD_CHUNK)
        logits_WV = model.logits(x_ND[index_W])
        logit_W = jnp.take_along_axis(logits_WV, target_W[:, None], axis=-1)[:, 0]
        # log softmax(logits)[target] = logit[target] - log sum exp(logits)
        log_prob_W = logit_W - jax.nn.logsumexp(logits_WV, axis=-1)
        # argmax(logits) == target would take four times as long as all the rest on a CPU.
        is_top_W = logit_W == jnp.max(logits_WV, axis=-1)
        write = jax.lax.dynamic_update_slice_in_dim
        return (
            write(results[0], log_prob_W, start, axis=0),
            write(results[1], is_top_W, start, axis=0),
        )

    N = index_N.shape[0]
    zeros = (jnp.zeros(N, jnp.float32), jnp.zeros(N, bool))
    log_prob_N, is_top_N = jax.lax.fori_loop(0, batch.num_chunks, score_chunk, zeros)
    return log_prob_N[None], is_top_N[None]

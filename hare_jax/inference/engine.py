"""The engine behind all evaluation: scores and continues token ids, on all devices.

    engine = Engine(config, params, max_length=2048, batch_tokens=8192)
    engine.scores([Request([1, 415, 5565], [349, 3890])])      # [Score(-7.31, False, 2)]
    engine.generate([[1, 415, 5565]], max_new_tokens=64, stopped=lambda tokens: 2 in tokens)

A score depends neither on the batch nor on other requests, though what they begin with alike is
read once (prefix_tree.py). Rows are shared out over the devices, parameters lie on each of them.
The head sees only the positions that are scored. Log-softmax is float32. One program is compiled
for each row length.

Shape legend: B rows, T tokens, D model width, V vocabulary, N scored positions, W places of the
head at a time; G, R, K as in attention.py.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import Model
from hare_jax.inference import prefix_tree
from hare_jax.inference.batch_decoding import Sampling, continue_batch
from hare_jax.inference.prefix_tree import Packed
from hare_jax.inference.requests import Done, Score, ScoreRequest, truncated, unheard
from hare_jax.inference.tree_attention import hidden_states
from hare_jax.model import decoder

HEAD_POSITIONS = 128  # whose logits exist at one time: 128 x 32 000 in float32 are 16 MB
IN_FLIGHT = 2  # batches that are computed while the host prepares the next one


class InferenceEngine:
    """`max_length`: tokens the model reads at most; a longer context loses its first tokens.

    `batch_tokens`: tokens of a batch on each device, padding included. `devices`: all of this
    process, unless they are given.
    """

    def __init__(
        self,
        config: Model,
        params: decoder.Params,
        *,
        max_length: int,
        batch_tokens: int,
        devices: Sequence[jax.Device] | None = None,
    ):
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

    def scores(self, requests: Sequence[ScoreRequest], done: Done = unheard) -> list[Score]:
        """One score a request, in order; `done` is told of each once, as they become known.

        Raises ValueError for an empty context or continuation, for a continuation longer than
        `max_length`, and for parameters that give no finite log-likelihood.
        """
        readable = [truncated(request, self.max_length)[0] for request in requests]
        total, is_greedy = np.zeros(len(readable)), np.ones(len(readable), bool)
        packed = prefix_tree.rows(prefix_tree.trees(readable))
        parts = self.mesh.size
        waiting: deque[tuple[Packed, tuple[Array, Array]]] = deque()

        def fetch() -> None:
            batch, answer = waiting.popleft()
            log_prob_PN, is_top_PN = (np.asarray(part) for part in answer)
            known: set[int] = set()
            for part, request_N in enumerate(batch.request):
                n = len(request_N)
                np.add.at(total, request_N, log_prob_PN[part, :n].astype(np.float64))
                np.logical_and.at(is_greedy, request_N, is_top_PN[part, :n])
                known.update(request_N.tolist())
            done({i: score(i) for i in known})

        def score(i: int) -> Score:
            if not np.isfinite(total[i]):
                raise ValueError(
                    "a log-likelihood is not finite: the parameters hold NaN or infinity; "
                    "evaluate an earlier checkpoint"
                )
            return Score(float(total[i]), bool(is_greedy[i]), len(readable[i].continuation))

        for batch in prefix_tree.batches(packed, self.batch_tokens, parts):
            waiting.append((batch, self._score(batch)))
            if len(waiting) > IN_FLIGHT:
                fetch()
        while waiting:
            fetch()
        return [score(i) for i in range(len(readable))]

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stopped: Callable[[list[int]], bool],
        sampling: Sampling | None = None,
        done: Callable[[int, list[int]], None] = lambda number, tokens: None,
    ) -> list[list[int]]:
        """Up to `max_new_tokens` tokens after each context, in order; `done` is told of each.

        `stopped(tokens)`: whether a row needs no more tokens; those it has stay. A context loses
        its first tokens where `max_length` leaves no room for it. A continuation depends on its
        context, its place and the seed, not on the other contexts.

        Raises ValueError for an empty context, or where `max_length` leaves no room for any.
        """
        room = self.max_length - max_new_tokens
        if room < 1 or not all(len(context) for context in contexts):
            raise ValueError(
                f"{max_new_tokens} new tokens after contexts of at least one (BOS): the model reads"
                f" {self.max_length} at most; give a larger max_length or ask for fewer tokens"
            )
        readable = [list(context[-room:]) for context in contexts]
        answers: list[list[int]] = [[] for _ in readable]
        lengths = [len(context) for context in readable]
        for batch, rows, length in prefix_tree.context_batches(
            lengths, self.max_length, self.batch_tokens, self.mesh.size
        ):
            new = continue_batch(
                self.weights,
                [readable[i] for i in batch],
                batch,
                rows=rows,
                length=length,
                max_new_tokens=max_new_tokens,
                stopped=stopped,
                sampling=sampling or Sampling(),
                place=self._place,
            )
            for i, tokens in zip(batch, new, strict=True):
                answers[i] = tokens
                done(i, tokens)
        return answers

    def _place(self, array: np.ndarray) -> Array:
        return jax.device_put(array, NamedSharding(self.mesh, P("rows")))

    def _score(self, batch: Packed) -> tuple[Array, Array]:
        rows, length = batch.tokens_BT.shape
        most = max(len(place) for place in batch.place)
        # Mostly at most one pair a token, so that a row length is one program.
        places = rows * length // self.mesh.size
        size = max(HEAD_POSITIONS, -(-most // places) * places)

        def padded(parts: Iterable[np.ndarray]) -> np.ndarray:
            return np.stack([np.pad(part, (0, size - len(part))) for part in parts])

        return _score(
            self.mesh,
            self.weights,
            batch.tokens_BT,
            batch.positions_BT,
            batch.ends_BT,
            padded(batch.place),
            padded(batch.target),
            np.int32(-(-most // HEAD_POSITIONS)),
        )


@functools.partial(jax.jit, static_argnums=0)
def _score(
    mesh: Mesh,
    weights: decoder.Weights,
    tokens_BT: Array,
    positions_BT: Array,
    ends_BT: Array,
    index_PN: Array,
    target_PN: Array,
    chunks: Array,
) -> tuple[Array, Array]:
    """Log-probability of each target, and whether it is the most probable token, [P, N]."""

    def local(
        weights: decoder.Weights,
        tokens_BT: Array,
        positions_BT: Array,
        ends_BT: Array,
        index_1N: Array,
        target_1N: Array,
        chunks: Array,
    ) -> tuple[Array, Array]:
        model = decoder.merge(weights)
        x_BTD = hidden_states(model, tokens_BT, positions_BT, ends_BT)
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])

        def chunk(number: Array, answers: tuple[Array, Array]) -> tuple[Array, Array]:
            start = number * HEAD_POSITIONS
            index_W = jax.lax.dynamic_slice_in_dim(index_1N[0], start, HEAD_POSITIONS)
            target_W = jax.lax.dynamic_slice_in_dim(target_1N[0], start, HEAD_POSITIONS)
            logits_WV = model.logits(x_ND[index_W])
            logit_W = jnp.take_along_axis(logits_WV, target_W[:, None], axis=-1)[:, 0]
            log_prob_W = logit_W - jax.nn.logsumexp(logits_WV, axis=-1)
            # Not argmax(logits) == target: on CPU that takes four times as long as all the rest.
            is_top_W = logit_W == jnp.max(logits_WV, axis=-1)
            put = jax.lax.dynamic_update_slice_in_dim
            return (
                put(answers[0], log_prob_W, start, axis=0),
                put(answers[1], is_top_W, start, axis=0),
            )

        N = index_1N.shape[1]
        nothing = (jnp.zeros(N, jnp.float32), jnp.zeros(N, bool))
        log_prob_N, is_top_N = jax.lax.fori_loop(0, chunks, chunk, nothing)
        return log_prob_N[None], is_top_N[None]

    rows = P("rows")
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(), rows, rows, rows, rows, rows, P()),
        out_specs=(rows, rows),
        check_vma=False,
    )(weights, tokens_BT, positions_BT, ends_BT, index_PN, target_PN, chunks)

"""The engine of evaluation: shared prefixes change no score, batches change no completion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
import pytest

from hare_jax.config import AttentionKernel, Matmul, Model, Remat
from hare_jax.inference import engine as evaluation_engine
from hare_jax.inference import prefix_tree
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.generate import generate
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.sampling import Sampling
from hare_jax.model import decoder

pytestmark = pytest.mark.slow

EOS = 2


@pytest.fixture
def params(model: Model) -> decoder.Params:
    # Larger than at the start of training, so that what a token sees matters.
    return jax.tree.map(lambda p: 3 * p, jax.jit(lambda: decoder.init(model, 0))())


def engine(
    model: Model, params: decoder.Params, max_length: int = 96, devices: int | None = None
) -> InferenceEngine:
    chosen = jax.devices()[:devices]
    return InferenceEngine(model, params, max_length=max_length, batch_tokens=256, devices=chosen)


def requests() -> list[ScoreRequest]:
    """Items of several choices after one context, questions after common examples, odd ones."""
    rng = np.random.default_rng(0)

    def ids(n: int) -> list[int]:
        return rng.integers(3, 64, n).tolist()

    few_shot = ids(50)
    made = []
    for _ in range(6):
        context = ids(int(rng.integers(1, 40)))
        made += [ScoreRequest(context, ids(int(rng.integers(1, 12)))) for _ in range(4)]
    for _ in range(8):
        question = few_shot + ids(int(rng.integers(1, 20)))
        made += [ScoreRequest(question, [choice]) for choice in (3, 4, 5)]
    # The same again; a context inside another's continuation; one that loses its beginning.
    return [
        *made,
        made[0],
        ScoreRequest(few_shot[:5], few_shot[5:30]),
        ScoreRequest(few_shot * 3, [7, 8]),
    ]


def one_by_one(
    model: Model, params: decoder.Params, asked: Sequence[ScoreRequest], max_length: int
) -> list[tuple[float, bool]]:
    """The oracle: each request in a row of its own, through the model's own forward pass."""
    weights = decoder.Weights.of(model, params)

    @jax.jit
    def logits(tokens_BT: jax.Array) -> jax.Array:
        positions_BT = jax.numpy.arange(tokens_BT.shape[1], dtype=np.int32)[None]
        whole = decoder.merge(weights)
        return whole.logits(whole(tokens_BT, positions_BT, None))

    answers = []
    for context, continuation in asked:
        tokens = [*context, *continuation][-max_length - 1 :]
        padded = np.zeros((1, max_length), np.int32)
        padded[0, : len(tokens) - 1] = tokens[:-1]
        log_prob_TV = np.asarray(jax.nn.log_softmax(logits(padded)[0], axis=-1))
        at = len(tokens) - 1 - len(continuation)
        rows = log_prob_TV[at : len(tokens) - 1]
        total = rows[np.arange(len(continuation)), list(continuation)].sum()
        answers.append((float(total), rows.argmax(-1).tolist() == list(continuation)))
    return answers


@pytest.mark.parametrize("window", [None, 9])
def test_scores_equal_those_of_requests_alone(
    model: Model, params: decoder.Params, window: int | None
) -> None:
    model = dataclasses.replace(model, sliding_window=window)
    asked = requests()
    scores = engine(model, params).scores(asked)
    expected = one_by_one(model, params, asked, 96)
    np.testing.assert_allclose(
        [score.log_likelihood for score in scores], [e[0] for e in expected], atol=1e-4
    )
    assert [score.is_greedy for score in scores] == [e[1] for e in expected]
    assert [score.tokens for score in scores] == [len(r.continuation) for r in asked]


def test_scores_do_not_depend_on_the_number_of_devices(
    model: Model, params: decoder.Params
) -> None:
    one = engine(model, params, devices=1).scores(requests())
    eight = engine(model, params).scores(requests())
    np.testing.assert_allclose(
        [s.log_likelihood for s in one], [s.log_likelihood for s in eight], atol=1e-4
    )


def same(got: Sequence[Score], expected: Sequence[Score]) -> bool:
    pairs = list(zip(got, expected, strict=True))
    return [one[1:] for one, _ in pairs] == [other[1:] for _, other in pairs] and np.allclose(
        [one[0] for one, _ in pairs], [other[0] for _, other in pairs], atol=1e-4
    )


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_scores_do_not_depend_on_the_batch_or_its_order(
    model: Model, params: decoder.Params, batch_tokens: int
) -> None:
    asked = requests()
    expected = engine(model, params, devices=1).scores(asked)
    other = InferenceEngine(
        model, params, max_length=96, batch_tokens=batch_tokens, devices=jax.devices()[:1]
    )
    shuffled = np.random.default_rng(1).permutation(len(asked)).tolist()
    assert same(other.scores([asked[i] for i in shuffled]), [expected[i] for i in shuffled])


def test_how_it_was_trained_changes_no_score(model: Model, params: decoder.Params) -> None:
    """Neither a kernel that is not here, nor 8 bits, whose rounding is that of a whole batch."""
    trained = dataclasses.replace(
        model, attention=AttentionKernel.CUDNN, remat=Remat.FULL, matmul=Matmul.FP8
    )
    scores = [engine(config, params, devices=1).scores(requests()) for config in (model, trained)]
    assert same(*scores)


def test_only_scored_positions_meet_the_head(
    model: Model, params: decoder.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Choices of one token after each of 3 contexts: 3 positions, whatever the batch holds."""
    monkeypatch.setattr(evaluation_engine, "HEAD_CHUNK", 2)
    score, chunks = evaluation_engine._score, []
    monkeypatch.setattr(
        evaluation_engine,
        "_score",
        lambda *args: chunks.append(int(args[-1].num_chunks)) or score(*args),
    )
    engine(model, params, devices=1).scores(
        [ScoreRequest([1, *range(3, n)], [5]) for n in (10, 20, 30)]
    )
    assert chunks == [2]


def test_each_score_is_told_once(model: Model, params: decoder.Params) -> None:
    told: dict[int, float] = {}

    def done(scores: dict[int, Score]) -> None:
        assert not told.keys() & scores.keys()
        told.update({i: score.log_likelihood for i, score in scores.items()})

    scores = engine(model, params).scores(requests(), done)
    assert told == {i: score.log_likelihood for i, score in enumerate(scores)}


def test_what_begins_alike_is_read_once() -> None:
    context = list(range(100, 200))
    choices = [
        ScoreRequest(context, [1, 2, 3]),
        ScoreRequest(context, [1, 9]),
        ScoreRequest(context, [4, 5]),
    ]
    (tree,) = prefix_tree.trees(choices)
    assert len(tree) == 100 + 3  # 1 2 once for two choices, 4 for the third
    assert [
        len(t) for t in prefix_tree.trees([ScoreRequest([1], [5]), ScoreRequest([2, 3], [5])])
    ] == [1, 2]


def test_the_layout_of_the_docstring() -> None:
    asked = [
        ScoreRequest([1, 5, 6], [7, 8]),
        ScoreRequest([1, 5, 6], [9, 3]),
        ScoreRequest([1, 2], [4]),
    ]
    (tree,) = prefix_tree.trees(asked)
    assert tree.tokens.tolist() == [1, 2, 5, 6, 7, 9]
    assert tree.positions.tolist() == [0, 1, 1, 2, 3, 3]
    assert tree.ends.tolist() == [6, 2, 6, 6, 5, 6]
    assert sorted(tree.pairs_N3.tolist()) == [[1, 4, 2], [3, 7, 0], [3, 9, 1], [4, 8, 0], [5, 3, 1]]


def test_batches_hold_every_pair_once_in_few_shapes() -> None:
    rng = np.random.default_rng(1)
    asked = [
        ScoreRequest(rng.integers(3, 64, rng.integers(1, 700)).tolist(), [1, 2, 3])
        for _ in range(200)
    ]
    packed = list(
        prefix_tree.batches(prefix_tree.pack_rows(prefix_tree.trees(asked)), 2048, num_devices=2)
    )
    seen = np.concatenate([np.concatenate(batch.request) for batch in packed])
    assert sorted(seen.tolist()) == sorted([*range(200)] * 3)
    assert len({batch.tokens_BT.shape for batch in packed}) <= 6
    for batch in packed:
        used = [len(np.unique(index)) for index in batch.place]
        assert max(used) - min(used) <= max(used) / 2 or len(packed) == 1 or batch is packed[-1]


@pytest.mark.parametrize("window", [None, 9])
def test_greedy_completions_equal_those_of_the_model(
    model: Model, params: decoder.Params, window: int | None
) -> None:
    model = dataclasses.replace(model, sliding_window=window)
    rng = np.random.default_rng(2)
    contexts = [rng.integers(3, 64, n).tolist() for n in (1, 40, 7, 33, 2, 20, 11, 5, 9, 3)]
    found = engine(model, params).generate(
        contexts, max_new_tokens=20, is_complete=lambda tokens: EOS in tokens
    )
    cut = [tokens[: tokens.index(EOS)] if EOS in tokens else tokens for tokens in found]
    weights = decoder.Weights.of(model, params)
    assert cut == generate(weights, contexts, max_new_tokens=20, eos_ids=[EOS])


def test_generation_ends_when_all_rows_have_stopped(model: Model, params: decoder.Params) -> None:
    asked = []

    def is_complete(tokens: list[int]) -> bool:
        asked.append(len(tokens))
        return True

    (tokens,) = engine(model, params).generate([[1, 5]], max_new_tokens=64, is_complete=is_complete)
    assert len(tokens) == asked[0] < 64 and len(asked) == 1


def test_sampled_completions_depend_on_the_seed_and_the_place_alone(
    model: Model, params: decoder.Params
) -> None:
    def sample(contexts: list[list[int]], seed: int) -> list[list[int]]:
        return engine(model, params).generate(
            contexts,
            max_new_tokens=16,
            is_complete=lambda tokens: False,
            sampling=Sampling(temperature=1.0, top_k=8, seed=seed),
        )

    first = sample([[1, 5], [1, 6]], 0)
    assert sample([[1, 5], [1, 9, 9, 9]], 0)[0] == first[0]
    assert sample([[1, 5], [1, 6]], 1) != first
    assert sample([[1, 5], [1, 5]], 0)[1] != first[0]


def test_parameters_that_are_no_numbers_are_refused(model: Model, params: decoder.Params) -> None:
    broken = jax.tree.map(lambda p: p * np.nan, params)
    with pytest.raises(ValueError, match=r"not finite.*evaluate an earlier checkpoint"):
        engine(model, broken).scores([ScoreRequest([1], [5])])


def test_no_room_for_a_context_is_refused(model: Model, params: decoder.Params) -> None:
    with pytest.raises(
        ValueError, match="the model reads at most 96 tokens; generate fewer, or raise max_length"
    ):
        engine(model, params).generate([[1]], max_new_tokens=96, is_complete=lambda tokens: True)


def test_the_cost_of_an_evaluation_is_what_the_engine_computes(
    model: Model, params: decoder.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.evaluation_cost import Counter

    computed = 0

    def reading(
        self: InferenceEngine, batch: prefix_tree.PackedTrees
    ) -> tuple[np.ndarray, np.ndarray]:
        nonlocal computed
        computed += batch.tokens_BT.size
        longest = max(map(len, batch.place))
        return np.zeros((1, longest)), np.ones((1, longest), bool)

    def continuing(
        weights: object,
        contexts: Sequence[object],
        numbers: object,
        *,
        shape: tuple[int, int],
        max_new_tokens: int,
        **others: object,
    ) -> list[list[int]]:
        nonlocal computed
        computed += shape[0] * (shape[1] + max_new_tokens)
        return [[] for _ in contexts]

    counter = Counter(model, max_length=96, batch_tokens=256)
    one = engine(model, params, devices=1)
    monkeypatch.setattr(InferenceEngine, "_score", reading)
    counter.scores(requests())
    one.scores(requests())
    assert counter.computed == computed > 0
    assert counter.requests == len(requests())
    monkeypatch.setattr(evaluation_engine, "continue_batch", continuing)
    contexts = [request.context for request in requests()]
    told: list[int] = []
    counter.generate(
        contexts, max_new_tokens=9, is_complete=bool, done=lambda number, _: told.append(number)
    )
    one.generate(contexts, max_new_tokens=9, is_complete=bool)
    assert counter.computed == computed
    assert told == list(range(len(contexts)))


def test_an_id_without_a_row_is_refused(model: Model) -> None:
    tiny = engine(model, decoder.init(model, 0))
    for request in (ScoreRequest([1, 64], [5]), ScoreRequest([1], [5, 64])):
        with pytest.raises(ValueError, match="token ids 0 to 64, expected 0 to 63: the model has"):
            tiny.scores([request])
    with pytest.raises(ValueError, match="token ids 1 to 64, expected 0 to 63"):
        tiny.generate([[1, 64]], max_new_tokens=1, is_complete=lambda tokens: True)

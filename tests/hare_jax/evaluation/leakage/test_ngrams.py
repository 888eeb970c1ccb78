"""N-gram accuracy by one forward pass is that of greedy decoding, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hare_jax.config import LeakageDefinition, Model
from hare_jax.evaluation.leakage import ngrams
from hare_jax.evaluation.leakage.items import AuditItem
from hare_jax.evaluation.leakage.ngrams import Definition
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.generate import generate
from hare_jax.model import decoder
from tests.hare_jax.function_tokenizer import FunctionTokenizer

BOS, EOS, SPACE = 1, 2, 29
LENGTH = 64  # tokens the model reads at most


class Letters:
    """A token a letter; but two equal letters at the end of a text are one token, their own.

    So a text's beginning, tokenized anew, may have other ids than it has in the text.
    """

    bos_id, adds_bos = BOS, True
    alphabet = "abcdefghijklmnopqrstuvwxyz ?"

    def encode(self, text: str) -> list[int]:
        ids = [3 + self.alphabet.index(letter) for letter in text]
        merged = len(ids) > 1 and ids[-1] == ids[-2]
        return [*ids[:-2], ids[-1] + len(self.alphabet)] if merged else ids

    def decode(self, ids: Sequence[int]) -> str:
        size = len(self.alphabet)
        return "".join(
            self.alphabet[i - 3] if i < 3 + size else 2 * self.alphabet[i - 3 - size] for i in ids
        )


LETTERS = Letters()
TOKENIZER = FunctionTokenizer(LETTERS.encode, LETTERS.decode, BOS, EOS)


def _params(model: Model, seed: int) -> decoder.Params:
    """What comes next depends on what was read, and is a letter."""
    params = decoder.init(model, seed)
    head_DV = params["head_DV"]
    for other in (0, 1, 2, *range(31, 64)):
        head_DV = head_DV.at[:, other].set(head_DV[:, 3 + other % 28] / 2)
    return params | {"embedding_VD": params["embedding_VD"] * 30, "head_DV": head_DV}


def _texts(model: Model, params: decoder.Params, rng: np.random.Generator) -> list[str]:
    """What the model writes itself, some of it changed: some n-grams hit, some do not."""
    weights = decoder.Weights.of(model, params)
    prompts = [[BOS, *(3 + rng.integers(28, size=4)).tolist(), SPACE] for _ in range(24)]
    written = generate(weights, prompts, max_new_tokens=50, eos_ids=[EOS])
    texts = []
    for prompt, ids in zip(prompts, written, strict=True):
        letters = [*prompt[1:], *ids]
        for place in rng.integers(5, len(letters), size=int(rng.integers(4))):
            letters[place] = int(3 + rng.integers(28))
        texts.append(LETTERS.decode(letters[: int(rng.integers(9, 53))]))
    return texts


def _generated_hits(
    model: Model, params: decoder.Params, texts: list[str], definition: Definition
) -> list[list[bool]]:
    """By the definition, word for word: decode each prefix greedily, compare ids."""
    n, prompts, wanted = definition.n, [], []
    for ids in map(LETTERS.encode, texts):
        last = min(len(ids), definition.max_length) - n
        for start in np.linspace(2, last, 5, dtype=int).tolist():
            prefix = ids[:start]
            if definition.kind is LeakageDefinition.BENBENCH:
                prefix = LETTERS.encode(LETTERS.decode(prefix))
            prompts.append([BOS, *prefix])
            wanted.append(ids[start : start + n])
    weights = decoder.Weights.of(model, params)
    new = generate(weights, prompts, max_new_tokens=n, eos_ids=[EOS])
    hits = [given == gold for given, gold in zip(new, wanted, strict=True)]
    return [hits[k : k + 5] for k in range(0, len(hits), 5)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LeakageDefinition)
def test_one_forward_pass_hits_where_greedy_decoding_does(
    model: Model, kind: LeakageDefinition
) -> None:
    definition = Definition(kind, n=5, num_prefixes=5, max_length=LENGTH)
    params = _params(model, 0)
    texts = _texts(model, params, np.random.default_rng(1))
    items = [AuditItem(str(k), text[:4], text[5:]) for k, text in enumerate(texts)]
    engine = InferenceEngine(
        model, params, max_length=LENGTH, batch_tokens=512, devices=jax.devices()[:1]
    )
    measured = ngrams.measure(items, engine.scores, TOKENIZER, definition)
    hits = [answer.hits for answer in measured if answer is not None]
    assert len(hits) == len(texts)
    assert hits == _generated_hits(model, params, [i.text for i in items], definition)
    share = np.mean(hits)
    assert 0.05 < share < 0.95  # or the equality says little
    accuracies = [answer.accuracy for answer in measured if answer is not None]
    assert accuracies == [sum(h) / 5 for h in hits]


def test_the_two_definitions_differ_where_a_prefix_is_tokenized_anew() -> None:
    text = "abccdefghh ?"
    ids = LETTERS.encode(text)
    asked = {
        kind: ngrams.requests(
            ids, LETTERS.encode, LETTERS.decode, BOS, Definition(kind, 2, 5, LENGTH)
        )
        for kind in LeakageDefinition
    }
    contexts = {kind: [list(r.context) for r in requests] for kind, requests in asked.items()}
    starts = ngrams.prefix_lengths(len(ids), Definition(LeakageDefinition.IDS, 2, 5, LENGTH))
    assert starts == [2, 4, 6, 8, 10]
    assert contexts[LeakageDefinition.IDS][1] == [BOS, *ids[:4]]  # a b c c
    assert contexts[LeakageDefinition.BENBENCH][1] == [BOS, ids[0], ids[1], ids[2] + 28]
    assert contexts[LeakageDefinition.BENBENCH][0] == contexts[LeakageDefinition.IDS][0]
    for requests in asked.values():
        assert [list(r.continuation) for r in requests[:-1]] == [ids[s : s + 2] for s in starts]
        assert requests[-1] == ([BOS], ids)  # the whole text, for its loss


def test_places_are_those_of_the_definition() -> None:
    definition = Definition(LeakageDefinition.IDS, n=5, num_prefixes=5, max_length=40)
    assert ngrams.prefix_lengths(27, definition) == [2, 7, 12, 17, 22]
    assert ngrams.prefix_lengths(7, definition) == [2, 2, 2, 2, 2]
    assert ngrams.prefix_lengths(6, definition) == []  # too short: len - n - 1 = 0
    # Tokens beyond max_length are not read.
    assert ngrams.prefix_lengths(400, definition) == [2, 10, 18, 26, 35]


@pytest.mark.slow
def test_loss_is_that_of_the_whole_text(model: Model) -> None:
    params = _params(model, 0)
    definition = Definition(LeakageDefinition.IDS, 5, 5, LENGTH)
    engine = InferenceEngine(
        model, params, max_length=LENGTH, batch_tokens=512, devices=jax.devices()[:1]
    )
    item = AuditItem("1", "how many hares", "seven")
    (answer,) = ngrams.measure([item], engine.scores, TOKENIZER, definition)
    ids = LETTERS.encode("how many hares seven")
    tokens_BT = jnp.array([[BOS, *ids[:-1]]], jnp.int32)
    read = decoder.merge(decoder.Weights.of(model, params))
    positions_BT = jnp.arange(len(ids), dtype=jnp.int32)[None]
    logits_TV = read.logits(read(tokens_BT, positions_BT, jnp.ones_like(tokens_BT))[0])
    log_probs_TV = jax.nn.log_softmax(logits_TV, axis=-1)
    expected = -float(np.mean([log_probs_TV[t, i] for t, i in enumerate(ids)]))
    assert answer is not None
    assert answer.loss == pytest.approx(expected, abs=1e-5)
    assert ngrams.perplexity([1.0, 3.0]) == pytest.approx(math.exp(2.0))


def test_a_tokenizer_may_have_no_bos() -> None:
    ids = LETTERS.encode("how many hares")
    definition = Definition(LeakageDefinition.IDS, 5, 5, LENGTH)
    with_bos, without = (
        ngrams.requests(ids, LETTERS.encode, LETTERS.decode, bos_id, definition)
        for bos_id in (BOS, None)
    )
    assert [[BOS, *context] for context, _ in without[:-1]] == [c for c, _ in with_bos[:-1]]
    assert without[-1] == (ids[:1], ids[1:])


def test_a_text_that_is_too_short_has_no_answer(model: Model) -> None:
    definition = Definition(LeakageDefinition.IDS, 5, 5, LENGTH)
    asked = ngrams.measure(
        [AuditItem("1", "a", "b")],
        lambda requests: [],
        TOKENIZER,
        definition,
    )
    assert asked == [None]

from __future__ import annotations

import dataclasses

import jax
import pytest

from hare_jax.config import Evaluation, Model
from hare_jax.evaluation.held_out import samples
from hare_jax.inference.generate import generate
from hare_jax.model import decoder
from tests.hare_jax.function_tokenizer import FunctionTokenizer

CONFIG = Evaluation(samples=3, prompt_tokens=4, sample_tokens=5, temperature=0)


def encode(text: str) -> list[int]:
    return [3 + ord(character) - ord("a") for character in text]


def decode(tokens: list[int]) -> str:
    return "".join(chr(ord("a") + token - 3) for token in tokens)


TOKENIZER = FunctionTokenizer(encode, decode)


def prompts(*names: str) -> list[dict[str, str]]:
    return [{"source": name[0], "text": name} for name in names]


@pytest.mark.slow
def test_each_prompt_is_completed_by_the_model(model: Model) -> None:
    params = jax.tree.map(lambda x: 3 * x, decoder.init(model, 0))
    given = prompts("website", "code")
    weights = decoder.Weights.of(model, params)
    made = samples.complete(weights, CONFIG, given, TOKENIZER)
    for prompt, sample in zip(given, made, strict=True):
        tokens = [1, *encode(prompt["text"])[:4]]
        (expected,) = generate(weights, [tokens], max_new_tokens=5, eos_ids=[2])
        assert sample == {
            "source": prompt["source"],
            "prompt": prompt["text"][:4],
            "completion": decode(expected),
        }
    assert made[0]["completion"] != made[1]["completion"]


def test_sources_take_turns() -> None:
    ordered = samples.alternate_sources(prompts("a1", "a2", "a3", "b1", "c1", "c2"))
    assert [prompt["text"] for prompt in ordered] == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_no_more_samples_than_asked_for(model: Model) -> None:
    weights = decoder.Weights.of(model, decoder.init(model, 0))
    given = prompts("aa", "ab", "ba", "ca")
    made = samples.complete(weights, CONFIG, given, TOKENIZER)
    assert [sample["prompt"] for sample in made] == ["aa", "ba", "ca"]
    none = dataclasses.replace(CONFIG, samples=0)
    assert samples.complete(weights, none, given, TOKENIZER) == []


def test_the_space_between_prompt_and_completion_is_kept() -> None:
    def joined(tokens: list[int]) -> str:
        """As SentencePiece does: each token brings its space, the first of a text drops it."""
        return " ".join(str(token) for token in tokens)

    assert samples.decode_after([7, 8], [9, 10], joined) == " 9 10"


def test_a_character_cut_in_two_falls_to_the_completion() -> None:
    def utf8(tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    assert samples.decode_after([*b"caf", 0xC3], [0xA9, ord("s")], utf8) == "�s"

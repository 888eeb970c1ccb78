"""Completions of the beginnings of held-out texts, for people to read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hare_jax.config import Evaluation
from hare_jax.inference.generate import generate
from hare_jax.inference.sampling import Sampling
from hare_jax.inference.tokenizers import Decode, Tokenizer
from hare_jax.model import decoder


def complete(
    weights: decoder.Weights,
    config: Evaluation,
    prompts: Sequence[Mapping[str, str]],
    tokenizer: Tokenizer,
) -> list[dict[str, str]]:
    """Completes `config.samples` of the prompts.

    Args:
      weights: the model, for inference.
      config: the number of samples, their lengths in tokens, and how tokens are drawn.
      prompts: [{"source", "text"}]; BOS and the first `config.prompt_tokens` tokens of a text are
        completed.
      tokenizer: of the model.

    Returns:
      [{"source", "prompt", "completion"}]
    """
    chosen = alternate_sources(prompts)[: config.samples]
    if not chosen:
        return []
    assert tokenizer.bos_id is not None  # every baked document begins with BOS
    beginnings = [tokenizer.encode(prompt["text"])[: config.prompt_tokens] for prompt in chosen]
    completions = generate(
        weights,
        [[tokenizer.bos_id, *beginning] for beginning in beginnings],
        max_new_tokens=config.sample_tokens,
        eos_ids=tokenizer.eos_ids,
        sampling=Sampling(config.temperature, config.top_k, config.top_p, config.seed),
    )
    return [
        {
            "source": prompt["source"],
            "prompt": tokenizer.decode(beginning),
            "completion": decode_after(beginning, completion, tokenizer.decode),
        }
        for prompt, beginning, completion in zip(chosen, beginnings, completions, strict=True)
    ]


def alternate_sources(prompts: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Reorders prompts: the first of each source, then the second of each, and so on."""
    by_source: dict[str, list[Mapping[str, str]]] = {}
    for prompt in prompts:
        by_source.setdefault(prompt["source"], []).append(prompt)
    rounds = itertools.zip_longest(*by_source.values())
    return [prompt for round_ in rounds for prompt in round_ if prompt is not None]


def decode_after(beginning: list[int], completion: list[int], decode: Decode) -> str:
    """Decodes `completion` as the continuation of `beginning`.

    Decoded alone, it would lose its first space. If a character has bytes in both, its text changes
    with the completion, and the completion is decoded alone after all.
    """
    before, both = decode(beginning), decode(beginning + completion)
    return both[len(before) :] if both.startswith(before) else decode(completion)

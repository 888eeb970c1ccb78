"""What the model writes: completions of the beginnings of texts, to be read by people."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hare_jax.config import Evaluation, Model
from hare_jax.inference.generate import generate
from hare_jax.inference.tokenizers import Decode, Encode
from hare_jax.model import decoder


def complete(
    model: Model,
    params: decoder.Params,
    config: Evaluation,
    prompts: Sequence[Mapping[str, str]],
    encode: Encode,
    decode: Decode,
    tokenizer: Mapping[str, int],
) -> list[dict[str, str]]:
    """[{"source", "prompt", "completion"}] for `config.samples` of the prompts.

    `prompts`: [{"source", "text"}]; BOS and the first `config.prompt_tokens` tokens of a text are
    what is completed. `tokenizer`: its "bos_id" and "eos_id".
    """
    chosen = in_turn(prompts)[: config.samples]
    if not chosen:
        return []
    beginnings = [encode(prompt["text"])[: config.prompt_tokens] for prompt in chosen]
    completions = generate(
        decoder.Weights.of(decoder.for_inference(model), params),
        [[tokenizer["bos_id"], *beginning] for beginning in beginnings],
        max_new_tokens=config.sample_tokens,
        eos_id=tokenizer["eos_id"],
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
    )
    return [
        {"source": prompt["source"], "prompt": decode(beginning)}
        | {"completion": decoded_after(beginning, completion, decode)}
        for prompt, beginning, completion in zip(chosen, beginnings, completions, strict=True)
    ]


def in_turn(prompts: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The first of each source, then the second of each, and so on."""
    by_source: dict[str, list[Mapping[str, str]]] = {}
    for prompt in prompts:
        by_source.setdefault(prompt["source"], []).append(prompt)
    rounds = itertools.zip_longest(*by_source.values())
    return [prompt for round_ in rounds for prompt in round_ if prompt is not None]


def decoded_after(beginning: list[int], completion: list[int], decode: Decode) -> str:
    """The text of `completion` where it stands: alone, tokenizers drop its first space."""
    before, whole = decode(beginning), decode(beginning + completion)
    # A character whose bytes lie in both parts is not the same text before and after.
    return whole[len(before) :] if whole.startswith(before) else decode(completion)

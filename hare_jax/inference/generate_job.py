"""A prompt and what the model makes of it, on the terminal, word by word."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import DType, Generation
from hare_jax.inference.generate import stream
from hare_jax.inference.tokenizers import Decode
from hare_jax.model import decoder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import open_run

BROKEN = "\ufffd"  # what the first bytes of a character decode to


def run(config: Generation, open_tokenizer: Callable[[Path], Any]) -> dict[str, Path]:
    """Prints the prompt and its continuation to standard output, and the speed to standard error.

    `open_tokenizer`: path -> an object with encode, decode, bos_id and eos_id. Raises ValueError or
    OSError where checkpoint, tokenizer and settings do not fit.
    """
    c = config
    run = open_run(c.checkpoint)
    tokenizer = open_tokenizer(run.tokenizer)
    if tokenizer.vocab_size > run.model.vocab_size:
        raise ValueError(
            f"{run.tokenizer} has {tokenizer.vocab_size} pieces, the model vocab_size="
            f"{run.model.vocab_size}; put the tokenizer that the model was trained with there"
        )
    model = decoder.for_inference(run.model)
    if jax.default_backend() == "cpu":
        # There bfloat16 is converted for each token: at the width of HARE-1.1B a third the speed.
        model = replace(model, compute_dtype=DType.FLOAT32)
    params, _ = checkpoint.restore_params(run.checkpoints, model, step=run.step)
    prompt = [tokenizer.bos_id, *tokenizer.encode(c.prompt)]
    tokens = stream(
        decoder.Weights.of(model, decoder.in_compute_dtype(params, model)),
        prompt,
        max_new_tokens=c.max_tokens,
        eos_id=tokenizer.eos_id,
        temperature=c.temperature,
        top_k=c.top_k,
        top_p=c.top_p,
        seed=c.seed,
    )
    times: list[float] = []

    def timed() -> Iterator[int]:
        for token in tokens:
            times.append(time.perf_counter())
            yield token

    print(c.prompt, end="", flush=True)
    for text in texts(prompt[1:], timed(), tokenizer.decode):
        print(text, end="", flush=True)
    print()
    speed = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    end = "max_tokens" if len(times) == c.max_tokens else "the end of the text"
    print(f"{len(times)} tokens, {speed:.1f} a second, until {end}", file=sys.stderr)
    return {}


def texts(beginning: list[int], tokens: Iterable[int], decode: Decode) -> Iterator[str]:
    """What each token adds to the text; held back while a character's bytes are not all there.

    >>> list(texts([382], [4585, 460], decode))
    ['ares', ' are']
    """
    ids, shown = list(beginning), decode(beginning)
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        if not text.endswith(BROKEN) and text.startswith(shown):
            yield text[len(shown) :]
            shown = text
    text = decode(ids)
    if len(text) > len(shown):
        yield text[len(shown) :]

"""The job of configs/generate.py: a prompt and its continuation on the terminal, word by word."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import jax

from hare_jax.config import DType, Generation
from hare_jax.inference.generate import stream
from hare_jax.inference.sampling import Sampling
from hare_jax.inference.tokenizers import Decode, beginning, open_fitting
from hare_jax.model import decoder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import open_run

INCOMPLETE = "\ufffd"  # what the first bytes of a character decode to


def run(config: Generation, workdir: Path) -> dict[str, Path]:
    """Prints the prompt and its continuation to standard output, and the speed to standard error.

    Args:
      config: checkpoint, prompt and sampling.
      workdir: not used.

    Raises:
      FileNotFoundError: there is no such checkpoint, or it has no tokenizer.
      ValueError: tokenizer, settings and model do not fit together.
    """
    del workdir
    c = config
    run = open_run(c.checkpoint)
    tokenizer = open_fitting(run.directory, run.model.vocab_size)
    model = decoder.for_inference(run.model)
    if jax.default_backend() == "cpu":
        # bfloat16 is converted for each token there: at HARE-1.1B's width a third of the speed.
        model = replace(model, compute_dtype=DType.FLOAT32)
    prompt_ids = tokenizer.encode(c.prompt)
    before = beginning(tokenizer)
    if not before and not prompt_ids:  # without a token there is nothing to continue
        before = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
    max_length = c.max_length or run.mixture.get("sequence_length") or math.inf
    max_tokens = room_for_tokens(len(before) + len(prompt_ids), c.max_tokens, max_length)
    params, _ = checkpoint.restore_params(run.checkpoints, model, step=run.step)
    tokens = stream(
        decoder.Weights.of(model, decoder.in_compute_dtype(params, model)),
        [*before, *prompt_ids],
        max_new_tokens=max_tokens,
        eos_ids=tokenizer.eos_ids,
        sampling=Sampling(c.temperature, c.top_k, c.top_p, c.seed),
    )
    times: list[float] = []

    def timed() -> Iterator[int]:
        for token in tokens:
            times.append(time.perf_counter())
            yield token

    print(c.prompt, end="", flush=True)
    for text in decode_stream(prompt_ids, timed(), tokenizer.decode):
        print(text, end="", flush=True)
    print()
    # Without the time of the first token, which includes compilation.
    speed = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    end = "the end of the text"
    if len(times) == max_tokens:
        end = "max_tokens" if max_tokens == c.max_tokens else f"max_length={max_length}"
    print(f"{len(times)} tokens, {speed:.1f} per second, until {end}", file=sys.stderr)
    return {}


def room_for_tokens(prompt_tokens: int, max_tokens: int, max_length: float) -> int:
    """Returns how many of `max_tokens` new tokens fit behind a prompt.

    >>> room_for_tokens(200, 100, 256)
    56

    Raises ValueError if not even one does: attention would read positions that training never had,
    with memory that grows with the square of the prompt's length.
    """
    if prompt_tokens >= max_length:
        raise ValueError(
            f"prompt: got {prompt_tokens} tokens, expected fewer than {max_length:g}, the length "
            "that the model was trained with; shorten it, or set --config.max_length"
        )
    return int(min(max_tokens, max_length - prompt_tokens))


def decode_stream(prompt_ids: list[int], tokens: Iterable[int], decode: Decode) -> Iterator[str]:
    """Yields what each token adds to the text, once all bytes of its characters are there.

    >>> list(decode_stream([382], [4585, 460], tokenizer.decode))  # doctest: +SKIP
    ['ares', ' are']

    Args:
      prompt_ids: of the text before.
      tokens: new ids.
      decode: ids -> text.
    """
    ids, shown = list(prompt_ids), decode(prompt_ids)
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        if not text.endswith(INCOMPLETE) and text.startswith(shown):
            yield text[len(shown) :]
            shown = text
    text = decode(ids)
    if len(text) > len(shown):
        yield text[len(shown) :]

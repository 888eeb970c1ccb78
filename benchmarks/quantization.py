"""Measures size, tokens per second and perplexity of each GGUF format in llama.cpp.

    python -m benchmarks.quantization RUN TEXT --tokens=400
    python -m benchmarks.quantization RUN --tokens=0         size and speed only

RUN is a run's folder; TEXT is a file that the model was not trained on, whose first tokens are
scored. Needs the extras `export` and `dev` (xllamacpp). The first row is the model in JAX, without
quantization.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xllamacpp

from hare_jax.config import GgufExport, Quantization
from hare_jax.inference.generate import stream
from hare_jax.inference.tokenizers import beginning, open_fitting
from hare_jax.interop import export_gguf
from hare_jax.model import decoder
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import Run, open_run

NEW_TOKENS = 64


@dataclass(slots=True)
class QuantizationRow:
    """A row of the table. `logprobs`: log-probability of tokens of the text, by position."""

    name: str
    size: int  # bytes
    tokens_per_second: float
    logprobs: dict[int, float]


def in_jax(run: Run, tokens: list[int]) -> QuantizationRow:
    """Returns the row of the model in JAX."""
    params, _ = checkpoint.restore_params(run.checkpoints, run.model, step=run.step)
    weights = decoder.Weights.of(run.model, decoder.in_compute_dtype(params, run.model))
    size = sum(a.nbytes for a in jax.tree.leaves(weights))

    @jax.jit
    def score(weights: decoder.Weights) -> jax.Array:
        model = decoder.merge(weights)
        tokens_BT = jnp.array([tokens[:-1]])
        x_BTD = model(tokens_BT, jnp.arange(len(tokens) - 1)[None], None)
        logprobs_TV = jax.nn.log_softmax(model.logits(x_BTD[0]))
        return logprobs_TV[jnp.arange(len(tokens) - 1), jnp.array(tokens[1:])]

    logprobs = {}
    if len(tokens) > 1:
        logprobs = {t + 1: float(p) for t, p in enumerate(np.asarray(score(weights)))}
    times = []
    for _ in stream(weights, tokens[:1], max_new_tokens=NEW_TOKENS, eos_ids=[-1]):
        times.append(time.perf_counter())
    speed = (len(times) - 2) / (times[-1] - times[1])  # the second step is the first compiled one
    return QuantizationRow(f"JAX, {run.model.compute_dtype.value}", size, speed, logprobs)


def in_llama(
    path: Path, name: str, tokens: list[int], vocab_size: int, threads: int
) -> QuantizationRow:
    """Returns the row of a GGUF file in llama.cpp."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel = max(512, len(tokens) + NEW_TOKENS), 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)

    def complete(prompt: list[int], **options: Any) -> Any:
        body = json.dumps({"prompt": prompt, "temperature": 0.0, "cache_prompt": True, **options})
        request = urllib.request.Request(
            f"{server.listening_address}/completion",
            body.encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)

    runs = [complete(tokens[:1], n_predict=NEW_TOKENS, ignore_eos=True) for _ in range(3)]
    speed = max(answer["timings"]["predicted_per_second"] for answer in runs)
    logprobs = {}
    for t in range(1, len(tokens)):
        answer = complete(tokens[:t], n_predict=1, n_probs=vocab_size)
        # Nothing is said where the most probable token is the first byte of a character.
        for chosen in answer.get("completion_probabilities", []):
            found = {token["id"]: token["logprob"] for token in chosen["top_logprobs"]}
            logprobs[t] = found.get(tokens[t], -math.inf)
    return QuantizationRow(name, path.stat().st_size, speed, logprobs)


def table(rows: list[QuantizationRow]) -> str:
    """Returns a Markdown table; perplexity is over the tokens that every row has."""
    common = set.intersection(*(set(row.logprobs) for row in rows))
    lines = [
        f"| format | GB | tokens/s | perplexity of {len(common)} tokens |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        perplexity = "–"
        if common:
            perplexity = f"{math.exp(-sum(row.logprobs[t] for t in common) / len(common)):.3f}"
        speed = f"{row.tokens_per_second:.1f}"
        lines.append(f"| {row.name} | {row.size / 1e9:.3f} | {speed} | {perplexity} |")
    return "\n".join(lines)


def main() -> None:
    """Parses the options, exports each format, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("text", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=400, help="of the text that are scored")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="a folder for the files")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    tokenizer = open_fitting(run.directory, run.model.vocab_size)
    tokens = beginning(tokenizer) or [tokenizer.eos_id]
    if arguments.text is not None and arguments.tokens:
        # llama.cpp refuses what is longer than the texts that the model was trained on.
        most = min(arguments.tokens, run.mixture.get("sequence_length", arguments.tokens) - 1)
        tokens += tokenizer.encode(arguments.text.read_text("utf-8"))[:most]
    rows = [in_jax(run, tokens)]
    for quantization in Quantization:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            path = Path(folder) / "model.gguf"
            export_gguf.run(GgufExport(arguments.run, str(path), quantization), path.parent)
            size, threads = run.model.vocab_size, arguments.threads
            rows.append(in_llama(path, quantization.value, tokens, size, threads))
    print(table(rows))


if __name__ == "__main__":
    main()

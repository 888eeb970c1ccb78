"""Counts the tokens and FLOPs of an evaluation on benchmarks, without a model.

    python -m benchmarks.evaluation_cost --data=BENCHMARKS   prepared by configs/benchmarks.py
    python -m benchmarks.evaluation_cost --data=BENCHMARKS --config=hare_250m --minutes=5

Every item of the six benchmarks of the paper's table is rendered, tokenized and placed in rows as
configs/evaluate.py does; a stand-in for the engine then counts what the engine would compute.

    tokens asked   tokens of all requests, each with its context
    computed       positions computed: shared prefixes once, padding included
    longest        the longest request, in tokens
    PFLOP          2 x parameters of matrix products + 2 L T H K per position, T the row's length
    steps          tokens generated one after another, if no answer ends early

The last line is the rate that --minutes (15) require.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data_pipeline.mixture.tokenizer import mistral_model
from hare_jax.config import BenchmarkEvaluation, BenchmarkOptions, Model, Protocol
from hare_jax.evaluation.benchmarks import lm_harness
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.inference import prefix_tree
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Done, Score, ScoreRequest, ignore_scores, truncate
from hare_jax.inference.tokenizers import SentencePieceTokenizer
from hare_jax.model.decoder import flops_per_token

NAMES = [protocol.value for protocol in Protocol]


@dataclass(slots=True)
class Counter:
    """A stand-in for InferenceEngine that counts tokens instead of computing."""

    model: Model
    max_length: int
    batch_tokens: int
    requests: int = 0
    asked: int = 0
    computed: int = 0
    longest: int = 0
    flops: int = 0
    steps: int = 0

    def scores(self, requests: Sequence[ScoreRequest], done: Done = ignore_scores) -> list[Score]:
        """Counts scored requests."""
        readable = [truncate(request, self.max_length)[0] for request in requests]
        for request in readable:
            self._ask(len(request.context) + len(request.continuation) - 1)
        rows = prefix_tree.pack_rows(prefix_tree.trees(readable))
        for batch in prefix_tree.batches(rows, self.batch_tokens):
            self._compute(*batch.tokens_BT.shape)
        answers = [Score(0.0, False, len(request.continuation)) for request in readable]
        done(dict(enumerate(answers)))
        return answers

    def generate(
        self,
        contexts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        done: Callable[[int, list[int]], None],
        **_: Any,
    ) -> list[list[int]]:
        """Counts generated tokens, of the maximum length."""
        room = self.max_length - max_new_tokens
        lengths = [min(len(context), room) for context in contexts]
        for batch, rows, length in prefix_tree.context_batches(
            lengths, self.max_length, self.batch_tokens
        ):
            for number in batch:
                self._ask(lengths[number] + max_new_tokens)
            self._compute(rows, length)
            self._compute(rows, max_new_tokens)
            self.steps += max_new_tokens
        for number in range(len(contexts)):
            done(number, [])
        return [[] for _ in contexts]

    def _ask(self, tokens: int) -> None:
        """Counts the tokens of a request."""
        self.requests += 1
        self.asked += tokens
        self.longest = max(self.longest, tokens)

    def _compute(self, rows: int, length: int) -> None:
        """Counts the positions of a batch."""
        self.computed += rows * length
        # a training step is three times a forward pass
        self.flops += rows * length * flops_per_token(self.model, length) // 3


def main() -> None:
    """Parses the options and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="hare_1b", help="a page of configs/ with a model")
    parser.add_argument("--protocol", default=Protocol.CURRENT.value, choices=NAMES)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    protocol = Protocol(options.protocol)
    page = importlib.import_module(f"configs.{options.config}")
    model, length = page.get_config("any").model, options.max_length
    tokenizer = SentencePieceTokenizer(mistral_model())
    lm_eval_options = BenchmarkOptions(protocol=protocol, data=str(options.data))
    total = Counter(model, length, options.batch_tokens)
    print(f"{options.config}, {protocol.value}, rows of {length} tokens, {options.data}\n")
    print("| benchmark | requests | tokens asked | computed | longest | PFLOP | steps |")
    print("| --- |" + " ---: |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        for name in BenchmarkEvaluation().benchmarks:
            counter = Counter(model, length, options.batch_tokens)
            responses = ResponseCache(Path(folder) / f"{name}.jsonl")
            lm = lm_harness.model(cast(InferenceEngine, counter), tokenizer, protocol, responses)
            (loaded,) = lm_harness.load([name], lm_eval_options)
            lm_harness.evaluate(lm, loaded, lm_eval_options)
            print(line(name, counter), flush=True)
            for field in ("requests", "asked", "computed", "flops", "steps"):
                setattr(total, field, getattr(total, field) + getattr(counter, field))
            total.longest = max(total.longest, counter.longest)
    print(line("all", total))
    rate = total.flops / (60 * options.minutes)
    print(f"\n{options.minutes:g} minutes ask for {rate / 1e12:.0f} TFLOP/s")


def line(name: str, found: Counter) -> str:
    """Returns a line of the table."""
    return (
        f"| {name} | {found.requests:,} | {found.asked / 1e6:.2f} M | {found.computed / 1e6:.2f} M "
        f"| {found.longest:,} | {found.flops / 1e15:.2f} | {found.steps:,} |"
    )


if __name__ == "__main__":
    main()

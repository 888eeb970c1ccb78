"""Runs transformers' Mistral in PyTorch on synthetic tokens, for benchmarks.train_speed.

    python torch_trainer.py < requests > answers

Has the protocol of benchmarks/jax_trainer.py; of the first request it reads `model`, `batch`,
`sequence` and `compiled`. It trains as usual: scaled_dot_product_attention on whole rows (flash
attention on a GPU), fused AdamW, clipped gradients, float32 parameters, bfloat16 autocast on a GPU.
A batch that does not fit is computed in as few parts as possible. This file imports nothing of
hare-jax, so that any interpreter with torch and transformers can run it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

WARM_UP = 2  # steps before any is timed


def requests() -> Iterator[dict[str, Any]]:
    """Yields the requests from standard input."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(value: dict[str, Any]) -> None:
    """Writes one answer."""
    print(json.dumps(value), flush=True)


class TorchTrainer:
    """A model, its optimizer, and a batch."""

    def __init__(self, request: dict[str, Any]):
        """Builds the model and finds the largest part of the batch that fits."""
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        m = request["model"]
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high")
        self.torch: Any = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        config = transformers.MistralConfig(
            vocab_size=m["vocab_size"],
            hidden_size=m["d_model"],
            intermediate_size=m["d_ff"],
            num_hidden_layers=m["num_layers"],
            num_attention_heads=m["num_heads"],
            num_key_value_heads=m["num_kv_heads"],
            head_dim=m["head_dim"],
            rms_norm_eps=m["norm_eps"],
            sliding_window=m["sliding_window"],
            tie_word_embeddings=m["tied_head"],
            attn_implementation="sdpa",
        )
        self.model = transformers.MistralForCausalLM(config).to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self.loss = torch.compile(self._loss) if request["compiled"] else self._loss
        shape = (request["batch"], request["sequence"] + 1)
        row = torch.randint(3, m["vocab_size"], shape, device=self.device)
        self.tokens, self.targets = row[:, :-1].contiguous(), row[:, 1:].contiguous()
        self.parts = 1
        started = time.perf_counter()
        self._find_parts()
        self.first_seconds = time.perf_counter() - started

    def _loss(self, tokens: Any, targets: Any) -> Any:
        """Returns the mean loss of some rows."""
        logits = self.model(tokens, use_cache=False).logits
        flat = logits.float().flatten(0, 1)
        return self.torch.nn.functional.cross_entropy(flat, targets.flatten())

    def _find_parts(self) -> None:
        """Halves the parts of the batch until one fits."""
        while True:
            try:
                self.run(1)
                return
            except self.torch.OutOfMemoryError:
                if self.parts == len(self.tokens):
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            self.torch.cuda.empty_cache()
            self.parts *= 2

    def _step(self) -> Any:
        """Runs one train step and returns the loss."""
        torch = self.torch
        total = torch.zeros((), device=self.device)
        halves: Any = contextlib.nullcontext()
        if self.device == "cuda":
            halves = torch.autocast("cuda", dtype=torch.bfloat16)
        for tokens, targets in zip(
            self.tokens.chunk(self.parts), self.targets.chunk(self.parts), strict=True
        ):
            with halves:
                loss = self.loss(tokens, targets) / self.parts
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def run(self, steps: int) -> dict[str, float]:
        """Returns the wall seconds and CPU seconds of some steps, and the last loss."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            loss = self._step()
        loss = float(loss)
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "loss": loss,
        }

    def memory(self) -> int:
        """Returns the peak memory in bytes."""
        if self.device == "cuda":
            return int(self.torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Answers requests until the empty one."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    asked = requests()
    try:
        trainer = TorchTrainer(next(asked))
    except ModuleNotFoundError as error:
        answer({"missing": error.name})
        return
    trainer.run(WARM_UP)
    on_gpu = trainer.device == "cuda"
    answer(
        {
            "platform": "gpu" if on_gpu else "cpu",
            "device": trainer.torch.cuda.get_device_name() if on_gpu else "cpu",
            "dtype": "bfloat16" if on_gpu else "float32",
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "parts": trainer.parts,
            "compile_seconds": trainer.first_seconds,
            "versions": {n: importlib.metadata.version(n) for n in ("torch", "transformers")},
        }
    )
    for request in asked:
        if not request:
            answer({"memory": trainer.memory()})
            return
        answer(trainer.run(request["steps"]))


if __name__ == "__main__":
    main()

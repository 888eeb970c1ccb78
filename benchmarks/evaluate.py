r"""Measures the speed of evaluation against lm-evaluation-harness' Hugging Face backend.

    python -m benchmarks.evaluate --data=data/benchmarks [--tasks=hellaswag,arc_challenge] \
        [--items=64] [--rounds=2] [--width=512 --layers=8]

Both run the same weights (a random Mistral) in float32, on the same requests: the first `items` of
each task with all of their few-shot examples. Every shape is computed once before timing, and the
backends take turns. The main figure is the lowest CPU time of all rounds, which other processes
disturb less than wall time; both are printed. The largest difference of two log-likelihoods is
printed as well, because speed matters only for equal results.

Needs the extras eval and dev, and accelerate.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from hare_jax.config import BenchmarkEvaluation, BenchmarkOptions, Protocol
from hare_jax.evaluation.benchmarks import evaluate, lm_harness
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.inference.engine import InferenceEngine

TASKS = "hellaswag,arc_challenge,arc_easy,truthfulqa,winogrande,mmlu,boolq,commonsenseqa"


def make_checkpoint(folder: Path, width: int, layers: int) -> None:
    """Writes a random Mistral with the Mistral tokenizer, as transformers saves it.

    `width`: a multiple of 256, which gives four query heads of 64 numbers to each key-value head.
    """
    import torch
    from tokenizers import normalizers
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    from data_pipeline.mixture.tokenizer import mistral_model

    folder.mkdir()
    shutil.copy(mistral_model(), folder / "tokenizer.model")
    settings = '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}'
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
        head_dim=64,
        max_position_embeddings=2048,
        sliding_window=None,
        initializer_range=0.05,
    )
    MistralForCausalLM(config).save_pretrained(folder)


def main() -> None:
    """Parses the options and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--data", type=Path, required=True, help="laid out by configs/benchmarks.py"
    )
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=512, help="a multiple of 256")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8, help="rows of the other backend")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    options = parser.parse_args()
    if options.width < 256 or options.width % 256:
        parser.error(f"--width={options.width}: expected a multiple of 256, 64 times 4 query heads")
    from lm_eval.models.huggingface import HFLM

    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        make_checkpoint(work / "mistral", options.width, options.layers)
        config = BenchmarkEvaluation(checkpoint=str(work / "mistral"))
        subject = evaluate.open_subject(config, work)
        engine = InferenceEngine(
            subject.model, subject.params, max_length=2048, batch_tokens=options.batch_tokens
        )
        theirs = HFLM(
            str(work / "mistral"),
            device="cpu",
            dtype="float32",
            batch_size=options.batch_size,
            max_length=2048,
        )

        def ours(number: int) -> Any:
            # A file for each round, so that no round is served from another.
            responses = ResponseCache(work / f"responses-{number}.jsonl")
            return lm_harness.model(engine, subject.tokenizer, Protocol.CURRENT, responses)

        print(
            "| task | items | requests | ours, CPU s | lm-eval's, CPU s | ratio | wall | differ |"
        )
        print("| --- |" + " ---: |" * 7)
        number = 0
        for task in options.tasks.split(","):
            times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
            answers: dict[str, list[float]] = {}
            for turn in range(options.rounds + 1):
                for name in times:
                    number += 1
                    lm = ours(number) if name == "ours" else theirs
                    spent, answers[name] = measure(lm, task, options.data, options.items)
                    if turn:  # the first one compiles
                        times[name].append(spent)
            (cpu, wall), (their_cpu, their_wall) = (
                [min(column) for column in zip(*spent, strict=True)] for spent in times.values()
            )
            pairs = zip(answers["ours"], answers["theirs"], strict=True)
            worst = max(abs(one - other) for one, other in pairs)
            print(
                f"| {task} | {options.items} | {len(answers['ours'])} | {cpu:.2f} "
                f"| {their_cpu:.2f} | {their_cpu / cpu:.2f}x | {their_wall / wall:.2f}x "
                f"| {worst:.0e} |",
                flush=True,
            )


def measure(lm: Any, task: str, data: Path, items: int) -> tuple[tuple[float, float], list[float]]:
    """Returns ((CPU seconds, wall seconds), log-likelihoods) of a task, from prompts to scores."""
    config = BenchmarkOptions(data=str(data), limit=items)
    (loaded,) = lm_harness.load([task], config)
    if task == "mmlu":  # one subject of 57
        loaded.tasks = {"mmlu_anatomy": loaded.tasks["mmlu_anatomy"]}
        loaded.groups = {}
    started = time.process_time(), time.perf_counter()
    found = lm_harness.evaluate(lm, loaded, config)
    spent = time.process_time() - started[0], time.perf_counter() - started[1]
    samples = [sample for name in loaded.tasks for sample in found["samples"][name]]
    return spent, [r[0][0] for sample in samples for r in sample["resps"]]


if __name__ == "__main__":
    main()

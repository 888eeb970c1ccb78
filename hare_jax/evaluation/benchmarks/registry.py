"""The benchmarks by name: their lm-eval task, few-shot examples and score; the paper's results.

    >>> BENCHMARKS["arc_challenge"].shots
    25

Any other task of lm-evaluation-harness is a benchmark too, with its own number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class BenchmarkTask:
    """A benchmark.

    Attributes:
      title: in tables and on the console.
      task: of lm-evaluation-harness.
      folder: of its files in lm-evaluation-harness.
      shots: examples before each question; -1: as the task's own file has it.
      metric: the score that tables show; "": the first of the task.
      dataset: its name on the Hugging Face hub.
      subset: of the dataset.
      decontaminated_as: its name in decontamination; "" if it has none there.
      max_new_tokens: of a completion; 0 if the task generates nothing.
    """

    title: str
    task: str
    folder: str
    shots: int
    metric: str
    dataset: str
    subset: str = "default"
    decontaminated_as: str = ""
    max_new_tokens: int = 0


# The six of the paper's table first. "acc_norm" divides log-likelihoods by the length of a choice.
BENCHMARKS = {
    "mmlu": BenchmarkTask("MMLU", "mmlu", "mmlu/default", 5, "acc", "cais/mmlu", "", "mmlu"),
    "arc_challenge": BenchmarkTask(
        "ARC-C",
        "arc_challenge",
        "arc",
        25,
        "acc_norm",
        "allenai/ai2_arc",
        "ARC-Challenge",
        "arc_challenge",
    ),
    "truthfulqa": BenchmarkTask(
        "TruthfulQA",
        "truthfulqa_mc2",
        "truthfulqa",
        0,
        "acc",
        "truthfulqa/truthful_qa",
        "multiple_choice",
        "truthfulqa",
    ),
    "winogrande": BenchmarkTask(
        "Winogrande",
        "winogrande",
        "winogrande",
        5,
        "acc",
        "allenai/winogrande",
        "winogrande_xl",
        "winogrande",
    ),
    "hellaswag": BenchmarkTask(
        "HellaSwag",
        "hellaswag",
        "hellaswag",
        10,
        "acc_norm",
        "Rowan/hellaswag",
        "default",
        "hellaswag",
    ),
    "gsm8k": BenchmarkTask(
        "GSM8K",
        "gsm8k",
        "gsm8k",
        5,
        "exact_match,strict-match",
        "openai/gsm8k",
        "main",
        "gsm8k",
        256,
    ),
    "arc_easy": BenchmarkTask(
        "ARC-E", "arc_easy", "arc", 0, "acc_norm", "allenai/ai2_arc", "ARC-Easy", "arc_easy"
    ),
    "piqa": BenchmarkTask("PIQA", "piqa", "piqa", 0, "acc_norm", "baber/piqa"),
    "openbookqa": BenchmarkTask(
        "OpenBookQA",
        "openbookqa",
        "openbookqa",
        0,
        "acc_norm",
        "allenai/openbookqa",
        "main",
        "openbookqa",
    ),
    "boolq": BenchmarkTask(
        "BoolQ", "boolq", "super_glue/boolq", 0, "acc", "aps/super_glue", "boolq", "boolq"
    ),
    "commonsenseqa": BenchmarkTask(
        "CommonsenseQA",
        "commonsense_qa",
        "commonsense_qa",
        0,
        "acc",
        "tau/commonsense_qa",
        "default",
        "commonsenseqa",
    ),
    "lambada": BenchmarkTask(
        "LAMBADA", "lambada_openai", "lambada", 0, "acc", "EleutherAI/lambada_openai"
    ),
    "sciq": BenchmarkTask("SciQ", "sciq", "sciq", 0, "acc_norm", "allenai/sciq"),
}
# The benchmarks of the Open LLM Leaderboard's first version, whose average the paper reports.
SIX = ("mmlu", "arc_challenge", "truthfulqa", "winogrande", "hellaswag", "gsm8k")

# Percent on the Open LLM Leaderboard (v1), from the paper's Table 1: average, then in the order of
# SIX.
PAPER = {
    "Phi-1.5 1.3B": (47.69, 43.89, 52.9, 40.89, 72.22, 63.79, 12.43),
    "Qwen1.5 1.8B": (46.55, 46.71, 37.88, 39.43, 60.3, 61.42, 33.59),
    "StableLM2 1.6B": (45.25, 38.95, 43.34, 36.78, 64.56, 70.45, 17.44),
    "HARE 1.1B": (40.17, 35.74, 38.4, 42.08, 59.27, 57.46, 8.04),
    "H2O-Danube 1.8B": (39.12, 25.94, 39.42, 33.86, 64.48, 69.58, 1.44),
    "OpenELM 1.1B": (38.47, 27.05, 36.69, 33.86, 63.22, 65.71, 1.21),
    "TinyLlama (3T) 1.1B": (36.42, 26.04, 33.87, 37.32, 59.51, 60.31, 1.44),
}

"""The benchmarks by name: which tasks of lm-evaluation-harness, how many examples, which score.

    >>> BENCHMARKS["arc_challenge"].shots
    25

Any other task of lm-evaluation-harness is a benchmark too, with its own number of examples.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class BenchmarkTask:
    """`folder`: of lm-eval's task files. `metric`: the one score that tables show.

    `dataset`, `subset`: the hub's name of its data. `protected_as`: its name in decontamination.
    """

    title: str
    task: str
    folder: str
    shots: int
    metric: str
    dataset: str
    subset: str = "default"
    protected_as: str = ""


# The paper's table, then others; "acc_norm" divides log-likelihoods by the length of a choice.
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
        "GSM8K", "gsm8k", "gsm8k", 5, "exact_match,strict-match", "openai/gsm8k", "main", "gsm8k"
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
# The Open LLM Leaderboard's first version, whose average the paper reports.
SIX = ("mmlu", "arc_challenge", "truthfulqa", "winogrande", "hellaswag", "gsm8k")

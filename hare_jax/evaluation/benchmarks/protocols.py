"""What two harnesses of different years do differently with the same tasks.

`current` is the lm-evaluation-harness that is installed. `leaderboard_v1` is the one that the Open
LLM Leaderboard's first version ran (commit b281b0921b, June 2023), whose numbers the paper and most
model cards report:

- no BOS before a text, and EOS where there is no context at all;
- few-shot examples are drawn by one Random(42), which has shuffled the documents before;
- GSM8K stops at ":", "Question:" or "Question", and counts `#### number` only;
- MMLU is the mean of its 57 subjects, not of its questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hare_jax.config import Protocol

GSM8K_STOPS = [":", "Question:", "Question"]
_GSM8K_ANSWER = re.compile(r"#### (\-?[0-9\.\,]+)")
_INVALID = "[invalid]"


def adds_bos(protocol: Protocol, tokenizer_does: bool) -> bool:
    return tokenizer_does if protocol is Protocol.CURRENT else False


def prefix_id(protocol: Protocol, bos_id: int | None, eos_id: int) -> int:
    """What stands for an empty context."""
    return eos_id if protocol is Protocol.LEADERBOARD_V1 or bos_id is None else bos_id


def drawn_examples(
    documents: int, pool: int, shots: int, *, same: bool = False
) -> dict[int, list[int]]:
    """Document -> the examples before it, as the leaderboard drew them.

    `pool`: how many examples there are. `same`: they are the documents themselves; then one more is
    drawn, and the document itself is left out.
    """
    order = list(range(documents))
    rng = random.Random(42)
    rng.shuffle(order)
    drawn = {}
    for document in order:
        examples = rng.sample(range(pool), shots + same)
        drawn[document] = [e for e in examples if not (same and e == document)][:shots]
    return drawn


class DrawnSampler:
    """Stands in for a task's sampler: hands out the examples of its documents, one after another.

    `examples`: of each document, in the order in which lm-eval asks.
    """

    def __init__(self, pool: Sequence[Any], examples: Sequence[Sequence[int]]):
        self.pool = pool
        self._next = iter(examples)

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        del eval_doc, df
        chosen = next(self._next)
        assert len(chosen) == n, (len(chosen), n)
        return [self.pool[i] for i in chosen]

    def set_rnd(self, rnd: int | None) -> DrawnSampler:
        """The examples are drawn already."""
        del rnd
        return self


def gsm8k_answer(text: str) -> str:
    """The number after the first "#### ", without its commas.

    >>> gsm8k_answer("5 + 4 = 9. #### 1,009")
    '1009'
    """
    match = _GSM8K_ANSWER.search(text)
    return match.group(1).strip().replace(",", "") if match else _INVALID


def gsm8k_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """{"acc": 1.0} where the completion's number is the answer's."""
    completion = results[0] if isinstance(results[0], str) else results[0][0]
    return {"acc": float(gsm8k_answer(completion) == gsm8k_answer(doc["answer"]))}

"""Differences between two versions of lm-evaluation-harness on the same tasks.

`current` is the installed version. `leaderboard_v1` is the one that the first version of the Open
LLM Leaderboard ran (commit b281b0921b, June 2023). The paper and most model cards report its
scores:

- no BOS before a text, and EOS in place of an empty context;
- few-shot examples are drawn by one Random(42), after it has shuffled the documents;
- GSM8K stops at ":", "Question:" or "Question", and accepts only `#### number`;
- MMLU is the mean over its 57 subjects, not over its questions.
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
    """Returns whether texts begin with BOS."""
    return tokenizer_does if protocol is Protocol.CURRENT else False


def prefix_id(protocol: Protocol, bos_id: int | None, eos_id: int) -> int:
    """Returns the id that replaces an empty context."""
    return eos_id if protocol is Protocol.LEADERBOARD_V1 or bos_id is None else bos_id


def drawn_examples(
    documents: int, pool: int, shots: int, *, same: bool = False
) -> dict[int, list[int]]:
    """Draws few-shot examples as the leaderboard did.

    Args:
      documents: number of documents of the task.
      pool: number of examples to draw from.
      shots: examples per document.
      same: whether the pool is the documents themselves. Then one more example is drawn, and the
        document itself is left out.

    Returns:
      document -> indices of its examples in the pool
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
    """A sampler for an lm-eval task that returns examples drawn before."""

    def __init__(self, pool: Sequence[Any], examples: Sequence[Sequence[int]]):
        """Takes `examples`, indices in `pool`, of each document in the order of lm-eval's calls."""
        self.pool = pool
        self._next = iter(examples)

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        """Returns the examples of the next document."""
        del eval_doc, df
        chosen = next(self._next)
        assert len(chosen) == n, (len(chosen), n)
        return [self.pool[i] for i in chosen]

    def set_rnd(self, rnd: int | None) -> DrawnSampler:
        """Does nothing: the examples are drawn already."""
        del rnd
        return self


def gsm8k_answer(text: str) -> str:
    """Returns the number after the first "#### ", without its commas.

    >>> gsm8k_answer("5 + 4 = 9. #### 1,009")
    '1009'
    """
    match = _GSM8K_ANSWER.search(text)
    return match.group(1).strip().replace(",", "") if match else _INVALID


def gsm8k_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Returns {"acc": 1.0} if the number of the completion is that of the answer, else 0.0."""
    completion = results[0] if isinstance(results[0], str) else results[0][0]
    return {"acc": float(gsm8k_answer(completion) == gsm8k_answer(doc["answer"]))}

"""Multiple choice by log-likelihood: each choice is scored on its own.

    {"id": "docs/7#0", "task": "cloze", "source": "docs", "context": "The hare is",
     "choices": [" fast.", " a stone."], "answer": 0}

becomes the requests "The hare is" -> " fast." and "The hare is" -> " a stone.", and the same
choices without the context. The prediction is the choice with

    accuracy               the greatest log-likelihood
    accuracy_norm          the greatest log-likelihood per byte, which does not favor short choices
    accuracy_mutual_info   the greatest difference between the log-likelihood after the context and
                           alone, which does not favor common words either

The last one is the first to distinguish a small model from guessing. They are acc, acc_norm and
acc_mutual_info of lm-evaluation-harness. Among equal choices the first is predicted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Encode

FIELDS = {
    "id": str,
    "task": str,
    "source": str,
    "context": str,
    "choices": list,
    "answer": int,
}


@dataclass(slots=True)
class EvalItem:
    """A question. `choices` are appended to `context` as they are; `answer` counts from 0."""

    id: str
    task: str
    source: str
    context: str
    choices: list[str]
    answer: int
    line: int  # of the file, counted from 1


@dataclass(slots=True)
class ScoredItem:
    """An item with the log-likelihood of each choice, in nats, after the context and alone."""

    item: EvalItem
    log_likelihoods: list[float]
    alone: list[float]

    @property
    def prediction(self) -> int:
        """The choice with the greatest log-likelihood."""
        return int(np.argmax(self.log_likelihoods))

    @property
    def prediction_norm(self) -> int:
        """The choice with the greatest log-likelihood per byte."""
        return int(np.argmax(np.divide(self.log_likelihoods, _num_bytes(self.item.choices))))

    @property
    def prediction_mutual_info(self) -> int:
        """The choice to whose log-likelihood the context adds most."""
        return int(np.argmax(np.subtract(self.log_likelihoods, self.alone)))


def _num_bytes(choices: Iterable[str]) -> list[int]:
    """Returns the UTF-8 bytes of each choice, without the white space around it."""
    return [max(1, len(choice.strip().encode())) for choice in choices]


def read_items(path: Path) -> list[EvalItem]:
    """Reads a JSON Lines file; raises ValueError if a line is not an item or there are none."""
    items = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if line.strip():
            try:
                items.append(_item(line, number))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
    if not items:
        raise ValueError(f"{path}: no evaluation items: expected a line of JSON for each")
    return items


def _item(line: str, number: int) -> EvalItem:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"got {type(row).__name__}, expected an object with {', '.join(FIELDS)}")
    for name, kind in FIELDS.items():
        if name not in row:
            raise ValueError(f"the field {name!r} is missing: expected {', '.join(FIELDS)}")
        if type(row[name]) is not kind:
            got = type(row[name]).__name__
            raise ValueError(f"{name!r} is of type {got}, expected {kind.__name__}")
    choices, answer = row["choices"], row["answer"]
    if len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise ValueError("'choices' must be two texts or more")
    if not 0 <= answer < len(choices):
        raise ValueError(
            f"'answer' is {answer}, expected 0 to {len(choices) - 1}: there are"
            f" {len(choices)} choices"
        )
    return EvalItem(**{name: row[name] for name in FIELDS}, line=number)


def encode_pair(encode: Encode, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Encodes both as one text and splits the ids where those of the context alone would end.

    White space at the end of the context becomes part of the continuation, since most tokenizers
    join it with the word that follows. This is `TemplateLM._encode_pair` of lm-evaluation-harness.

    Args:
      encode: text -> ids, without BOS.
      context: the text before.
      continuation: the text after.

    Returns:
      (ids of the context, ids of the continuation)
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    context_ids = encode(stripped) if stripped else []
    return context_ids, encode(stripped + continuation)[len(context_ids) :]


def requests(
    items: Sequence[EvalItem], encode: Encode, bos_id: int, max_length: int
) -> tuple[list[EvalItem], list[ScoreRequest], list[str]]:
    """Returns two requests per choice, item by item: after BOS and the context, and after BOS.

    An item of which a choice adds no token to its context, or more tokens than the model reads,
    cannot be scored and is left out.

    Args:
      items: the questions.
      encode: text -> ids, without BOS.
      bos_id: the id of BOS.
      max_length: tokens that the model reads at most.

    Returns:
      (items that can be scored, their requests, a description of each of the others)

    Raises:
      ValueError: no item can be scored.
    """
    kept, pairs, failed = [], [], []
    for item in items:
        encoded = [encode_pair(encode, item.context, choice) for choice in item.choices]
        sizes = [len(continuation) for _, continuation in encoded]
        if not all(0 < size <= max_length for size in sizes):
            number = next(k for k, size in enumerate(sizes) if not 0 < size <= max_length)
            failed.append(
                f"line {item.line} of the evaluation items ({item.id!r}): choice {number},"
                f" {item.choices[number]!r:.60}, adds {sizes[number]} tokens to its context,"
                f" expected 1 to {max_length}"
            )
            continue
        kept.append(item)
        for context, continuation in encoded:
            pairs.append(ScoreRequest([bos_id, *context], continuation))
            pairs.append(ScoreRequest([bos_id], continuation))
    if not kept:
        raise ValueError(f"no item can be scored; {failed[0]}")
    return kept, pairs, failed


def assign(items: Sequence[EvalItem], scores: Sequence[Score]) -> list[ScoredItem]:
    """Assigns to each item the scores of its choices; `scores` are those of `requests(items)`."""
    assert len(scores) == 2 * sum(len(item.choices) for item in items)
    remaining = iter(score.log_likelihood for score in scores)
    scored = []
    for item in items:
        pairs = [(next(remaining), next(remaining)) for _ in item.choices]
        scored.append(
            ScoredItem(item, [after for after, _ in pairs], [alone for _, alone in pairs])
        )
    return scored


def table(by_model: Mapping[str, Sequence[ScoredItem]], by: str) -> list[dict[str, Any]]:
    """Returns one row per value of the items' field `by`, then one for "all".

    Standard errors are over items: sqrt(p (1 - p) / (n - 1)), None for a single item. "chance" is
    the mean accuracy of guessing; "gold_log_likelihood" the mean of the right choice, in nats.

    Args:
      by_model: model -> its scored items, of the same items for all models.
      by: "task" or "source".
    """
    items = [scored.item for scored in next(iter(by_model.values()))]
    names = sorted({getattr(item, by) for item in items})
    rows = []
    for name in [*names, "all"]:
        chosen = [i for i, item in enumerate(items) if name in (getattr(item, by), "all")]
        row = {
            by: name,
            "items": len(chosen),
            "choices": float(np.mean([len(items[i].choices) for i in chosen])),
            "chance": float(np.mean([1 / len(items[i].choices) for i in chosen])),
        }
        results = {
            model: _results([scored[i] for i in chosen]) for model, scored in by_model.items()
        }
        for key in next(iter(results.values())):
            row[key] = {model: result[key] for model, result in results.items()}
        rows.append(row)
    return rows


def _results(scored: Sequence[ScoredItem]) -> dict[str, float | None]:
    accuracy = float(np.mean([s.prediction == s.item.answer for s in scored]))
    accuracy_norm = float(np.mean([s.prediction_norm == s.item.answer for s in scored]))
    mutual = float(np.mean([s.prediction_mutual_info == s.item.answer for s in scored]))
    gold = [s.log_likelihoods[s.item.answer] for s in scored]
    return {
        "accuracy": accuracy,
        "stderr": _stderr(accuracy, len(scored)),
        "accuracy_norm": accuracy_norm,
        "stderr_norm": _stderr(accuracy_norm, len(scored)),
        "accuracy_mutual_info": mutual,
        "stderr_mutual_info": _stderr(mutual, len(scored)),
        "gold_log_likelihood": float(np.mean(gold)),
    }


def _stderr(share: float, n: int) -> float | None:
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None


def log_line(scored: ScoredItem) -> dict[str, Any]:
    """Returns the line of items_scored.jsonl for an item."""
    return {
        "id": scored.item.id,
        "task": scored.item.task,
        "source": scored.item.source,
        "log_likelihoods": scored.log_likelihoods,
        "log_likelihoods_alone": scored.alone,
        "prediction": scored.prediction,
        "prediction_norm": scored.prediction_norm,
        "prediction_mutual_info": scored.prediction_mutual_info,
        "answer": scored.item.answer,
    }

"""Multiple choice by log-likelihood: the model never sees the choices together, it prices each one.

    {"id": "docs/7#0", "task": "cloze", "source": "docs", "context": "The hare is",
     "choices": [" fast.", " a stone."], "answer": 0}

becomes requests "The hare is" -> " fast." and -> " a stone.", and the choices again without the
context. The prediction is the choice with the greatest log-likelihood ("accuracy"); with the
greatest one a byte ("accuracy_norm"), which does not favor short choices; or with the greatest
mutual information ("accuracy_mutual_info"), that is what the context adds to a choice's own
log-likelihood, which does not favor common words either. The last one tells small models apart
from guessing first. lm-evaluation-harness has all three by these names (acc, acc_norm,
acc_mutual_info). Of equals the first is taken.
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
    """A question. `choices` are ready to be appended to `context`; `answer` counts from 0."""

    id: str
    task: str
    source: str
    context: str
    choices: list[str]
    answer: int
    line: int  # of the file, from 1


@dataclass(slots=True)
class Scored:
    """An item with the log-likelihood of each choice, in nats, after the context and alone."""

    item: EvalItem
    log_likelihoods: list[float]
    alone: list[float]

    @property
    def prediction(self) -> int:
        return int(np.argmax(self.log_likelihoods))

    @property
    def prediction_norm(self) -> int:
        return int(np.argmax(np.divide(self.log_likelihoods, _bytes(self.item.choices))))

    @property
    def prediction_mutual_info(self) -> int:
        return int(np.argmax(np.subtract(self.log_likelihoods, self.alone)))


def _bytes(choices: Iterable[str]) -> list[int]:
    """UTF-8 bytes of each choice, without the white space that joins it to the context."""
    return [max(1, len(choice.strip().encode())) for choice in choices]


def read_items(path: Path) -> list[EvalItem]:
    """Raises ValueError, naming the line, where a line is not an item; or where there is none."""
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
    """Token ids of both, the text tokenized as one and cut where the context's own tokens end.

    White space at the end of the context goes to the continuation, since most tokenizers join it
    with the word that follows. This is lm-evaluation-harness' `TemplateLM._encode_pair`.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    start = encode(kept) if kept else []
    return start, encode(kept + continuation)[len(start) :]


def requests(items: Sequence[EvalItem], encode: Encode, bos_id: int) -> list[ScoreRequest]:
    """Two requests a choice, item by item: after the context, which begins with BOS, and after BOS.

    Raises:
      ValueError: a choice that adds no token to its context.
    """
    asked = []
    for item in items:
        for number, choice in enumerate(item.choices):
            context, continuation = encode_pair(encode, item.context, choice)
            if not continuation:
                raise ValueError(
                    f"line {item.line} of the evaluation items ({item.id!r}): choice {number},"
                    f" {choice!r}, adds no token to its context; expected a text that does"
                )
            asked.append(ScoreRequest([bos_id, *context], continuation))
            asked.append(ScoreRequest([bos_id], continuation))
    return asked


def scored(items: Sequence[EvalItem], scores: Sequence[Score]) -> list[Scored]:
    """Gives each item the scores of its choices; `scores` answer `requests(items, ...)`."""
    assert len(scores) == 2 * sum(len(item.choices) for item in items)
    rest = iter(score.log_likelihood for score in scores)
    answered = []
    for item in items:
        pairs = [(next(rest), next(rest)) for _ in item.choices]
        answered.append(Scored(item, [after for after, _ in pairs], [alone for _, alone in pairs]))
    return answered


def table(by_model: Mapping[str, Sequence[Scored]], by: str) -> list[dict[str, Any]]:
    """A row for each value of the items' field `by` ("task" or "source"), then one for "all".

    `by_model`: model -> its scored items, of the same items. Standard errors are over items:
    sqrt(p (1 - p) / (n - 1)), None for a single item. `chance` is what guessing gives on average;
    `gold_log_likelihood` the mean of the right choice, in nats.
    """
    items = [answered.item for answered in next(iter(by_model.values()))]
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
            model: _results([answered[i] for i in chosen]) for model, answered in by_model.items()
        }
        for key in next(iter(results.values())):
            row[key] = {model: result[key] for model, result in results.items()}
        rows.append(row)
    return rows


def _results(answered: Sequence[Scored]) -> dict[str, float | None]:
    accuracy = float(np.mean([s.prediction == s.item.answer for s in answered]))
    accuracy_norm = float(np.mean([s.prediction_norm == s.item.answer for s in answered]))
    mutual = float(np.mean([s.prediction_mutual_info == s.item.answer for s in answered]))
    gold = [s.log_likelihoods[s.item.answer] for s in answered]
    return {
        "accuracy": accuracy,
        "stderr": _stderr(accuracy, len(answered)),
        "accuracy_norm": accuracy_norm,
        "stderr_norm": _stderr(accuracy_norm, len(answered)),
        "accuracy_mutual_info": mutual,
        "stderr_mutual_info": _stderr(mutual, len(answered)),
        "gold_log_likelihood": float(np.mean(gold)),
    }


def _stderr(share: float, n: int) -> float | None:
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None


def log_line(answered: Scored) -> dict[str, Any]:
    """What the per-item log says of an item."""
    return {
        "id": answered.item.id,
        "task": answered.item.task,
        "source": answered.item.source,
        "log_likelihoods": answered.log_likelihoods,
        "log_likelihoods_alone": answered.alone,
        "prediction": answered.prediction,
        "prediction_norm": answered.prediction_norm,
        "prediction_mutual_info": answered.prediction_mutual_info,
        "answer": answered.item.answer,
    }

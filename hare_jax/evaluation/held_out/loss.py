"""Next-token loss on text that was held out, by source.

The unit of the standard error is the document, since its tokens are not independent of each other.
With L_i nats and t_i predicted tokens in document i of n, the mean and its standard error are (the
ratio estimator; Cochran, Sampling Techniques, 1977, section 2.11)

    mean = sum L_i / sum t_i      stderr = sqrt(n / (n - 1) * sum (L_i - mean * t_i)^2) / sum t_i

Shape legend: T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hare_jax.data.batch import Batch
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.inference.requests import Score, Scorer, ScoreRequest

BLOCK_TOKENS = 1 << 20  # of records that are asked about at one time


class DocumentLoss(NamedTuple):
    """What a model paid for a document: `loss` in nats, summed over its predicted `tokens`."""

    source: str
    document: str
    tokens: int
    loss: float


def num_tokens(baked: PackedDataset) -> int:
    """Predicted tokens of all records."""
    return sum(source.tokens for source in baked.sources)


def document_losses(
    baked: PackedDataset, scorer: Scorer, advance: Callable[[int], None]
) -> list[DocumentLoss]:
    """The loss of each document of a held-out directory, in the order in which they are met.

    Pieces of a long document, in one record or in several, are added up. Every record is read once.
    `advance(n)` is told of n more predicted tokens.

    Raises:
      ValueError: a directory without records.
    """
    picks = [
        (source_id, record)
        for source_id, source in enumerate(baked.sources)
        for record in range(source.records)
    ]
    if not picks:
        raise ValueError(f"{baked.directory}: no held-out records: there is nothing to evaluate on")

    def done(scores: dict[int, Score]) -> None:
        advance(sum(score.tokens for score in scores.values()))

    paid: dict[tuple[str, str], list[float]] = {}
    size = max(1, BLOCK_TOKENS // baked.sequence_length)
    for start in range(0, len(picks), size):
        chosen = picks[start : start + size]
        asked = list(requests(baked.batch(chosen)))
        spans = [span for span in baked.spans(chosen) if span.length > 1]
        for span, score in zip(spans, scorer.scores(asked, done), strict=True):
            total = paid.setdefault((span.source, span.document_id), [0, 0.0])
            total[0] += score.tokens
            total[1] -= score.log_likelihood
    return [
        DocumentLoss(source, document, int(tokens), loss)
        for (source, document), (tokens, loss) in paid.items()
    ]


def requests(batch: Batch) -> Iterator[ScoreRequest]:
    """Its first token, then all others: of each segment of two tokens or more, row by row."""
    for tokens_T, targets_T, mask_T, segment_ids_T in zip(
        batch["tokens_BT"],
        batch["targets_BT"],
        batch["loss_mask_BT"],
        batch["segment_ids_BT"],
        strict=True,
    ):
        predicted = np.bincount(segment_ids_T, weights=mask_T).astype(int)
        starts = np.flatnonzero(np.diff(segment_ids_T, prepend=0) > 0)
        for start, count in zip(starts, predicted[1:], strict=True):
            if count:
                yield ScoreRequest(tokens_T[start : start + 1], targets_T[start : start + count])


def table(losses: Mapping[str, Sequence[DocumentLoss]]) -> list[dict[str, Any]]:
    """A row for each source, then one for "all" (each token counts the same).

    `losses`: model -> its document losses, of the same documents.

    >>> web = [DocumentLoss("web", "a", 2, 8.0), DocumentLoss("web", "b", 2, 4.0)]
    >>> table({"trained": web})[0]["loss"], table({"trained": web})[0]["stderr"]
    ({'trained': 3.0}, {'trained': 1.0})
    """
    documents = next(iter(losses.values()))
    names = list(dict.fromkeys(document.source for document in documents))
    rows = []
    for name in [*names, "all"]:
        here = {
            model: [d for d in of_model if name in (d.source, "all")]
            for model, of_model in losses.items()
        }
        estimates = {model: mean_and_stderr(of_model) for model, of_model in here.items()}
        first = next(iter(here.values()))
        rows.append(
            {
                "source": name,
                "documents": len(first),
                "tokens": sum(document.tokens for document in first),
                "loss": {model: mean for model, (mean, _) in estimates.items()},
                "stderr": {model: stderr for model, (_, stderr) in estimates.items()},
            }
        )
    return rows


def mean_and_stderr(documents: Sequence[DocumentLoss]) -> tuple[float, float | None]:
    """Nats a token, and the standard error over documents (None where there is one only)."""
    tokens = math.fsum(document.tokens for document in documents)
    mean = math.fsum(document.loss for document in documents) / tokens
    n = len(documents)
    if n < 2:
        return mean, None
    squares = math.fsum((d.loss - mean * d.tokens) ** 2 for d in documents)
    return mean, math.sqrt(n / (n - 1) * squares) / tokens

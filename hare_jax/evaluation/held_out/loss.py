"""Next-token loss on held-out text, by source.

The unit of the standard error is the document, since its tokens are not independent of each other.
With L_i nats and t_i predicted tokens in document i of n documents, the mean and its standard error
are (ratio estimator; Cochran, Sampling Techniques, 1977, section 2.11)

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

BLOCK_TOKENS = 1 << 20  # tokens of the records that are scored in one call


class DocumentLoss(NamedTuple):
    """The loss of a model on a document, in nats, summed over its predicted `tokens`."""

    source: str
    document: str
    tokens: int
    loss: float


def num_tokens(baked: PackedDataset) -> int:
    """Returns the number of predicted tokens of all records."""
    return sum(source.tokens for source in baked.sources)


def document_losses(
    baked: PackedDataset, scorer: Scorer, advance: Callable[[int], None]
) -> list[DocumentLoss]:
    """Computes the loss of each document of a held-out directory, in the order of the records.

    The pieces of a long document, in one record or in several, are summed. Every record is read
    once.

    Args:
      baked: the held-out data.
      scorer: the model.
      advance: called with the number of predicted tokens whenever some are finished.

    Raises:
      ValueError: the directory has no records.
    """
    records = [
        (source_id, record)
        for source_id, source in enumerate(baked.sources)
        for record in range(source.records)
    ]
    if not records:
        raise ValueError(f"{baked.directory}: no held-out records: there is nothing to evaluate on")

    def done(scores: dict[int, Score]) -> None:
        advance(sum(score.tokens for score in scores.values()))

    totals: dict[tuple[str, str], list[float]] = {}  # document -> [tokens, loss]
    size = max(1, BLOCK_TOKENS // baked.sequence_length)
    for start in range(0, len(records), size):
        block = records[start : start + size]
        block_requests = list(requests(baked.batch(block)))
        # A piece of one token predicts nothing, and `requests` has none for it.
        spans = [span for span in baked.spans(block) if span.length > 1]
        for span, score in zip(spans, scorer.scores(block_requests, done), strict=True):
            total = totals.setdefault((span.source, span.document_id), [0, 0.0])
            total[0] += score.tokens
            total[1] -= score.log_likelihood
    return [
        DocumentLoss(source, document, int(tokens), loss)
        for (source, document), (tokens, loss) in totals.items()
    ]


def requests(batch: Batch) -> Iterator[ScoreRequest]:
    """Yields one request per segment of at least two tokens, row by row.

    Its context is the first token of the segment, its continuation all others.
    """
    for tokens_T, targets_T, mask_T, segment_ids_T in zip(
        batch["tokens_BT"],
        batch["targets_BT"],
        batch["loss_mask_BT"],
        batch["segment_ids_BT"],
        strict=True,
    ):
        # Targets per segment id; id 0 is padding. The mask excludes the target after each segment.
        predicted = np.bincount(segment_ids_T, weights=mask_T).astype(int)
        # Segment ids rise within a row and are 0 in the padding behind, so a rise begins a segment.
        starts = np.flatnonzero(np.diff(segment_ids_T, prepend=0) > 0)
        for start, count in zip(starts, predicted[1:], strict=True):
            if count:
                yield ScoreRequest(tokens_T[start : start + 1], targets_T[start : start + count])


def table(losses: Mapping[str, Sequence[DocumentLoss]]) -> list[dict[str, Any]]:
    """Returns one row per source, then one for "all", in which each token counts the same.

    `losses`: model -> its document losses, of the same documents for all models.

    >>> web = [DocumentLoss("web", "a", 2, 8.0), DocumentLoss("web", "b", 2, 4.0)]
    >>> table({"trained": web})[0]["loss"], table({"trained": web})[0]["stderr"]
    ({'trained': 3.0}, {'trained': 1.0})
    """
    documents = next(iter(losses.values()))
    names = list(dict.fromkeys(document.source for document in documents))
    rows = []
    for name in [*names, "all"]:
        by_model = {
            model: [d for d in of_model if name in (d.source, "all")]
            for model, of_model in losses.items()
        }
        estimates = {model: mean_and_stderr(chosen) for model, chosen in by_model.items()}
        first = next(iter(by_model.values()))
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
    """Returns nats per token and the standard error over documents (None for one document)."""
    tokens = math.fsum(document.tokens for document in documents)
    mean = math.fsum(document.loss for document in documents) / tokens
    n = len(documents)
    if n < 2:
        return mean, None
    squares = math.fsum((d.loss - mean * d.tokens) ** 2 for d in documents)
    return mean, math.sqrt(n / (n - 1) * squares) / tokens

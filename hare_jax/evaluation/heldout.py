"""Next-token loss on text that was held out, by source.

The unit of the standard error is the document, since its tokens are not independent of each other.
With L_i nats and t_i predicted tokens in document i of n, the mean and its standard error are (the
ratio estimator; Cochran, Sampling Techniques, 1977, section 2.11)

    mean = sum L_i / sum t_i      stderr = sqrt(n / (n - 1) * sum (L_i - mean * t_i)^2) / sum t_i

Shape legend: B rows, T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hare_jax.evaluation import packing
from hare_jax.evaluation.harness import Scorer
from hare_jax.training.batch import Batch
from hare_jax.training.input import Baked


class DocumentLoss(NamedTuple):
    """What a model paid for a document: `loss` in nats, summed over its predicted `tokens`."""

    source: str
    document: str
    tokens: int
    loss: float


def num_records(baked: Baked) -> int:
    return sum(source.records for source in baked.sources)


def document_losses(
    baked: Baked, scorer: Scorer, batch_tokens: int, advance: Callable[[int], None]
) -> list[DocumentLoss]:
    """The loss of each document of a held-out directory, in the order in which they are met.

    Pieces of a long document, in one record or in several, are added up. `advance(n)` is told of n
    more finished records. Every record is read once; the last batch is padded, not dropped.

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
    size = packing.rows_per_batch(baked.sequence_length, batch_tokens)
    paid: dict[tuple[str, str], list[float]] = {}
    for start in range(0, len(picks), size):
        chosen = picks[start : start + size]
        batch = _padded(baked.batch(chosen), size)
        loss_BT = scorer.token_losses(
            batch["tokens_BT"],
            batch["targets_BT"],
            batch["positions_BT"],
            batch["segment_ids_BT"],
        )
        segments = _segment_sums(batch, loss_BT)
        for span, (tokens, loss) in zip(_spans(baked, chosen), segments, strict=True):
            total = paid.setdefault(span, [0, 0.0])
            total[0] += tokens
            total[1] += loss
        advance(len(chosen))
    return [
        DocumentLoss(source, document, int(tokens), loss)
        for (source, document), (tokens, loss) in paid.items()
    ]


def _padded(batch: Batch, rows: int) -> Batch:
    """Rows of zeros (segment 0, mask 0) up to a fixed number, so that one program serves all."""
    return {
        key: np.pad(value, [(0, rows - len(value)), *[(0, 0)] * (value.ndim - 1)])
        for key, value in batch.items()
    }


def _segment_sums(batch: Batch, loss_BT: np.ndarray) -> Iterable[tuple[int, float]]:
    """(predicted tokens, nats) of each segment, row by row."""
    for mask_T, segment_ids_T, loss_T in zip(
        batch["loss_mask_BT"], batch["segment_ids_BT"], loss_BT.astype(np.float64), strict=True
    ):
        tokens = np.bincount(segment_ids_T, weights=mask_T)[1:]
        loss = np.bincount(segment_ids_T, weights=mask_T * loss_T)[1:]
        yield from zip(tokens.astype(int).tolist(), loss.tolist(), strict=True)


def _spans(baked: Baked, picks: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
    return [(span.source, span.document_id) for span in baked.spans(picks)]


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

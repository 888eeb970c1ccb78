"""A unigram baseline: it knows how often each token occurs, and nothing about their order.

A model that does not beat it has learned only token frequencies. Its counts are those of the
training mixture: the tokens of each source, weighted as training draws them, plus one of every
token (add-one smoothing):

    p(v) = (c(v) + 1) / (C + V),   c(v) = C * sum over sources s of share_s * count_s(v) / count_s

where C is the number of tokens counted. If share_s is the share of source s in C, c(v) is a plain
count.

Shape legend: B rows, T tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.inference.requests import Done, Score, ScoreRequest, ignore_scores

BLOCK = 256  # records that are decoded together


class Unigram:
    """A Scorer that ignores the context.

    >>> Unigram({"web": np.array([3, 1])}, {"web": 1.0}).probability_V
    array([0.66666667, 0.33333333])
    """

    def __init__(self, counts: Mapping[str, np.ndarray], shares: Mapping[str, float]):
        """Computes the probability of each token.

        Args:
          counts: source -> how often each token is a target, integers [V].
          shares: source -> share of the training tokens, of any positive sum. Sources without a
            share do not count.

        Raises:
          ValueError: no tokens were counted of a source that has a share, or no source has one.
        """
        drawn = {source: share for source, share in shares.items() if share > 0}
        empty = sorted(s for s in drawn if s not in counts or not counts[s].sum())
        if empty or not drawn:
            raise ValueError(
                f"the unigram baseline has no tokens of {empty or 'any source'}: expected counts"
                f" of every source that is trained on, got them for {sorted(counts)}"
            )
        total = sum(int(counts[source].sum()) for source in drawn)  # C
        # c(v) / C: the mean of the sources' distributions, weighted by their shares.
        distribution_V = sum(
            share / sum(drawn.values()) * counts[source] / counts[source].sum()
            for source, share in drawn.items()
        )
        vocab_size = len(next(iter(counts.values())))
        # p(v) = (c(v) + 1) / (C + V)
        self.probability_V = (total * np.asarray(distribution_V) + 1) / (total + vocab_size)
        self.log_probability_V = np.log(self.probability_V)
        self.top = int(np.argmax(self.probability_V))

    def scores(self, requests: Sequence[ScoreRequest], done: Done = ignore_scores) -> list[Score]:
        """Returns one score per request, in order; see `Scorer`."""
        answers = []
        for request in requests:
            tokens = np.asarray(request.continuation, np.int64)
            log_likelihood = float(self.log_probability_V[tokens].sum())
            answers.append(Score(log_likelihood, bool((tokens == self.top).all()), len(tokens)))
        done(dict(enumerate(answers)))
        return answers


def count(baked: PackedDataset, records: int) -> dict[str, np.ndarray]:
    """Counts how often each token is a target; returns source -> int64 [V].

    Of each source at most `records` records are read, evenly spaced.
    """
    counts = {}
    for source_id, source in enumerate(baked.sources):
        counts_V = np.zeros(baked.tokenizer["vocab_size"], np.int64)
        chosen = np.linspace(0, source.records - 1, min(records, source.records)).astype(int)
        for start in range(0, len(chosen), BLOCK):
            block = [(source_id, record) for record in chosen[start : start + BLOCK].tolist()]
            batch = baked.batch(block)
            predicted = batch["targets_BT"][batch["loss_mask_BT"] > 0]
            counts_V += np.bincount(predicted, minlength=len(counts_V))
        counts[source.name] = counts_V
    return counts

"""The baseline that knows how often each token occurs, and nothing about order.

A model that does not beat it has learned word counts only. Its counts are those of the training
mixture: the tokens of each source, weighted as training draws them, and one more of every token:

    p(v) = (c(v) + 1) / (C + V),   c(v) = C * sum over sources s of share_s * count_s(v) / count_s

where C is the number of tokens counted, so that with the sources' own shares c(v) is a plain count.

Shape legend: B rows, T tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.inference.requests import Done, Score, ScoreRequest, unheard

BLOCK = 256  # records decoded at one time


class Unigram:
    """A Scorer from `counts`: source -> how often each token is a target, integers [V].

    `shares`: source -> share of the training tokens, of any positive sum; others count nothing.

    >>> Unigram({"web": np.array([3, 1])}, {"web": 1.0}).probability_V
    array([0.66666667, 0.33333333])

    Raises:
      ValueError: a source with a share but without a token counted, or no share at all.
    """

    def __init__(self, counts: Mapping[str, np.ndarray], shares: Mapping[str, float]):
        drawn = {source: share for source, share in shares.items() if share > 0}
        empty = sorted(s for s in drawn if s not in counts or not counts[s].sum())
        if empty or not drawn:
            raise ValueError(
                f"the unigram baseline has no tokens of {empty or 'any source'}: expected counts"
                f" of every source that is trained on, got them for {sorted(counts)}"
            )
        total = sum(int(counts[source].sum()) for source in drawn)
        distribution_V = sum(
            share / sum(drawn.values()) * counts[source] / counts[source].sum()
            for source, share in drawn.items()
        )
        vocab_size = len(next(iter(counts.values())))
        self.probability_V = (total * np.asarray(distribution_V) + 1) / (total + vocab_size)
        self.log_probability_V = np.log(self.probability_V)
        self.top = int(np.argmax(self.probability_V))

    def scores(self, requests: Sequence[ScoreRequest], done: Done = unheard) -> list[Score]:
        """See Scorer; the context changes nothing."""
        answers = []
        for request in requests:
            tokens = np.asarray(request.continuation, np.int64)
            log_likelihood = float(self.log_probability_V[tokens].sum())
            answers.append(Score(log_likelihood, bool((tokens == self.top).all()), len(tokens)))
        done(dict(enumerate(answers)))
        return answers


def count(baked: PackedDataset, records: int) -> dict[str, np.ndarray]:
    """How often each token is a target, int64 [V] for each source of baked data.

    Of a source with more than so many `records`, as many are read, evenly spaced.
    """
    counts = {}
    for source_id, source in enumerate(baked.sources):
        counts_V = np.zeros(baked.tokenizer["vocab_size"], np.int64)
        chosen = np.linspace(0, source.records - 1, min(records, source.records)).astype(int)
        for start in range(0, len(chosen), BLOCK):
            picks = [(source_id, record) for record in chosen[start : start + BLOCK].tolist()]
            batch = baked.batch(picks)
            predicted = batch["targets_BT"][batch["loss_mask_BT"] > 0]
            counts_V += np.bincount(predicted, minlength=len(counts_V))
        counts[source.name] = counts_V
    return counts

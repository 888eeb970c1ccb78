"""The order of the data: the records of each step, a pure function of (seed, step, mixture).

The rows of a stage are interleaved over its sources so that every prefix of the stage is close to
the weights of the mixture. The n-th row drawn from a source is the n-th record of the source's
repeated shuffle. n counts through all stages, so that no record is seen twice before every record
of its source was seen once. The order does not depend on hosts, devices or worker threads. This
module reads no file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import grain
import numpy as np

from hare_jax.config import Training

WEIGHT_UNIT = 1 << 24  # weights become integers with about this sum: integer sums are exact


@dataclass(slots=True)
class StageSchedule:
    """The steps of one training stage, and the integer weights of its sources."""

    name: str
    mixture: str
    first_step: int  # 0 for the first step of the run
    steps: int
    weights: tuple[int, ...]  # one per source; their sum is about WEIGHT_UNIT
    drawn_before: tuple[int, ...]  # rows that earlier stages draw from each source


class Order:
    """The schedule of a run: its stages, and the records of each step's global batch.

    `order.records_of_step(step)` is [(source_id, record_id), ...], one pair per row of the batch.
    """

    def __init__(
        self,
        training: Training,
        records: Mapping[str, int],
        mixtures: Mapping[str, Mapping[str, float]],
        sequence_length: int,
    ):
        """Schedules the stages of `training` over the sources.

        Args:
          training: stages, batch size and seed are read.
          records: source name -> number of records, in the order of source ids.
          mixtures: mixture name -> {source name: weight}.
          sequence_length: tokens per row, T.

        Raises:
          ValueError: if the stages do not fit the sources or the mixtures.
        """
        if not training.stages:
            raise ValueError("training.stages is empty: give at least one Stage")
        self.batch_size = training.batch_size
        self.seed = training.seed
        self.records = dict(records)
        self._shuffled = [
            grain.MapDataset.range(count).shuffle(seed=_seed(training.seed, name)).repeat(None)
            for name, count in records.items()
        ]
        self.stages: list[StageSchedule] = []
        first_step, drawn = 0, np.zeros(len(records), np.int64)  # rows of the stages so far
        for stage in training.stages:
            steps = math.ceil(stage.tokens / (self.batch_size * sequence_length))
            if steps < 1:
                raise ValueError(f"stage {stage.name!r} has {stage.tokens} tokens: expected > 0")
            weights = _weights(stage.name, stage.mixture, stage.weights, self.records, mixtures)
            before = tuple(drawn.tolist())
            self.stages.append(
                StageSchedule(stage.name, stage.mixture, first_step, steps, weights, before)
            )
            first_step += steps
            drawn = drawn + counts(np.array([steps * self.batch_size]), weights)[:, 0]
        self.steps = first_step

    def stage(self, step: int) -> StageSchedule:
        """Returns the stage of a step, 0 for the first; raises ValueError after the last."""
        for stage in self.stages:
            if step < stage.first_step + stage.steps:
                return stage
        raise ValueError(f"step {step} is past the last: the stages have {self.steps} steps")

    def records_of_step(self, step: int) -> list[tuple[int, int]]:
        """Returns (source_id, record_id) of each row of a step's global batch; step 0 is first."""
        stage = self.stage(step)
        first = (step - stage.first_step) * self.batch_size  # first row of the step in its stage
        # drawn[s, r]: rows of source s before row `first + r`, so that each row raises one count.
        drawn = counts(np.arange(first, first + self.batch_size + 1), stage.weights)
        source_ids = np.argmax(np.diff(drawn, axis=1), axis=0)  # the source whose count rises
        return [
            (source, self._shuffled[source][stage.drawn_before[source] + int(drawn[source, row])])
            for row, source in enumerate(source_ids.tolist())
        ]

    def rows_drawn(self, stage: StageSchedule) -> list[int]:
        """Returns the number of rows that a stage draws from each source."""
        rows = np.array([stage.steps * self.batch_size])
        return counts(rows, stage.weights)[:, 0].tolist()

    def rows_drawn_in_total(self) -> list[int]:
        """Returns the number of rows that the whole run draws from each source."""
        last = self.stages[-1]
        return [b + n for b, n in zip(last.drawn_before, self.rows_drawn(last), strict=True)]

    def history(self, step: int) -> dict[str, Any]:
        """Returns what determines the batches before `step`: equal histories, equal batches."""
        stages = [
            {"weights": list(stage.weights), "steps": min(stage.steps, step - stage.first_step)}
            for stage in self.stages
            if stage.first_step < step
        ]
        return {"seed": self.seed, "batch_size": self.batch_size, "stages": stages}


def schedule_without_data(training: Training, sequence_length: int) -> Order:
    """Schedules the stages over one placeholder source, for their steps only.

    Raises ValueError if there is no stage, or a stage without tokens.
    """
    stages = [replace(stage, weights={}) for stage in training.stages]
    mixtures = {stage.mixture: {"any": 1.0} for stage in stages}
    return Order(replace(training, stages=stages), {"any": 1}, mixtures, sequence_length)


def counts(rows: np.ndarray, weights: tuple[int, ...]) -> np.ndarray:
    """Counts the rows of each source among the first `rows` rows, int64 [sources, len(rows)].

    A count differs from rows * weight / sum(weights) by at most the number of sources. With
    weights (2, 1):

        rows       0 1 2 3 4 5 6
        source 0   0 1 2 2 3 4 4
        source 1   0 0 0 1 1 1 2
    """
    left, left_weight, drawn = rows.astype(np.int64), sum(weights), []
    for weight in weights:
        # Of the rows that are left, this source takes weight / left_weight, rounded up; integers
        # only, so that every machine computes the same.
        after = left * (left_weight - weight) // max(left_weight, 1)
        drawn.append(left - after)
        left, left_weight = after, left_weight - weight
    return np.stack(drawn)


def _weights(
    stage: str,
    mixture: str,
    changed: Mapping[str, float],
    records: Mapping[str, int],
    mixtures: Mapping[str, Mapping[str, float]],
) -> tuple[int, ...]:
    """Returns the integer weight of each source: `mixture`'s weights with `changed` applied."""
    if mixture not in mixtures:
        raise ValueError(
            f"stage {stage!r} names mixture {mixture!r}: the baked data has {sorted(mixtures)}"
        )
    weights = {**mixtures[mixture], **changed}
    for name, weight in weights.items():
        if name not in records:
            raise ValueError(
                f"stage {stage!r} weights source {name!r}: the baked data has {sorted(records)}"
            )
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"stage {stage!r} weights {name!r} by {weight}: expected 0 or more")
        if weight > 0 and not records[name]:
            raise ValueError(
                f"stage {stage!r} weights {name!r} by {weight}, but that source has no records: "
                f"set its weight to 0"
            )
    total = math.fsum(weights.values())
    if total <= 0:
        raise ValueError(f"stage {stage!r}: the weights {weights} sum to {total}, expected > 0")
    shares = (weights.get(name, 0.0) / total for name in records)
    # A positive weight stays positive, however small.
    return tuple(max(1, round(share * WEIGHT_UNIT)) if share > 0 else 0 for share in shares)


def _seed(seed: int, name: str) -> int:
    """Returns a 32-bit shuffle seed for one source, from the run's seed and the source's name."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")

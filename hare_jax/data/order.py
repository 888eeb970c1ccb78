"""Which record is seen when: a pure function of (seed, step, mixture). No file is read here.

The rows of a stage are dealt out to its sources so that each keeps its weight all along; the n-th
row that is drawn from a source is the n-th record of the source's endless shuffle. n counts through
all stages, so that no record is seen twice before every record of its source was seen once. Hosts,
devices and worker threads have no part in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from hare_jax.config import Training

WEIGHT_UNIT = 1 << 24  # weights become integers that sum to about this: exact and repeatable


@dataclass(slots=True)
class StageSchedule:
    """A stage, placed: `weights` and `drawn_before` (rows of earlier stages) for each source."""

    name: str
    mixture: str
    first_step: int
    steps: int
    weights: tuple[int, ...]
    drawn_before: tuple[int, ...]


class Order:
    """`order.picks(step)` -> [(source_id, record_id), ...], a row of the global batch each.

    `records`: name -> number of records, in the order of source ids.
    `mixtures`: name -> {source: weight}. Raises ValueError where they and `training` do not fit.
    """

    def __init__(
        self,
        training: Training,
        records: Mapping[str, int],
        mixtures: Mapping[str, Mapping[str, float]],
        sequence_length: int,
    ):
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
        first_step, drawn = 0, np.zeros(len(records), np.int64)
        for stage in training.stages:
            steps = math.ceil(stage.tokens / (self.batch_size * sequence_length))
            if steps < 1:
                raise ValueError(f"stage {stage.name!r} has {stage.tokens} tokens: expected > 0")
            weights = _weights(stage.name, stage.mixture, stage.weights, self.records, mixtures)
            before = tuple(drawn.tolist())
            placed = StageSchedule(stage.name, stage.mixture, first_step, steps, weights, before)
            self.stages.append(placed)
            first_step += steps
            drawn = drawn + counts(np.array([steps * self.batch_size]), weights)[:, 0]
        self.steps = first_step

    def stage(self, step: int) -> StageSchedule:
        for stage in self.stages:
            if step < stage.first_step + stage.steps:
                return stage
        raise ValueError(f"step {step} is past the last: the stages have {self.steps} steps")

    def records_of_step(self, step: int) -> list[tuple[int, int]]:
        """The global batch of a step, 0 for the first: (source_id, record_id) of each row."""
        stage = self.stage(step)
        first = (step - stage.first_step) * self.batch_size
        upto = counts(np.arange(first, first + self.batch_size + 1), stage.weights)
        source_ids = np.argmax(np.diff(upto, axis=1), axis=0)
        return [
            (source, self._shuffled[source][stage.drawn_before[source] + int(upto[source, row])])
            for row, source in enumerate(source_ids.tolist())
        ]

    def rows_drawn(self, stage: StageSchedule) -> list[int]:
        """Rows that a stage draws from each source."""
        rows = np.array([stage.steps * self.batch_size])
        return counts(rows, stage.weights)[:, 0].tolist()

    def rows_drawn_in_total(self) -> list[int]:
        """Rows that the whole run draws from each source."""
        last = self.stages[-1]
        return [b + n for b, n in zip(last.drawn_before, self.rows_drawn(last), strict=True)]

    def history(self, step: int) -> dict[str, Any]:
        """All that decided what was seen before `step`; equal pasts are the same batches."""
        stages = [
            {"weights": list(stage.weights), "steps": min(stage.steps, step - stage.first_step)}
            for stage in self.stages
            if stage.first_step < step
        ]
        return {"seed": self.seed, "batch_size": self.batch_size, "stages": stages}


def counts(rows: np.ndarray, weights: tuple[int, ...]) -> np.ndarray:
    """How many of the first `rows` rows each source gives, int64 [sources, len(rows)].

    Never further from rows * weight / sum(weights) than the number of sources. With weights (2, 1):

        rows       0 1 2 3 4 5 6
        source 0   0 1 2 2 3 4 4
        source 1   0 0 0 1 1 1 2
    """
    rest, rest_weight, given = rows.astype(np.int64), sum(weights), []
    for weight in weights:
        left = rest * (rest_weight - weight) // max(rest_weight, 1)
        given.append(rest - left)
        rest, rest_weight = left, rest_weight - weight
    return np.stack(given)


def _weights(
    stage: str,
    mixture: str,
    changed: Mapping[str, float],
    records: Mapping[str, int],
    mixtures: Mapping[str, Mapping[str, float]],
) -> tuple[int, ...]:
    if mixture not in mixtures:
        raise ValueError(
            f"stage {stage!r} wants mixture {mixture!r}: the baked data has {sorted(mixtures)}"
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
    return tuple(max(1, round(share * WEIGHT_UNIT)) if share > 0 else 0 for share in shares)


def _seed(seed: int, name: str) -> int:
    """32 bits of the order's seed, a source's name apart from every other's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")

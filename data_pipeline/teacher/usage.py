"""Counts of requests, tokens and cost of a teacher."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.execution.progress import human_time


@dataclass(slots=True)
class Usage:
    """Counts of one TeacherClient since its start.

    `prompt_tokens`, `completion_tokens` and `cost` cover all answers handed out, new or cached, so
    they do not depend on how often a run was interrupted. `paid` is the cost of new requests.
    `wasted_tokens` estimates the tokens of failed attempts that were probably charged for.
    """

    model: str
    requests: int = 0  # replies handed out, failed ones included
    cached: int = 0  # of these, answered from the cache
    failed: int = 0  # of these, without an answer
    last_error: str = ""  # reason of the last failure
    estimated: int = 0  # of these, answered without token counts
    retries: int = 0  # attempts after the first
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # in the currency of the prices
    paid: float = 0.0
    wasted_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    fresh_tokens: int = 0  # completion tokens of new answers

    def to_json(self) -> dict[str, Any]:
        """Returns the counts that are equal in every run with these answers, for a ledger."""
        names = ("model", "requests", "failed", "estimated", "prompt_tokens", "completion_tokens")
        return {name: getattr(self, name) for name in names} | {"cost": round(self.cost, 6)}

    def line(self, total: int = 0, now: float | None = None) -> str:
        """Returns the progress in one line; with the total number of requests, also the time left.

        >>> Usage("m", requests=40, cached=10, paid=0.5, fresh_tokens=900, started=0.0).line(
        ...     100, now=30.0)
        '40 of 100 answered, 10 from the cache, 30 tokens/s, cost 0.5, 1:00 left'
        """
        seconds = (time.monotonic() if now is None else now) - self.started
        fresh = self.requests - self.cached
        parts = [
            f"{self.requests:,}{f' of {total:,}' if total else ''} answered",
            f"{self.cached:,} from the cache" if self.cached else "",
            f"{self.failed:,} failed" if self.failed else "",
            f"{self.retries:,} retries" if self.retries else "",
            f"{self.fresh_tokens / max(seconds, 1e-9):,.0f} tokens/s" if fresh else "",
            f"cost {self.paid:.4g}" if self.paid else "",
        ]
        if fresh and total > self.requests:
            parts.append(f"{human_time((total - self.requests) * seconds / fresh)} left")
        return ", ".join(part for part in parts if part)

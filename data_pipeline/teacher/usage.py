"""What a teacher was asked, what it took, and what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.execution.progress import human_time


@dataclass(slots=True)
class Usage:
    """Counts of one Teacher, from its start.

    `prompt_tokens`, `completion_tokens`, `cost` are those of all answers that were handed out,
    whether they were asked for now or came from the cache: they do not depend on how often a run
    was interrupted. `paid` is the cost of what was asked of the server now, `wasted_tokens` those
    of attempts that came to nothing although they were probably charged for (an estimate).
    """

    model: str
    requests: int = 0  # replies handed out, with the failed ones
    cached: int = 0  # of these, answered without asking the server
    failed: int = 0  # of these, without an answer
    last_error: str = ""  # why the last one of these has none
    estimated: int = 0  # of these, answered without token counts
    retries: int = 0  # attempts after the first
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # currency of the prices
    paid: float = 0.0
    wasted_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    fresh_tokens: int = 0  # completion tokens that were written now

    def to_json(self) -> dict[str, Any]:
        """What is the same in every run that hands out these answers: for a ledger."""
        names = ("model", "requests", "failed", "estimated", "prompt_tokens", "completion_tokens")
        return {name: getattr(self, name) for name in names} | {"cost": round(self.cost, 6)}

    def line(self, total: int = 0, now: float | None = None) -> str:
        """How far it is, for people; with the number of requests that there will be, time left.

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

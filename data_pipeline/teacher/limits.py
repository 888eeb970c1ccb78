"""How fast, how many at once, and for how much money a server is asked."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from data_pipeline.config import TeacherConfig
from data_pipeline.teacher.errors import BudgetExceededError


@dataclass(slots=True)
class RateLimiter:
    """An evenly filled bucket that holds one request: amounts leave it at `per_minute`, 0 at once.

    Until any time t after the first no more than per_minute * t / 60 has left, plus one request:
    a bucket that holds a minute's worth would let twice that through in its first minute.
    """

    per_minute: float
    _free: float = 0.0  # when the next amount may leave, on the monotonic clock

    def reserve(self, amount: float, now: float) -> float:
        """When this amount may leave, given that everything reserved before leaves first."""
        if not self.per_minute:
            return now
        start = max(now, self._free)
        self._free = start + 60 * amount / self.per_minute
        return start

    def give_back(self, amount: float) -> None:
        """Returns what was reserved and not used (negative: what was used beyond that)."""
        if self.per_minute:
            self._free -= 60 * amount / self.per_minute


class PriorityLimiter:
    """So many places; a free one goes to the earliest request that waits, not to the first comer.

    A request that comes back after a failure so does not queue behind all that came after it, while
    the caller, who gets answers in order, waits for it.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def place(self, order: int) -> AsyncIterator[None]:
        """Args: order: a number of this request alone, smaller for an earlier one."""
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (order, turn))
        self._hand_out()
        try:
            await turn
            yield
        finally:
            # A request that was given up while it waited has no place to give back.
            if turn.done() and not turn.cancelled():
                self._free += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)


class Limits:
    """`concurrency` at once, at the pace of requests and tokens, none in a pause."""

    def __init__(self, config: TeacherConfig) -> None:
        self.places = PriorityLimiter(config.concurrency)
        self._requests = RateLimiter(config.requests_per_minute)
        self._tokens = RateLimiter(config.tokens_per_minute)
        self._paused_until = 0.0

    async def wait(self, tokens: int) -> None:
        """Until a request of about this many tokens, prompt and completion, may start."""
        while True:
            now = time.monotonic()
            start = max(self._requests.reserve(1, now), self._tokens.reserve(tokens, now))
            await asyncio.sleep(start - now)
            if (pause := self._paused_until - time.monotonic()) <= 0:
                return
            self._tokens.give_back(tokens)
            await asyncio.sleep(pause)

    def pause(self, seconds: float) -> None:
        """Nothing starts for this long: a server has asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def used(self, reserved: int, tokens: int) -> None:
        self._tokens.give_back(reserved - tokens)


@dataclass(slots=True)
class Budget:
    """Money: what is spent, and what requests in flight may yet cost. `max_cost` 0 is no limit."""

    max_cost: float
    prompt_price: float  # of a million tokens
    completion_price: float
    spent: float = 0.0
    _held: float = 0.0
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """
        >>> Budget(0.0, prompt_price=2.0, completion_price=8.0).cost(1_000_000, 500_000)
        6.0
        """
        tokens = prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return tokens / 1e6

    @contextlib.asynccontextmanager
    async def holding(self, prompt_tokens: int, completion_tokens: int) -> AsyncIterator[None]:
        """Sets aside what a request may cost at most, while it is in flight.

        Raises BudgetExceededError if, with nothing else in flight, it might exceed `max_cost`.
        """
        worst = self.cost(prompt_tokens, completion_tokens)
        async with self._settled:
            while self.max_cost and self.spent + self._held + worst > self.max_cost:
                if not self._held:
                    raise BudgetExceededError(
                        f"teacher.max_cost={self.max_cost:g} is reached: {self.spent:.6g} is spent "
                        f"on what the cache holds of this model, and the next request may cost up "
                        f"to {worst:.3g}. All answers are kept: run again with a higher "
                        "teacher.max_cost to go on from here."
                    )
                await self._settled.wait()
            self._held += worst
        try:
            yield
        finally:
            async with self._settled:
                self._held = max(0.0, self._held - worst)
                if self._held < 1e-12 * (1 + self.max_cost):
                    self._held = 0.0  # rounding must not look like a request in flight
                self._settled.notify_all()

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.spent += self.cost(prompt_tokens, completion_tokens)

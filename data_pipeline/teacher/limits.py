"""Limits on the rate, the concurrency and the cost of requests."""

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
    """A rate limit without bursts: amounts pass at `per_minute`; 0 is no limit.

    In any time t after the first request at most per_minute * t / 60 passes, plus one request. A
    token bucket that holds a minute's amount would let twice that pass in its first minute.
    """

    per_minute: float
    _free: float = 0.0  # earliest time of the next amount, on the monotonic clock

    def reserve(self, amount: float, now: float) -> float:
        """Returns the time at which this amount may pass, after all that was reserved before."""
        if not self.per_minute:
            return now
        start = max(now, self._free)
        self._free = start + 60 * amount / self.per_minute
        return start

    def give_back(self, amount: float) -> None:
        """Returns an amount that was reserved and not used; negative if more was used."""
        if self.per_minute:
            self._free -= 60 * amount / self.per_minute


class PriorityLimiter:
    """A limit on concurrency that serves the earliest request first.

    A request that returns after a failure is therefore not queued behind all later ones, while the
    caller, who receives answers in order, waits for it.
    """

    def __init__(self, count: int) -> None:
        """Starts with `count` free slots."""
        self._free = count
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def slot(self, order: int) -> AsyncIterator[None]:
        """Holds a slot for the duration of the context.

        Args:
          order: a number of this request only, smaller for an earlier request.
        """
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (order, turn))
        self._grant_slots()
        try:
            await turn
            yield
        finally:
            # A request that was cancelled while it waited holds no slot.
            if turn.done() and not turn.cancelled():
                self._free += 1
            self._grant_slots()

    def _grant_slots(self) -> None:
        """Gives free slots to the earliest waiting requests."""
        while self._free and self._waiting:
            _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                turn.set_result(None)


class Limits:
    """The limits of one server: concurrency, requests and tokens per minute, and pauses."""

    def __init__(self, config: TeacherConfig) -> None:
        """Takes the limits from the config."""
        self.slots = PriorityLimiter(config.concurrency)
        self._requests = RateLimiter(config.requests_per_minute)
        self._tokens = RateLimiter(config.tokens_per_minute)
        self._paused_until = 0.0

    async def wait(self, tokens: int) -> None:
        """Waits until a request of about `tokens` tokens, prompt and completion, may start."""
        while True:
            now = time.monotonic()
            start = max(self._requests.reserve(1, now), self._tokens.reserve(tokens, now))
            await asyncio.sleep(start - now)
            if (pause := self._paused_until - time.monotonic()) <= 0:
                return
            self._tokens.give_back(tokens)
            await asyncio.sleep(pause)

    def pause(self, seconds: float) -> None:
        """Lets no request start for some seconds, because the server asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def used(self, reserved: int, tokens: int) -> None:
        """Corrects the tokens reserved for a request to those it used."""
        self._tokens.give_back(reserved - tokens)


@dataclass(slots=True)
class Budget:
    """Cost that was spent, and the reserve for requests in flight. `max_cost` 0 is no limit."""

    max_cost: float
    prompt_price: float  # per million tokens
    completion_price: float
    spent: float = 0.0
    _reserved: float = 0.0
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns the cost of some tokens.

        >>> Budget(0.0, prompt_price=2.0, completion_price=8.0).cost(1_000_000, 500_000)
        6.0
        """
        tokens = prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return tokens / 1e6

    @contextlib.asynccontextmanager
    async def reserving(self, prompt_tokens: int, completion_tokens: int) -> AsyncIterator[None]:
        """Reserves the highest cost of a request while it is in flight.

        Raises:
          BudgetExceededError: with nothing else in flight, the request might exceed `max_cost`.
        """
        worst = self.cost(prompt_tokens, completion_tokens)
        async with self._settled:
            while self.max_cost and self.spent + self._reserved + worst > self.max_cost:
                if not self._reserved:
                    raise BudgetExceededError(
                        f"teacher.max_cost={self.max_cost:g} is reached: {self.spent:.6g} was "
                        "spent on the answers of this model in the cache, and the next request may "
                        f"cost up to {worst:.3g}. All answers are kept: run again with a higher "
                        "teacher.max_cost to continue."
                    )
                await self._settled.wait()
            self._reserved += worst
        try:
            yield
        finally:
            async with self._settled:
                self._reserved = max(0.0, self._reserved - worst)
                if self._reserved < 1e-12 * (1 + self.max_cost):
                    self._reserved = 0.0  # a rounding error must not count as a request in flight
                self._settled.notify_all()

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Adds the cost of some tokens to what was spent."""
        self.spent += self.cost(prompt_tokens, completion_tokens)

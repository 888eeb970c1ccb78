"""Limits hold for every order of events; the money that is set aside is never spent twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.config import TeacherConfig
from data_pipeline.teacher.errors import BudgetExceededError
from data_pipeline.teacher.limits import Budget, Limits, PriorityLimiter, RateLimiter
from data_pipeline.teacher.usage import Usage


@given(
    st.floats(1, 6000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 500), st.integers(0, 500))),
)
def test_what_has_left_never_exceeds_the_pace(
    per_minute: float, asked: list[tuple[float, int, int]]
) -> None:
    """Until any request starts, those before it have used no more than the pace allows."""
    pace, now, used = RateLimiter(per_minute), 0.0, 0.0
    for wait, amount, really in asked:
        now += wait
        start = pace.reserve(amount, now)
        assert start >= now
        assert used <= per_minute * start / 60 + 1e-6
        pace.give_back(amount - min(amount, really))
        used += min(amount, really)


def test_without_a_limit_nothing_waits() -> None:
    pace = RateLimiter(0)
    assert [pace.reserve(10**9, now) for now in (1.0, 1.0, 2.0)] == [1.0, 1.0, 2.0]


@given(st.integers(1, 4), st.lists(st.booleans(), min_size=1, max_size=20))
def test_places_go_to_the_earliest_and_none_is_lost(count: int, given_up: list[bool]) -> None:
    """Some of those that wait are given up at any moment; the others are served in their order."""
    served: list[int] = []
    most = now = 0
    opened = asyncio.Event()

    async def one(places: PriorityLimiter, order: int) -> None:
        nonlocal most, now
        async with places.slot(order):
            now += 1
            most = max(most, now)
            served.append(order)
            try:
                await opened.wait()
                await asyncio.sleep(0)
            finally:
                now -= 1

    async def run() -> None:
        places = PriorityLimiter(count)
        first = [asyncio.create_task(one(places, -1)) for _ in range(count)]
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(one(places, k)) for k in reversed(range(len(given_up)))]
        await asyncio.sleep(0)
        for task, give_up in zip(reversed(tasks), given_up, strict=True):
            if give_up:
                task.cancel()
        opened.set()
        await asyncio.gather(*first, *tasks, return_exceptions=True)
        for k in range(count):  # all places are free again
            async with places.slot(k):
                pass
        async with contextlib.AsyncExitStack() as stack:
            for k in range(count):
                await asyncio.wait_for(stack.enter_async_context(places.slot(k)), 5)

    asyncio.run(run())
    assert most <= count
    waited = [order for order in served if order >= 0]
    assert waited == sorted(waited)
    assert set(waited) >= {k for k, give_up in enumerate(given_up) if not give_up}


def test_a_request_waits_for_a_pause() -> None:
    async def run() -> float:
        limits = Limits(TeacherConfig(model="m"))
        clock = asyncio.get_running_loop().time
        limits.pause(0.1)
        started = clock()
        await limits.wait(1)
        return clock() - started

    assert asyncio.run(run()) >= 0.09


COSTS = st.lists(st.tuples(st.integers(0, 300), st.floats(0, 1)), min_size=1, max_size=30)


@given(st.integers(1, 2000), COSTS)
def test_a_budget_is_never_exceeded_and_stops_only_when_it_must(
    limit: int, requests: list[tuple[int, float]]
) -> None:
    budget = Budget(float(limit), prompt_price=1e6, completion_price=1e6)
    refused: list[int] = []

    async def one(worst: int, share: float) -> None:
        try:
            async with budget.reserving(0, worst):
                await asyncio.sleep(0)
                budget.spend(0, int(worst * share))
                assert budget.spent <= limit
        except BudgetExceededError:
            refused.append(worst)
            assert budget.spent + worst > limit

    async def run() -> None:
        await asyncio.gather(*(one(*request) for request in requests))

    asyncio.run(run())
    if sum(worst for worst, _ in requests) <= limit:
        assert not refused


def test_without_max_cost_nothing_is_refused() -> None:
    budget = Budget(0.0, 1e6, 1e6, spent=1e9)

    async def run() -> None:
        async with budget.reserving(10**9, 10**9):
            budget.spend(1, 1)

    asyncio.run(run())
    assert budget.spent == 1e9 + 2


def test_usage_for_a_ledger_says_nothing_of_how_often_a_run_was_interrupted() -> None:
    first = Usage("m", requests=9, prompt_tokens=3, completion_tokens=4, cost=0.1, started=1.0)
    again = Usage("m", requests=9, prompt_tokens=3, completion_tokens=4, cost=0.1, started=5.0)
    again.cached, again.retries, again.paid, again.wasted_tokens = 9, 4, 0.2, 70
    assert first.to_json() == again.to_json()
    assert first.to_json() == {
        "model": "m",
        "requests": 9,
        "failed": 0,
        "estimated": 0,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cost": 0.1,
    }


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (
            Usage("m", requests=2000, cached=2000, started=0.0),
            "2,000 of 2,000 answered, 2,000 from the cache",
        ),
        (
            Usage("m", requests=50, failed=1, retries=3, fresh_tokens=100, paid=0.25, started=0.0),
            "50 of 2,000 answered, 1 failed, 3 retries, 10 tokens/s, cost 0.25, 6:30 left",
        ),
    ],
)
def test_progress_in_a_line(usage: Usage, line: str) -> None:
    assert usage.line(2000, now=10.0) == line

"""Asks a teacher many things and hands out the answers in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from data_pipeline import config as configs
from data_pipeline.execution.progress import console
from data_pipeline.teacher import wire
from data_pipeline.teacher.background import Background
from data_pipeline.teacher.cache import TeacherCache
from data_pipeline.teacher.connection import Connection
from data_pipeline.teacher.errors import RequestFailedError, TeacherError
from data_pipeline.teacher.limits import Budget
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest
from data_pipeline.teacher.settings import check
from data_pipeline.teacher.usage import Usage
from data_pipeline.teacher.wire import Completion, Vectors
from data_pipeline.teacher.writer import Values, Writer

CHUNK = 32  # requests looked up, or texts embedded, at a time
WINDOW = 512  # requests taken and not yet answered to the caller
SHOWN_EVERY_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class _InFlight:
    """A question on its way, and how many requests wait for its answer."""

    future: Future[Completion]
    waiting: int = 1


class TeacherClient:
    """A teacher with a memory: every question is asked of the server once.

    What the cache holds needs neither server nor key: they are looked for when the first question
    comes that it does not hold. Used from one thread; not to be carried into a forked process.

    Args:
      config: see config.Teacher.
      cache: the folder of answers, unless `config.cache` names one.

    Raises:
      ValueError: a field that cannot be meant, or a key that is not in the environment.
      DamagedCache, DiskFull, OSError: the cache cannot be read or written.

    >>> with Teacher(config, Path("runs/mine/teacher")) as teacher:     # doctest: +SKIP
    ...     for reply in teacher.ask([Request("a", (("user", "Why is the sea salty?"),), 200)]):
    ...         print(reply.text, teacher.usage.cost)
    """

    def __init__(self, config: configs.TeacherConfig, cache: Path) -> None:
        check(config)
        self._config = config
        self._cache = TeacherCache(Path(config.cache) if config.cache else cache)
        self.usage = Usage(config.model)
        self._budget = Budget(config.max_cost, config.prompt_price, config.completion_price)
        self._budget.spend(*self._cache.spent(config.model))
        self._spent_before = self._budget.spent
        self._flights: dict[bytes, _InFlight] = {}
        self._shown = time.monotonic()
        self._background: Background | None = None
        self._connection: Connection
        self._writer: Writer

    def __enter__(self) -> TeacherClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Gives up what is in flight; answers that have come are kept."""
        try:
            if self._background is not None:
                for flight in self._flights.values():
                    flight.future.cancel()
                self._background.submit(self._close()).result()
                self._background.stop()
        finally:
            self._background = None
            self._cache.__exit__()

    def ask(self, requests: Iterable[TeacherRequest], *, total: int = 0) -> Iterator[TeacherReply]:
        """The reply to each request, in their order; a few hundred are under way at a time.

        A request that gets no answer has a reply with `error`, which is not cached: the next run
        asks again. Equal questions are asked once; several samples differ in `sample`.

        Args:
          total: how many requests there will be, if known: then progress shows the time left.

        Raises:
          TeacherError: there is no use in going on, and why: no server, a wrong key, an unknown
            model, 16 requests in a row without an answer. All answers that came are kept.
          BudgetSpent: `max_cost` is reached; a TeacherError.
        """
        waiting: deque[tuple[TeacherRequest, bytes, Completion | _InFlight, bool]] = deque()
        try:
            for chunk in _chunks(requests):
                waiting.extend(self._begin(chunk))
                while waiting and (len(waiting) >= WINDOW or _is_there(waiting[0][2])):
                    yield self._reply(*waiting.popleft(), total)
            while waiting:
                yield self._reply(*waiting.popleft(), total)
        finally:
            for _, key, source, _ in waiting:
                self._release(key, source)

    def check_answered(self, shard: str) -> None:
        """To be called with a shard's last reply, before what has no answer is given up for good.

        Raises TeacherError where more than `max_unanswered` of all requests so far have none.
        """
        failed, requests = self.usage.failed, self.usage.requests
        if failed and failed / requests > self._config.max_unanswered:
            raise TeacherError(
                f"shard {shard}: {failed} of {requests} requests got no answer, more than the "
                f"allowed share of {self._config.max_unanswered:g} ({self.usage.last_error}). All "
                "answers are kept, and the same command asks again only for what has none; to go "
                "on without it, raise teacher.max_unanswered."
            )

    def embed(self, texts: Iterable[str]) -> np.ndarray:
        """float32 [N, D]: the vector of each text, by /v1/embeddings; cached like answers.

        Raises TeacherError where a text gets no vector: all that came are kept.
        """
        waiting: deque[tuple[list[bytes], Values, Future[Values]]] = deque()
        vectors: list[np.ndarray] = []

        def take() -> None:
            keys, known, future = waiting.popleft()
            found = known | future.result()
            vectors.extend(np.frombuffer(found[key], "<f4") for key in keys)

        try:
            for chunk in _chunks(texts):
                waiting.append(self._begin_embedding(chunk))
                if len(waiting) * CHUNK >= WINDOW:
                    take()
            while waiting:
                take()
        finally:
            for _, _, future in waiting:
                future.cancel()
        if len(lengths := {len(vector) for vector in vectors}) > 1:
            raise ValueError(
                f"the vectors of model {self._config.model!r} have lengths {sorted(lengths)}: the "
                "server has changed the model behind this name since some were cached. Name "
                "another folder in teacher.cache."
            )
        return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)

    # ---- chat

    def _begin(
        self, requests: list[TeacherRequest]
    ) -> Iterator[tuple[TeacherRequest, bytes, Completion | _InFlight, bool]]:
        """(request, key, where its answer is or will be, whether that costs nothing)."""
        bodies = [wire.chat_body(self._config, request) for request in requests]
        keys = [
            wire.key(body, request.sample) for body, request in zip(bodies, requests, strict=True)
        ]
        known = self._cache.get([key for key in set(keys) if key not in self._flights])
        for request, body, key in zip(requests, bodies, keys, strict=True):
            if flight := self._flights.get(key):
                flight.waiting += 1
                yield request, key, flight, True
            elif key in known:
                yield request, key, Completion.from_bytes(known[key]), True
            else:
                flight = _InFlight(self._running().submit(self._answer(key, body)))
                self._flights[key] = flight
                yield request, key, flight, False

    async def _answer(self, key: bytes, body: dict[str, Any]) -> Completion:
        kept: list[Completion] = []

        async def keep(answer: Completion) -> None:
            self.usage.fresh_tokens += answer.completion_tokens
            values = await self._keep({key: answer.to_bytes()}, answer)
            kept.append(Completion.from_bytes(values[key]))

        await self._connection.chat(body, keep)
        return kept[0]

    async def _keep(self, values: Values, took: Completion | Vectors) -> Values:
        self.usage.paid = self._budget.spent - self._spent_before
        return await self._writer.keep(values, took.prompt_tokens, took.completion_tokens)

    def _reply(
        self,
        request: TeacherRequest,
        key: bytes,
        source: Completion | _InFlight,
        cached: bool,
        total: int,
    ) -> TeacherReply:
        usage = self.usage
        try:
            answer = source if isinstance(source, Completion) else source.future.result()
        except RequestFailedError as error:
            usage.requests += 1
            usage.failed += 1
            usage.last_error = str(error)
            return TeacherReply(request.id, "", "", 0, 0, error=str(error))
        finally:
            self._release(key, source)
        usage.requests += 1
        usage.cached += cached
        usage.estimated += answer.estimated
        usage.prompt_tokens += answer.prompt_tokens
        usage.completion_tokens += answer.completion_tokens
        usage.cost += self._budget.cost(answer.prompt_tokens, answer.completion_tokens)
        self._show(total)
        return TeacherReply(
            request.id, answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens
        )

    def _release(self, key: bytes, source: Completion | _InFlight) -> None:
        """One request waits no longer for this flight; the last one to leave ends it."""
        if isinstance(source, _InFlight):
            source.waiting -= 1
            if not source.waiting:
                source.future.cancel()
                self._flights.pop(key, None)

    # ---- embeddings

    def _begin_embedding(self, texts: list[str]) -> tuple[list[bytes], Values, Future[Values]]:
        """(key of each text, vectors that are known, those to come)."""
        keys = [wire.key(wire.embedding_body(self._config, text)) for text in texts]
        known = self._cache.get(list(set(keys)))
        tokens = sum(wire.estimate_tokens(text) for text in texts)
        self.usage.requests += len(texts)
        self.usage.cached += sum(key in known for key in keys)
        self.usage.estimated += len(texts)
        self.usage.prompt_tokens += tokens
        self.usage.cost += self._budget.cost(tokens, 0)
        asked = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if asked:
            return keys, known, self._running().submit(self._vectors(asked))
        nothing: Future[Values] = Future()
        nothing.set_result({})
        return keys, known, nothing

    async def _vectors(self, asked: dict[bytes, str]) -> Values:
        texts, kept = list(asked.values()), Values()

        async def keep(vectors: Vectors) -> None:
            rows = zip(asked, vectors.array.astype("<f4"), strict=True)
            kept.update(await self._keep({key: row.tobytes() for key, row in rows}, vectors))

        try:
            await self._connection.embed(wire.embedding_body(self._config, texts), keep)
        except RequestFailedError as error:
            longest = max(texts, key=len)
            raise TeacherError(
                f"no vectors for {len(texts)} texts, the longest of {len(longest):,} characters "
                f"({longest[:60]!r}): {error}. Cut texts to what the model takes; all vectors so "
                "far are kept."
            ) from None
        return kept

    # ---- the server

    def _running(self) -> Background:
        """The event loop that asks, started with the first question that costs something."""
        if self._background is None:
            background = Background()
            try:
                background.submit(self._connect()).result()
            except BaseException:
                background.stop()
                raise
            self._background = background
        return self._background

    async def _connect(self) -> None:
        self._writer = Writer(self._cache, self._config.model)
        self._connection = Connection(self._config, self.usage, self._budget, self._waste)

    async def _close(self) -> None:
        await self._writer.close()
        await self._connection.close()

    def _waste(self, prompt_tokens: int, completion_tokens: int) -> None:
        self._writer.spend(prompt_tokens, completion_tokens)
        self.usage.wasted_tokens += prompt_tokens + completion_tokens
        self.usage.paid = self._budget.spent - self._spent_before

    def _show(self, total: int) -> None:
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY_S:
            self._shown = now
            console.print(f"  {self._config.model}: {self.usage.line(total)}")


def _is_there(source: Completion | _InFlight) -> bool:
    return isinstance(source, Completion) or source.future.done()


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    values = iter(values)
    while chunk := list(islice(values, CHUNK)):
        yield chunk

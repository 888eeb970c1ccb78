"""A client that sends requests to a teacher and returns the replies in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_pipeline import config as configs
from data_pipeline.config_problems import Problems, check_types
from data_pipeline.execution.progress import console
from data_pipeline.execution.shard_output import chunks
from data_pipeline.teacher import wire
from data_pipeline.teacher.background import Background
from data_pipeline.teacher.cache import TeacherCache
from data_pipeline.teacher.check import check_teacher
from data_pipeline.teacher.connection import Connection
from data_pipeline.teacher.errors import RequestFailedError, TeacherError
from data_pipeline.teacher.limits import Budget
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest
from data_pipeline.teacher.usage import Usage
from data_pipeline.teacher.wire import Completion, Embeddings
from data_pipeline.teacher.writer import Values, Writer

CHUNK = 32  # requests looked up, or texts embedded, together
WINDOW = 512  # maximum number of requests read ahead of the reply that is yielded next
PROGRESS_EVERY_S = 10.0


@dataclass(slots=True)
class _InFlight:
    """A request in flight, and the number of callers that wait for its answer."""

    future: Future[Completion]
    waiting: int = 1


class TeacherClient:
    """A client with a cache: equal requests are sent to the server once.

    Cached answers need neither server nor key, which are looked up when the first request is not in
    the cache. A client is used from one thread and must not be passed to a forked process.

    >>> with TeacherClient(config, Path("runs/mine/teacher")) as teacher:     # doctest: +SKIP
    ...     requests = [TeacherRequest("a", (("user", "Why is the sea salty?"),), 200)]
    ...     for reply in teacher.ask(requests):
    ...         print(reply.text, teacher.usage.cost)
    """

    def __init__(self, config: configs.TeacherConfig, cache: Path) -> None:
        """Opens the cache.

        Args:
          config: the teacher.
          cache: the folder of answers, unless `config.cache` names one.

        Raises:
          ValueError: an invalid setting; or, from `ask`, an API key variable that is not set.
          CorruptCacheError, DiskFullError, OSError: the cache cannot be read or written.
        """
        problems = Problems("teacher")
        check_types(problems, config)
        problems.raise_if_any()
        check_teacher(config, problems)
        problems.raise_if_any()
        self._config = config
        self._cache = TeacherCache(Path(config.cache) if config.cache else cache)
        self.usage = Usage(config.model)
        self._budget = Budget(config.max_cost, config.prompt_price, config.completion_price)
        self._budget.spend(*self._cache.spent(config.model))
        self._spent_before = self._budget.spent
        self._flights: dict[bytes, _InFlight] = {}
        self._printed_at = time.monotonic()
        self._background: Background | None = None
        self._connection: Connection
        self._writer: Writer

    def __enter__(self) -> TeacherClient:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancels the requests in flight; answers that have arrived are kept."""
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
        """Yields the reply to each request, in order; a few hundred are processed at a time.

        A request without an answer gets a reply with `error`, which is not cached: the next run
        sends it again. Equal requests are sent once; several samples of a prompt differ in
        `sample`.

        Args:
          requests: read as needed.
          total: the number of requests, if known: progress then shows the time left.

        Raises:
          TeacherError: continuing is useless. The message says why: no server, a wrong key, an
            unknown model, 16 failed requests in a row. All answers received are kept.
          BudgetExceededError: `max_cost` is reached; a TeacherError.
        """
        waiting: deque[tuple[TeacherRequest, bytes, Completion | _InFlight, bool]] = deque()
        try:
            for chunk in chunks(requests, CHUNK):
                waiting.extend(self._start(chunk))
                while waiting and (len(waiting) >= WINDOW or _is_ready(waiting[0][2])):
                    yield self._reply(*waiting.popleft(), total)
            while waiting:
                yield self._reply(*waiting.popleft(), total)
        finally:
            for _, key, source, _ in waiting:
                self._release(key, source)

    def check_answered(self, shard: str) -> None:
        """Checks the share of failed requests; call it with a shard's last reply.

        Raises:
          TeacherError: more than `max_unanswered` of all requests so far have no answer.
        """
        failed, requests = self.usage.failed, self.usage.requests
        if failed and failed / requests > self._config.max_unanswered:
            raise TeacherError(
                f"shard {shard}: {failed} of {requests} requests got no answer, more than the "
                f"allowed share of {self._config.max_unanswered:g} ({self.usage.last_error}). All "
                "answers are kept, and the same command sends only the failed requests again; to "
                "continue without them, increase teacher.max_unanswered."
            )

    def embed(self, texts: Iterable[str]) -> np.ndarray:
        """Returns the embedding of each text, float32 [N, D]; they are cached like answers.

        Raises:
          TeacherError: a text gets no embedding; all received ones are kept.
        """
        waiting: deque[tuple[list[bytes], Values, Future[Values]]] = deque()
        vectors: list[np.ndarray] = []

        def take() -> None:
            keys, known, future = waiting.popleft()
            found = known | future.result()
            vectors.extend(np.frombuffer(found[key], "<f4") for key in keys)

        try:
            for chunk in chunks(texts, CHUNK):
                waiting.append(self._start_embedding(chunk))
                if len(waiting) * CHUNK >= WINDOW:
                    take()
            while waiting:
                take()
        finally:
            for _, _, future in waiting:
                future.cancel()
        if len(lengths := {len(vector) for vector in vectors}) > 1:
            raise ValueError(
                f"the embeddings of model {self._config.model!r} have lengths {sorted(lengths)}: "
                "the server has changed the model with this name since some were cached. Set "
                "teacher.cache to another folder."
            )
        return np.stack(vectors) if vectors else np.empty((0, 0), np.float32)

    # ---- chat

    def _start(
        self, requests: list[TeacherRequest]
    ) -> Iterator[tuple[TeacherRequest, bytes, Completion | _InFlight, bool]]:
        """Yields (request, key, cached answer or request in flight, whether it is free)."""
        bodies = [wire.chat_body(self._config, request) for request in requests]
        keys = [
            wire.cache_key(body, request.sample)
            for body, request in zip(bodies, requests, strict=True)
        ]
        known = self._cache.get([key for key in set(keys) if key not in self._flights])
        for request, body, key in zip(requests, bodies, keys, strict=True):
            if flight := self._flights.get(key):
                flight.waiting += 1
                yield request, key, flight, True
            elif key in known:
                yield request, key, Completion.from_bytes(known[key]), True
            else:
                flight = _InFlight(self._background_loop().submit(self._answer(key, body)))
                self._flights[key] = flight
                yield request, key, flight, False

    async def _answer(self, key: bytes, body: dict[str, Any]) -> Completion:
        """Requests an answer and stores it in the cache."""
        kept: list[Completion] = []

        async def keep(answer: Completion) -> None:
            self.usage.fresh_tokens += answer.completion_tokens
            values = await self._keep({key: answer.to_bytes()}, answer)
            kept.append(Completion.from_bytes(values[key]))

        await self._connection.chat(body, keep)
        return kept[0]

    async def _keep(self, values: Values, took: Completion | Embeddings) -> Values:
        """Stores values in the cache."""
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
        """Waits for an answer, counts it, and returns the reply."""
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
        self._print_progress(total)
        return TeacherReply(
            request.id, answer.text, answer.finish, answer.prompt_tokens, answer.completion_tokens
        )

    def _release(self, key: bytes, source: Completion | _InFlight) -> None:
        """Counts one caller less for a request in flight; the last one cancels it."""
        if isinstance(source, _InFlight):
            source.waiting -= 1
            if not source.waiting:
                source.future.cancel()
                self._flights.pop(key, None)

    # ---- embeddings

    def _start_embedding(self, texts: list[str]) -> tuple[list[bytes], Values, Future[Values]]:
        """Returns (key of each text, cached embeddings, future of the missing ones)."""
        keys = [wire.cache_key(wire.embedding_body(self._config, text)) for text in texts]
        known = self._cache.get(list(set(keys)))
        tokens = sum(wire.estimate_tokens(text) for text in texts)
        self.usage.requests += len(texts)
        self.usage.cached += sum(key in known for key in keys)
        self.usage.estimated += len(texts)
        self.usage.prompt_tokens += tokens
        self.usage.cost += self._budget.cost(tokens, 0)
        asked = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if asked:
            return keys, known, self._background_loop().submit(self._vectors(asked))
        nothing: Future[Values] = Future()
        nothing.set_result({})
        return keys, known, nothing

    async def _vectors(self, asked: dict[bytes, str]) -> Values:
        """Requests the embeddings of some texts and stores them in the cache."""
        texts, kept = list(asked.values()), Values()

        async def keep(vectors: Embeddings) -> None:
            rows = zip(asked, vectors.array.astype("<f4"), strict=True)
            kept.update(await self._keep({key: row.tobytes() for key, row in rows}, vectors))

        try:
            await self._connection.embed(wire.embedding_body(self._config, texts), keep)
        except RequestFailedError as error:
            longest = max(texts, key=len)
            raise TeacherError(
                f"no embeddings of {len(texts)} texts, the longest of {len(longest):,} characters "
                f"({longest[:60]!r}): {error}. Cut texts to the length that the model accepts; all "
                "embeddings received are kept."
            ) from None
        return kept

    # ---- event loop and connection

    def _background_loop(self) -> Background:
        """Returns the event loop, started with the first request that is not cached."""
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
        """Creates the writer and the connection, inside the event loop."""
        self._writer = Writer(self._cache, self._config.model)
        self._connection = Connection(self._config, self.usage, self._budget, self._count_wasted)

    async def _close(self) -> None:
        """Waits for the writer and closes the connection."""
        await self._writer.close()
        await self._connection.close()

    def _count_wasted(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Counts the tokens of a failed attempt."""
        self._writer.spend(prompt_tokens, completion_tokens)
        self.usage.wasted_tokens += prompt_tokens + completion_tokens
        self.usage.paid = self._budget.spent - self._spent_before

    def _print_progress(self, total: int) -> None:
        """Prints a line of progress every PROGRESS_EVERY_S seconds."""
        now = time.monotonic()
        if now - self._printed_at >= PROGRESS_EVERY_S:
            self._printed_at = now
            console.print(f"  {self._config.model}: {self.usage.line(total)}")


def _is_ready(source: Completion | _InFlight) -> bool:
    """Returns whether an answer has arrived."""
    return isinstance(source, Completion) or source.future.done()

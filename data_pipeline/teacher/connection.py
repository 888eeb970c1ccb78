"""One session with a server: asks until there is an answer, or until it is clear that none will be.

aiohttp, since its time-outs tell a stalled stream (`sock_read`) from a long answer (`total`).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from data_pipeline.config import TeacherConfig
from data_pipeline.teacher import wire
from data_pipeline.teacher.errors import RequestFailedError, RetryableError, TeacherError
from data_pipeline.teacher.limits import Budget, Limits
from data_pipeline.teacher.settings import api_key, base_url, proxy_for
from data_pipeline.teacher.usage import Usage
from data_pipeline.teacher.wire import Completion, Vectors

IN_A_ROW = 16  # so many requests without one answer between them: the fault is not theirs
LONGEST_PAUSE_S = 3600.0  # a server that asks for a longer one has spent a day's quota
KEPT = "All answers so far are kept: the same command goes on from here."

T = TypeVar("T", Completion, Vectors)
Read = Callable[[aiohttp.ClientResponse], Awaitable[T]]
Keep = Callable[[T], Awaitable[None]]
Tokens = tuple[int, int]  # of a prompt, and of its completion


class Connection:
    """Asks one server; made and used inside a running event loop.

    `wasted` is called with (prompt tokens, completion tokens) of an attempt that came to nothing
    after part of its answer had been written.

    Raises TeacherError from every method when there is no use in going on.
    """

    def __init__(
        self,
        config: TeacherConfig,
        usage: Usage,
        budget: Budget,
        wasted: Callable[[int, int], None],
    ) -> None:
        self._config, self._usage, self._budget, self._wasted = config, usage, budget, wasted
        self._url = base_url(config)
        self._key = api_key(config)
        # Not aiohttp's trust_env: that would put the password of a .netrc in the key's place.
        self._proxy = proxy_for(self._url)
        self._limits = Limits(config)
        self._order = itertools.count()
        self._random = random.Random()
        self._probing = asyncio.Lock()
        self._probed = False
        self._models: list[str] = []
        self._answers = 0
        self._without_answer = 0  # requests in a row
        self._over: TeacherError | None = None
        headers = {"Accept": "text/event-stream, application/json", "User-Agent": "hare-jax"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(
                total=config.answer_timeout_s,
                sock_connect=config.connect_timeout_s,
                sock_read=config.stall_timeout_s,
            ),
            connector=aiohttp.TCPConnector(limit=config.concurrency),
        )

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, body: dict[str, Any], keep: Keep[Completion]) -> None:
        """Has the answer to a body of wire.chat_body kept. Raises RequestFailedError, TeacherError."""
        prompt = wire.prompt_estimate(body["messages"])

        async def read(response: aiohttp.ClientResponse) -> Completion:
            if response.content_type == "application/json":
                return wire.whole_answer(await self._body(response), prompt)
            if response.content_type != "text/event-stream":
                text = wire.quoted(await self._body(response))
                raise RetryableError(f"content type {response.content_type!r}: {text}")
            stream = wire.Stream()
            try:
                async for data in response.content.iter_any():
                    stream.feed(data)
            except (aiohttp.ClientError, TimeoutError) as error:
                if not stream.finish:  # what follows an answer that is all there may be missing
                    raise RetryableError(described(error), received=stream.text) from None
            return stream.answer(prompt)

        longest = int(body.get("max_tokens") or 0)
        await self._persist("chat/completions", body, (prompt, longest), read, keep)

    async def embed(self, body: dict[str, Any], keep: Keep[Vectors]) -> None:
        """Has the vectors for a body of wire.embedding_body kept."""
        texts = body["input"]
        tokens = sum(wire.estimate_tokens(text) for text in texts)

        async def read(response: aiohttp.ClientResponse) -> Vectors:
            return wire.vectors(await self._body(response), len(texts), tokens)

        await self._persist("embeddings", body, (tokens, 0), read, keep)

    async def _persist(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> None:
        """Asks until there is an answer; `tokens` of the prompt, about, and of it, at most."""
        try:
            await self._probe()
            await self._ask_again(path, body, tokens, read, keep)
        except TeacherError as error:
            self._over = self._over or error  # the others in the queue need not find out again
            raise

    async def _ask_again(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> None:
        prompt, completion = tokens
        order = next(self._order)
        for attempt in range(self._config.max_retries + 1):
            # Twice the estimate of the prompt, so that a dense one does not break the budget.
            async with (
                self._limits.places.place(order),
                self._budget.holding(2 * prompt, completion),
            ):
                # Last, since the moment that the pace grants must not go stale in a queue.
                await self._limits.wait(prompt + completion)
                if self._over:
                    raise self._over
                failure = await self._try_once(path, body, tokens, read, keep)
            if failure is None:
                return
            if attempt < self._config.max_retries:
                await self._back_off(attempt, failure)
        reason = f"no answer after {self._config.max_retries + 1} attempts; the last one: {failure}"
        self._count_without_answer(self._hidden(reason))
        raise RequestFailedError(self._hidden(reason))

    async def _try_once(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> RetryableError | None:
        """Has the answer kept before its turn ends: a kill can lose no more than `concurrency`."""
        prompt, completion = tokens
        try:
            answer = await self._attempt(path, body, read)
        except RetryableError as failure:
            if failure.received:
                written = wire.estimate_tokens(failure.received)
                self._budget.spend(prompt, written)
                self._wasted(prompt, written)
            return failure
        self._answers, self._without_answer = self._answers + 1, 0
        self._budget.spend(answer.prompt_tokens, answer.completion_tokens)
        used = answer.prompt_tokens + answer.completion_tokens
        self._limits.used(prompt + completion, used)
        await keep(answer)
        return None

    async def _back_off(self, attempt: int, failure: RetryableError) -> None:
        asked_s = failure.wait_s
        if asked_s > LONGEST_PAUSE_S:
            reason = self._hidden(str(failure))
            raise TeacherError(
                f"{self._url} asks to wait {asked_s / 3600:.1f} hours ({reason}). {KEPT}"
            )
        self._usage.retries += 1
        if asked_s:
            self._limits.pause(asked_s)
        wait = min(self._config.max_backoff_s, self._config.first_backoff_s * 2**attempt)
        # Jitter, so that requests which failed together do not come back together.
        await asyncio.sleep(max(asked_s, wait * self._random.uniform(0.5, 1.0)))

    async def _attempt(self, path: str, body: dict[str, Any], read: Read[T]) -> T:
        url = f"{self._url}/{path}"
        try:
            async with self._session.post(
                url,
                json=wire.sent(self._config, body),
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                if response.status == 200:
                    return await read(response)
                data = await self._body(response)
                self._refuse(url, response.status, data)
                wait_s = wire.retry_after(response.headers, time.time())
                raise wire.failure_of(response.status, data, wait_s)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RetryableError(described(error)) from None

    def _refuse(self, url: str, status: int, data: bytes) -> None:
        """Raises for a status that asking again will not change."""
        said = self._hidden(wire.said(data))
        if wire.is_out_of_credit(status, data):
            raise TeacherError(f"{url} wants to be paid first: {said}. {KEPT}")
        if wire.is_repeated(status):
            return
        if status == 401 or (status == 403 and not self._answers):
            raise TeacherError(f"{url} refused the key (HTTP {status}): {said}. {self._key_hint()}")
        if status == 404:
            there = f"It serves {', '.join(self._models[:20])}. " if self._models else ""
            raise TeacherError(
                f"{url} answered HTTP 404 to model {self._config.model!r}: {said}. {there}"
                f"Set teacher.model to a model that it serves, and see that teacher.base_url "
                f"({self._url}) goes as far as /v1."
            )
        if status < 400 or status == 405:
            raise TeacherError(
                f"{url} answered HTTP {status}; expected an OpenAI-compatible server. "
                f"Check teacher.base_url: {self._url}"
            )
        self._count_without_answer(f"HTTP {status}: {said}")
        raise RequestFailedError(f"the server refused the request (HTTP {status}): {said}")

    def _count_without_answer(self, reason: str) -> None:
        self._without_answer += 1
        if self._without_answer >= IN_A_ROW:
            raise TeacherError(
                f"{self._url}: {IN_A_ROW} requests in a row were not answered; of the last one, "
                f"{reason}. Check the server, and the fields of teacher. {KEPT}"
            )

    async def _probe(self) -> None:
        """Before the first request: is a server there, does it take the key, has it the model?"""
        async with self._probing:
            if self._over:
                raise self._over
            if self._probed:
                return
            url = f"{self._url}/models"
            try:
                async with self._session.get(
                    url, allow_redirects=False, proxy=self._proxy
                ) as response:
                    data, status = await self._body(response), response.status
            except (
                aiohttp.ClientConnectorError,
                aiohttp.ConnectionTimeoutError,
                aiohttp.InvalidURL,
            ) as error:
                raise TeacherError(
                    f"no server answers at {url}: {self._hidden(described(error))}. Start one (for "
                    f"example `vllm serve {self._config.model}`, or llama.cpp's `llama-server`), "
                    "or set teacher.base_url to where it listens."
                ) from None
            except (aiohttp.ClientError, TimeoutError):
                data, status = b"", 500  # it is there; the requests themselves will show
            if status in (401, 403):
                raise TeacherError(
                    f"{url} refused the key (HTTP {status}): "
                    f"{self._hidden(wire.said(data))}. {self._key_hint()}"
                )
            self._models = wire.model_names(data) if status == 200 else []
            self._probed = True

    def _key_hint(self) -> str:
        if variable := self._config.api_key_variable:
            return f"Put a valid key into the environment variable {variable}."
        return (
            "Put a key into an environment variable and the variable's name into "
            "teacher.api_key_variable."
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """All of a body, without the key, so that a message cut short cannot end in half of it."""
        data = await response.read()
        return data.replace(self._key.encode(), b"[key]") if self._key else data

    def _hidden(self, text: str) -> str:
        """A text of the server without the key, which some repeat."""
        return text.replace(self._key, "[key]") if self._key else text


def described(error: BaseException) -> str:
    """An error of the network or of a time-out, which often has no words of its own.

    >>> described(TimeoutError())
    'TimeoutError: the whole answer took longer than teacher.answer_timeout_s'
    """
    words = str(error)
    if isinstance(error, TimeoutError):
        words = "the whole answer took longer than teacher.answer_timeout_s"
    if isinstance(error, aiohttp.ServerTimeoutError):
        words = f"{error} (teacher.stall_timeout_s, teacher.connect_timeout_s)"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__

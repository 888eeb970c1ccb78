"""A session with one server, with retries until there is an answer or a final error.

aiohttp is used because its time-outs distinguish a stalled stream (`sock_read`) from a long answer
(`total`).
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
from data_pipeline.teacher.wire import Completion, Embeddings

MAX_FAILED_IN_A_ROW = 16  # failed requests without an answer between them: the server is at fault
MAX_PAUSE_S = 3600.0  # a longer pause means that a daily quota is used up
KEPT = "All answers so far are kept: the same command continues from here."

T = TypeVar("T", Completion, Embeddings)
Read = Callable[[aiohttp.ClientResponse], Awaitable[T]]
Keep = Callable[[T], Awaitable[None]]
Tokens = tuple[int, int]  # (of the prompt, of the completion)


class Connection:
    """A session with one server, created and used inside a running event loop.

    Every method raises TeacherError when continuing is useless.
    """

    def __init__(
        self,
        config: TeacherConfig,
        usage: Usage,
        budget: Budget,
        wasted: Callable[[int, int], None],
    ) -> None:
        """Opens the session.

        Args:
          config: the teacher.
          usage: counts retries.
          budget: limits the cost.
          wasted: called with (prompt tokens, completion tokens) of an attempt that failed after a
            part of its answer had arrived.
        """
        self._config, self._usage, self._budget, self._count_wasted = config, usage, budget, wasted
        self._url = base_url(config)
        self._key = api_key(config)
        # aiohttp's trust_env is not used: it would replace the key by the password of a .netrc.
        self._proxy = proxy_for(self._url)
        self._limits = Limits(config)
        self._order = itertools.count()
        self._random = random.Random()
        self._check_lock = asyncio.Lock()
        self._checked = False
        self._models: list[str] = []
        self._answers = 0
        self._failed_in_a_row = 0  # requests in a row
        self._final_error: TeacherError | None = None
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
        """Closes the session."""
        await self._session.close()

    async def chat(self, body: dict[str, Any], keep: Keep[Completion]) -> None:
        """Requests the answer to a body of wire.chat_body, and passes it to `keep`.

        Raises:
          RequestFailedError: there is no answer to this request.
          TeacherError: continuing is useless.
        """
        prompt = wire.estimate_prompt_tokens(body["messages"])

        async def read(response: aiohttp.ClientResponse) -> Completion:
            if response.content_type == "application/json":
                return wire.parse_completion(await self._body(response), prompt)
            if response.content_type != "text/event-stream":
                text = wire.quoted(await self._body(response))
                raise RetryableError(f"content type {response.content_type!r}: {text}")
            stream = wire.Stream()
            try:
                async for data in response.content.iter_any():
                    stream.feed(data)
            except (aiohttp.ClientError, TimeoutError) as error:
                # The end of the stream may be missing after a complete answer.
                if not stream.finish:
                    raise RetryableError(describe_error(error), received=stream.text) from None
            return stream.answer(prompt)

        longest = int(body.get("max_tokens") or 0)
        await self._request("chat/completions", body, (prompt, longest), read, keep)

    async def embed(self, body: dict[str, Any], keep: Keep[Embeddings]) -> None:
        """Requests the embeddings for a body of wire.embedding_body, and passes them to `keep`."""
        texts = body["input"]
        tokens = sum(wire.estimate_tokens(text) for text in texts)

        async def read(response: aiohttp.ClientResponse) -> Embeddings:
            return wire.parse_embeddings(await self._body(response), len(texts), tokens)

        await self._request("embeddings", body, (tokens, 0), read, keep)

    async def _request(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> None:
        """Checks the server before the first request, then requests an answer with retries.

        Args:
          path: of the endpoint.
          body: of the request.
          tokens: estimated tokens of the prompt, and maximum tokens of the answer.
          read: parses a response.
          keep: stores an answer.
        """
        try:
            await self._check_server()
            await self._request_with_retries(path, body, tokens, read, keep)
        except TeacherError as error:
            self._final_error = self._final_error or error  # requests in the queue fail at once
            raise

    async def _request_with_retries(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> None:
        """Requests an answer within all limits, with retries; parameters as in `_request`."""
        prompt, completion = tokens
        order = next(self._order)
        for attempt in range(self._config.max_retries + 1):
            # Twice the estimate of the prompt, because dense text has more tokens.
            async with (
                self._limits.slots.slot(order),
                self._budget.reserving(2 * prompt, completion),
            ):
                # Last, because the time granted by the rate limit must not pass in a queue.
                await self._limits.wait(prompt + completion)
                if self._final_error:
                    raise self._final_error
                failure = await self._try_once(path, body, tokens, read, keep)
            if failure is None:
                return
            if attempt < self._config.max_retries:
                await self._back_off(attempt, failure)
        reason = f"no answer after {self._config.max_retries + 1} attempts; the last one: {failure}"
        self._count_failure(self._without_key(reason))
        raise RequestFailedError(self._without_key(reason))

    async def _try_once(
        self, path: str, body: dict[str, Any], tokens: Tokens, read: Read[T], keep: Keep[T]
    ) -> RetryableError | None:
        """Makes one attempt; returns its error, or None after the answer is stored.

        The answer is stored before the slot is released, so that a kill loses at most `concurrency`
        answers.
        """
        prompt, completion = tokens
        try:
            answer = await self._attempt(path, body, read)
        except RetryableError as failure:
            if failure.received:
                written = wire.estimate_tokens(failure.received)
                self._budget.spend(prompt, written)
                self._count_wasted(prompt, written)
            return failure
        self._answers, self._failed_in_a_row = self._answers + 1, 0
        self._budget.spend(answer.prompt_tokens, answer.completion_tokens)
        used = answer.prompt_tokens + answer.completion_tokens
        self._limits.used(prompt + completion, used)
        await keep(answer)
        return None

    async def _back_off(self, attempt: int, failure: RetryableError) -> None:
        """Waits before the next attempt."""
        asked_s = failure.wait_s
        if asked_s > MAX_PAUSE_S:
            reason = self._without_key(str(failure))
            raise TeacherError(
                f"{self._url} requests a pause of {asked_s / 3600:.1f} hours ({reason}). {KEPT}"
            )
        self._usage.retries += 1
        if asked_s:
            self._limits.pause(asked_s)
        wait = min(self._config.max_backoff_s, self._config.first_backoff_s * 2**attempt)
        # Jitter, so that requests that failed together are not retried together.
        await asyncio.sleep(max(asked_s, wait * self._random.uniform(0.5, 1.0)))

    async def _attempt(self, path: str, body: dict[str, Any], read: Read[T]) -> T:
        """Sends a request and returns the parsed response."""
        url = f"{self._url}/{path}"
        try:
            async with self._session.post(
                url,
                json=wire.request_body(self._config, body),
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                if response.status == 200:
                    return await read(response)
                data = await self._body(response)
                self._raise_if_permanent(url, response.status, data)
                wait_s = wire.retry_after(response.headers, time.time())
                raise wire.retryable_error(response.status, data, wait_s)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RetryableError(describe_error(error)) from None

    def _raise_if_permanent(self, url: str, status: int, data: bytes) -> None:
        """Raises an error for a status that a retry would not change."""
        said = self._without_key(wire.server_message(data))
        if wire.is_out_of_credit(status, data):
            raise TeacherError(f"{url} requires payment: {said}. {KEPT}")
        if wire.is_retryable(status):
            return
        if status == 401 or (status == 403 and not self._answers):
            raise TeacherError(f"{url} refused the key (HTTP {status}): {said}. {self._key_hint()}")
        if status == 404:
            available = f"It serves {', '.join(self._models[:20])}. " if self._models else ""
            raise TeacherError(
                f"{url} answered HTTP 404 to model {self._config.model!r}: {said}. {available}"
                f"Set teacher.model to a model that it serves, and check that teacher.base_url "
                f"({self._url}) ends in /v1."
            )
        if status < 400 or status == 405:
            raise TeacherError(
                f"{url} answered HTTP {status}; expected an OpenAI-compatible server. "
                f"Check teacher.base_url: {self._url}"
            )
        self._count_failure(f"HTTP {status}: {said}")
        raise RequestFailedError(f"the server refused the request (HTTP {status}): {said}")

    def _count_failure(self, reason: str) -> None:
        """Counts a failed request; raises TeacherError after MAX_FAILED_IN_A_ROW of them."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise TeacherError(
                f"{self._url}: {MAX_FAILED_IN_A_ROW} requests in a row failed; the last one: "
                f"{reason}. Check the server, and the fields of teacher. {KEPT}"
            )

    async def _check_server(self) -> None:
        """Checks, before the first request, that the server answers and accepts the key."""
        async with self._check_lock:
            if self._final_error:
                raise self._final_error
            if self._checked:
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
                    f"no server answers at {url}: {self._without_key(describe_error(error))}. "
                    f"Start one, such as `vllm serve {self._config.model}` or llama.cpp's "
                    "`llama-server`, or set teacher.base_url to its address."
                ) from None
            except (aiohttp.ClientError, TimeoutError):
                data, status = b"", 500  # the server is there; the requests will show what is wrong
            if status in (401, 403):
                raise TeacherError(
                    f"{url} refused the key (HTTP {status}): "
                    f"{self._without_key(wire.server_message(data))}. {self._key_hint()}"
                )
            self._models = wire.model_names(data) if status == 200 else []
            self._checked = True

    def _key_hint(self) -> str:
        """Returns advice about the key."""
        if variable := self._config.api_key_variable:
            return f"Put a valid key into the environment variable {variable}."
        return (
            "Put a key into an environment variable and the variable's name into "
            "teacher.api_key_variable."
        )

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Returns a response's body without the key, also where a message would cut it in half."""
        data = await response.read()
        return data.replace(self._key.encode(), b"[key]") if self._key else data

    def _without_key(self, text: str) -> str:
        """Returns a text of the server without the key, which some servers repeat."""
        return text.replace(self._key, "[key]") if self._key else text


def describe_error(error: BaseException) -> str:
    """Returns a description of a network error or time-out, which often has no message of its own.

    >>> describe_error(TimeoutError())
    'TimeoutError: the whole answer took longer than teacher.answer_timeout_s'
    """
    words = str(error)
    if isinstance(error, TimeoutError):
        words = "the whole answer took longer than teacher.answer_timeout_s"
    if isinstance(error, aiohttp.ServerTimeoutError):
        words = f"{error} (teacher.stall_timeout_s, teacher.connect_timeout_s)"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__

"""The protocol: request bodies, parsing of responses, statuses. No network access.

Chat completions and embeddings as in the OpenAI API reference, and as vLLM and llama.cpp's server
implement them; streams are server-sent events (HTML standard, section 9.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from data_pipeline.config import Structure, TeacherConfig
from data_pipeline.teacher.errors import RetryableError
from data_pipeline.teacher.messages import TeacherRequest

KEY_VERSION = 1  # increased only when equal keys no longer mean equal requests
MAX_ANSWER_BYTES = 64 << 20
BYTES_PER_TOKEN = 4  # of English text; used only if a server does not count
RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})  # besides all statuses >= 500


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer of the server. `estimated`: it sent no token counts, so they are estimates."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False

    def to_bytes(self) -> bytes:
        """Returns the answer as JSON, for the cache."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Completion:
        """Returns the answer of `to_bytes`; unknown fields are ignored."""
        fields = json.loads(value)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings, float32 [N, D]; they take no completion tokens."""

    array: np.ndarray
    prompt_tokens: int
    completion_tokens: int = 0


def estimate_tokens(text: str) -> int:
    """Returns an estimate of the tokens of a text, at 4 bytes per token.

    >>> estimate_tokens("Hares are fast.")
    4
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def estimate_prompt_tokens(messages: list[dict[str, str]]) -> int:
    """Returns an estimate of the tokens of a prompt, with four per message for the template."""
    return sum(estimate_tokens(message["content"]) + 4 for message in messages)


def identity(config: TeacherConfig) -> dict[str, Any]:
    """Returns the settings that determine the answers, which are part of a stage's address.

    >>> sorted(identity(TeacherConfig(model="m", concurrency=8)))
    ['extra_body', 'model', 'seed', 'structure', 'temperature', 'top_p']
    """
    return {
        "model": config.model,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
        "structure": config.structure.value,
        "extra_body": config.extra_body,
    }


# ---- requests


def chat_body(config: TeacherConfig, request: TeacherRequest) -> dict[str, Any]:
    """Returns the body of a chat request: everything that determines its answer."""
    body: dict[str, Any] = {
        "model": config.model,
        "messages": [{"role": role, "content": text} for role, text in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed + request.sample,
    }
    if request.schema is not None and config.structure is not Structure.NONE:
        form: dict[str, Any] = {"type": config.structure.value}
        if config.structure is Structure.JSON_SCHEMA:
            form["json_schema"] = {"name": "answer", "schema": request.schema, "strict": True}
        body["response_format"] = form
    return body | config.extra_body


def embedding_body(config: TeacherConfig, texts: str | list[str]) -> dict[str, Any]:
    """Returns the body of an embeddings request."""
    return {"model": config.model, "input": texts} | config.extra_body


def request_body(config: TeacherConfig, body: dict[str, Any]) -> dict[str, Any]:
    """Returns a body as it is sent: chat is streamed, and fields that are None are removed."""
    if "messages" in body:
        body = {"stream": True, "stream_options": {"include_usage": True}} | body
        body = {config.max_tokens_field if k == "max_tokens" else k: v for k, v in body.items()}
    return {name: value for name, value in body.items() if value is not None}


def cache_key(body: dict[str, Any], sample: int = 0) -> bytes:
    """Returns the 32 bytes under which the answer to a body is stored.

    The number of the sample is part of the key besides the seed, which a server may ignore.
    """
    asked = {n: v for n, v in body.items() if n not in ("stream", "stream_options")}
    whole = {"version": KEY_VERSION, "sample": sample, "body": asked}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).digest()


# ---- responses


@dataclass(slots=True)
class Stream:
    """A parser that assembles an answer from the bytes of a stream, however they are divided."""

    parts: list[str] = field(default_factory=list)
    finish: str = ""
    usage: Any = None
    _size: int = 0
    _line: bytes = b""

    def feed(self, data: bytes) -> None:
        """Parses more bytes.

        Raises:
          RetryableError: the stream contains an error of the server, or no JSON.
        """
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            raise RetryableError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._read_line(line.rstrip(b"\r"))

    @property
    def text(self) -> str:
        """The text received so far."""
        return "".join(self.parts)

    def answer(self, prompt_tokens: int) -> Completion:
        """Returns the answer, once the stream has ended.

        Args:
          prompt_tokens: an estimate, for a server that does not count.

        Raises:
          RetryableError: the answer is incomplete.
        """
        self.feed(b"\n")  # the last line may lack a newline
        if not self.finish:
            raise RetryableError("the stream ended before the answer did", received=self.text)
        return _answer(self.text, self.finish, self.usage, prompt_tokens)

    def _read_line(self, line: bytes) -> None:
        """Parses one line of the stream."""
        name, _, data = line.partition(b":")
        data = data.strip()
        if name == b"error":
            raise retryable_error(200, data)
        if name != b"data" or not data or data == b"[DONE]":
            return  # comments keep the connection alive; other fields are not used
        try:
            value = _loads(data)
        except ValueError:
            raise RetryableError(
                f"no JSON in the stream: {quoted(data)}", received=self.text
            ) from None
        if not isinstance(value, dict) or "error" in value:
            raise retryable_error(200, data)
        if value.get("usage"):
            self.usage = value["usage"]
        choice = _choice(value)
        if choice is not None:
            self.parts.append(_content(choice.get("delta")))
            self.finish = str(choice.get("finish_reason") or self.finish)


def parse_completion(data: bytes, prompt_tokens: int) -> Completion:
    """Returns the answer of a server that does not stream.

    Raises:
      RetryableError: the answer is incomplete, or not JSON.
    """
    value = _object(data)
    choice = _choice(value)
    if choice is None or not choice.get("finish_reason"):
        raise RetryableError(f"no finished choice in the answer: {quoted(data)}")
    text = _content(choice.get("message"))
    return _answer(text, str(choice["finish_reason"]), value.get("usage"), prompt_tokens)


def parse_embeddings(data: bytes, count: int, prompt_tokens: int) -> Embeddings:
    """Returns the response of an embeddings endpoint to `count` texts.

    Args:
      data: the body of the response.
      count: number of texts.
      prompt_tokens: an estimate, for a server that does not count.

    Raises:
      RetryableError: it is not `count` vectors of one length with finite numbers.
    """
    value = _object(data)
    try:
        rows = sorted(value["data"], key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(count)):
            raise ValueError("rows")
        array = np.array([row["embedding"] for row in rows], np.float32)
    except (KeyError, TypeError, ValueError):
        array = np.empty(0, np.float32)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise RetryableError(f"not {count} vectors of finite numbers: {quoted(data)}")
    usage = value.get("usage")
    counted = _count(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
    return Embeddings(array, prompt_tokens if counted is None else counted)


def model_names(data: bytes) -> list[str]:
    """Returns the models that GET /models lists; [] if the response has another form."""
    try:
        return sorted({str(row["id"]) for row in _loads(data)["data"]})
    except (ValueError, KeyError, TypeError):
        return []


def _loads(data: bytes) -> Any:
    """Parses JSON; raises ValueError also for JSON that is nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(data: bytes) -> dict[str, Any]:
    """Parses a JSON object; raises RetryableError."""
    try:
        value = _loads(data)
    except ValueError:
        raise RetryableError(f"no JSON: {quoted(data)}") from None
    if not isinstance(value, dict) or "error" in value:
        raise retryable_error(200, data)
    return value


def _choice(value: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the choice of an event or answer; None for the event with token counts."""
    choices = value.get("choices")
    if not choices:
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise RetryableError(f"no choices as they should be: {quoted(json.dumps(value).encode())}")
    return choices[0]


def _content(message: Any) -> str:
    """Returns the text of a message or delta, whose content is a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    if content is not None and not isinstance(content, str):
        raise RetryableError(f"the answer's content is no text: {content!r:.80}")
    return content or ""


def _answer(text: str, finish: str, usage: Any, prompt_tokens: int) -> Completion:
    """Returns the answer, with estimates if the server sent no token counts."""
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(counts.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
    if prompt is None or completion is None:
        return Completion(text, finish, prompt_tokens, estimate_tokens(text), estimated=True)
    return Completion(text, finish, prompt, completion)


def _count(value: Any) -> int | None:
    """Returns a token count, or None if it is not one."""
    return value if type(value) is int and value >= 0 else None


# ---- statuses and errors


def quoted(data: bytes, length: int = 200) -> str:
    """Returns the first characters of a response, on one line."""
    text = " ".join(data[: 4 * length].decode("utf-8", "replace").split())
    return repr(text[:length] + ("..." if len(text) > length else ""))


def server_message(data: bytes) -> str:
    """Returns the message in a server's error, or its first characters."""
    try:
        error = _loads(data)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        message = None
    return quoted(message.encode("utf-8", "replace") if isinstance(message, str) else data, 300)


def retryable_error(status: int, data: bytes, wait_s: float = 0.0) -> RetryableError:
    """Returns an error that can be retried, with the message of the server."""
    return RetryableError(f"HTTP {status}: {server_message(data)}", wait_s=wait_s)


def is_retryable(status: int) -> bool:
    """Returns whether a request with this status can be retried."""
    return status in RETRYABLE_STATUSES or status >= 500


def is_out_of_credit(status: int, data: bytes) -> bool:
    """Returns whether payment is required; OpenAI uses the status of a rate limit for it."""
    return status == 402 or (status == 429 and b"insufficient_quota" in data)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Returns the pause that a server requests, in seconds: a number or a date (RFC 9110, 10.2.3).

    >>> retry_after({"Retry-After": "2.5"}, now=0.0)
    2.5
    """
    for name, unit in (("Retry-After-Ms", 1e-3), ("Retry-After", 1.0)):
        value = headers.get(name, "").strip()
        try:
            return min(max(0.0, float(value) * unit), 1e9)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, TypeError):
            pass
    return 0.0

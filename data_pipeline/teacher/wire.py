"""The protocol: what is sent, what comes back, and what a status means. No input or output here.

Chat completions and embeddings as the OpenAI API reference describes them, and as vLLM and
llama.cpp's server speak them; streams are server-sent events (HTML standard, section 9.2).
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

KEY_VERSION = 1  # raised only when equal keys would no longer mean equal questions
MAX_ANSWER_BYTES = 64 << 20
BYTES_A_TOKEN = 4  # of English text, about; only where a server does not count
RETRIED = frozenset({408, 409, 425, 429})  # and from 500 on


@dataclass(frozen=True, slots=True)
class Completion:
    """What a server answered. `estimated`: it gave no token counts, so these are estimates."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False

    def to_bytes(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Completion:
        """Fields that this version does not know are left aside."""
        fields = json.loads(value)
        return cls(**{name: fields[name] for name in cls.__slots__ if name in fields})


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, float32 [N, D]; they take no completion tokens."""

    array: np.ndarray
    prompt_tokens: int
    completion_tokens: int = 0


def estimate_tokens(text: str) -> int:
    """
    >>> estimate_tokens("Hares are fast.")
    4
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)


def prompt_estimate(messages: list[dict[str, str]]) -> int:
    """Tokens of a prompt, with four a message for the template around it."""
    return sum(estimate_tokens(message["content"]) + 4 for message in messages)


def identity(config: TeacherConfig) -> dict[str, Any]:
    """What of a teacher determines its answers: the part that belongs to the address of a stage.

    >>> sorted(identity(Teacher(model="m", concurrency=8)))
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


# ---- what is sent


def chat_body(config: TeacherConfig, request: TeacherRequest) -> dict[str, Any]:
    """All that determines the answer to a request, as the server gets it."""
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
    return {"model": config.model, "input": texts} | config.extra_body


def sent(config: TeacherConfig, body: dict[str, Any]) -> dict[str, Any]:
    """A body as it goes over the wire: chat streams, and fields that are None are left out."""
    if "messages" in body:
        body = {"stream": True, "stream_options": {"include_usage": True}} | body
        body = {config.max_tokens_field if k == "max_tokens" else k: v for k, v in body.items()}
    return {name: value for name, value in body.items() if value is not None}


def key(body: dict[str, Any], sample: int = 0) -> bytes:
    """The 32 bytes under which the answer to a body is kept.

    The number of the sample counts apart from the seed, which a server may not know.
    """
    asked = {n: v for n, v in body.items() if n not in ("stream", "stream_options")}
    whole = {"version": KEY_VERSION, "sample": sample, "body": asked}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).digest()


# ---- what comes back


@dataclass(slots=True)
class Stream:
    """Puts an answer together from the bytes of a stream, however they are cut up."""

    parts: list[str] = field(default_factory=list)
    finish: str = ""
    usage: Any = None
    _size: int = 0
    _line: bytes = b""

    def feed(self, data: bytes) -> None:
        """Raises Failure where the stream holds an error of the server, or no JSON."""
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            raise RetryableError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._take(line.rstrip(b"\r"))

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def answer(self, prompt_tokens: int) -> Completion:
        """The answer, once the stream has ended. Raises Failure if it is not all there.

        Args:
          prompt_tokens: an estimate, for a server that does not count.
        """
        self.feed(b"\n")  # a last line need not end in one
        if not self.finish:
            raise RetryableError("the stream ended before the answer did", received=self.text)
        return _answer(self.text, self.finish, self.usage, prompt_tokens)

    def _take(self, line: bytes) -> None:
        name, _, data = line.partition(b":")
        data = data.strip()
        if name == b"error":
            raise failure_of(200, data)
        if name != b"data" or not data or data == b"[DONE]":
            return  # comments keep a connection alive; events have no other fields for us
        try:
            value = _loads(data)
        except ValueError:
            raise RetryableError(
                f"no JSON in the stream: {quoted(data)}", received=self.text
            ) from None
        if not isinstance(value, dict) or "error" in value:
            raise failure_of(200, data)
        if value.get("usage"):
            self.usage = value["usage"]
        choice = _choice(value)
        if choice is not None:
            self.parts.append(_content(choice.get("delta")))
            self.finish = str(choice.get("finish_reason") or self.finish)


def whole_answer(data: bytes, prompt_tokens: int) -> Completion:
    """The answer of a server that does not stream. Raises Failure."""
    value = _object(data)
    choice = _choice(value)
    if choice is None or not choice.get("finish_reason"):
        raise RetryableError(f"no finished choice in the answer: {quoted(data)}")
    text = _content(choice.get("message"))
    return _answer(text, str(choice["finish_reason"]), value.get("usage"), prompt_tokens)


def vectors(data: bytes, count: int, prompt_tokens: int) -> Vectors:
    """What an embeddings endpoint answered to `count` texts.

    Raises Failure where it is not `count` vectors of one length with finite numbers.
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
    return Vectors(array, prompt_tokens if counted is None else counted)


def model_names(data: bytes) -> list[str]:
    """What GET /models lists; empty where it lists nothing that we know."""
    try:
        return sorted({str(row["id"]) for row in _loads(data)["data"]})
    except (ValueError, KeyError, TypeError):
        return []


def _loads(data: bytes) -> Any:
    """Raises ValueError, for JSON that is nested too deeply as well."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = _loads(data)
    except ValueError:
        raise RetryableError(f"no JSON: {quoted(data)}") from None
    if not isinstance(value, dict) or "error" in value:
        raise failure_of(200, data)
    return value


def _choice(value: dict[str, Any]) -> dict[str, Any] | None:
    """The one choice of an event or answer; the event with the token counts has none."""
    choices = value.get("choices")
    if not choices:
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise RetryableError(f"no choices as they should be: {quoted(json.dumps(value).encode())}")
    return choices[0]


def _content(message: Any) -> str:
    """The text of a message, or of a piece of one: a string, or parts of which some are text."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    if content is not None and not isinstance(content, str):
        raise RetryableError(f"the answer's content is no text: {content!r:.80}")
    return content or ""


def _answer(text: str, finish: str, usage: Any, prompt_tokens: int) -> Completion:
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (_count(counts.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
    if prompt is None or completion is None:
        return Completion(text, finish, prompt_tokens, estimate_tokens(text), estimated=True)
    return Completion(text, finish, prompt, completion)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


# ---- what a status means


def quoted(data: bytes, length: int = 200) -> str:
    """The first characters of what a server sent, on one line."""
    text = " ".join(data[: 4 * length].decode("utf-8", "replace").split())
    return repr(text[:length] + ("..." if len(text) > length else ""))


def said(data: bytes) -> str:
    """The message in a server's error, or its first characters."""
    try:
        error = _loads(data)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        message = None
    return quoted(message.encode("utf-8", "replace") if isinstance(message, str) else data, 300)


def failure_of(status: int, data: bytes, wait_s: float = 0.0) -> RetryableError:
    """A failure that may be repeated, with what the server said of it."""
    return RetryableError(f"HTTP {status}: {said(data)}", wait_s=wait_s)


def is_repeated(status: int) -> bool:
    """Whether a request with this status may be asked again."""
    return status in RETRIED or status >= 500


def is_out_of_credit(status: int, data: bytes) -> bool:
    """Payment required; OpenAI says so with the status of a rate limit."""
    return status == 402 or (status == 429 and b"insufficient_quota" in data)


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Seconds that a server asks us to wait: a number or a date (RFC 9110, section 10.2.3).

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

"""Requests to a teacher and replies from it, which is all that prompts and output filters know.

>>> prompt = (("user", "Write a story about tides."),)
>>> request = TeacherRequest("web/1#story", prompt, max_tokens=800)
>>> TeacherReply(request.id, "The sea ...", "stop", prompt_tokens=11, completion_tokens=512).error
''
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One prompt.

    `messages` are (role, content) with the roles "system", "user" and "assistant". `schema` is a
    JSON schema that the server enforces as far as it can (config.Structure); the answer must be
    validated all the same. `sample` numbers several samples of one prompt, from 0.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    sample: int = 0


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """The answer to the request with the same id, or the error in its place.

    `finish` is the server's reason for the end: "stop" (the model ended), "length" (cut at
    `max_tokens`), "content_filter", and others. Tokens are counted by the server, or estimated if
    it does not count. `error` is "" if there is an answer; otherwise `text` is "".
    """

    id: str
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""

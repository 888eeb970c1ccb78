"""What is asked of a teacher and what comes back. Prompts, parsing and gates know only these two.

>>> request = Request("web/1#story", (("user", "Write a story about tides."),), max_tokens=800)
>>> Reply(request.id, "The sea ...", finish="stop", prompt_tokens=11, completion_tokens=512).error
''
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """One prompt.

    `messages` are (role, content), role one of "system", "user", "assistant". `schema` is a JSON
    schema that the server is asked to hold to, as far as it can (config.Structure): the answer has
    to be validated all the same. `sample` numbers several samples of one prompt from 0 on.
    """

    id: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    schema: dict[str, Any] | None = None
    sample: int = 0


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """The answer to the request of the same id, or why there is none.

    `finish` is the server's word for why it stopped: "stop" (the model ended), "length" (cut at
    `max_tokens`), "content_filter", ... Tokens are the server's own count, or an estimate where it
    gave none. `error` is empty where there is an answer; else the text is empty.
    """

    id: str
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""

"""A teacher for tests: an OpenAI-compatible server that answers by prompt, and fails as it is told.

Run as a process of its own (fixture `serve_teacher` in conftest.py). For each line of settings that
it reads it prints the address of a new server; they serve until the input ends. Answers are a
function of the request alone; which attempts fail, and how, is a function of (seed, prompt, number
of the attempt). Every event goes to a log, a line of JSON each.

    {"log": "a.jsonl", "fault_rate": 0.3, "faults": {"cut": 1, "429": 2}}
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

# One for each way in which servers, proxies and networks are known to fail.
FAULTS = (
    "429",  # too fast, with Retry-After
    "500",
    "502_html",  # a proxy's page
    "stall",  # nothing, for longer than anyone waits
    "stall_in_stream",
    "cut",  # the connection breaks in the middle of a stream
    "cut_cleanly",  # the stream ends as if it were whole, before the answer does
    "nonsense",  # a stream that is no JSON
    "error_in_stream",
    "html",  # status 200, but a page
    "truncated_json",  # status 200, half an answer
    "empty_choices",
)


@dataclass
class Settings:
    log: str
    model: str = "teacher"
    key: str = ""  # what must come as "Authorization: Bearer KEY"
    answers: str = (
        ""  # a Python file with answer(body) -> str, maybe finish(body) -> str; "": words
    )
    seed: int = 0
    fault_rate: float = 0.0  # of attempts
    faults: dict[str, float] = field(default_factory=dict)  # kind -> weight; {} is all alike
    most_faults: int = 3  # of one prompt, in a row
    stall_s: float = 60.0
    retry_after_s: float = 0.05
    delay_s: float = 0.0  # of each answer
    status: int = 0  # every request is answered with this status
    error: str = "no"  # and this message
    usage: bool = True  # whether tokens are counted
    streams: bool = True  # whether a request for a stream is followed
    dimensions: int = 16  # of embeddings


def words(body: dict[str, Any]) -> str:
    """A few dozen words that depend on everything that is asked, beyond ASCII too.

    >>> words({"messages": []}) == words({"messages": []})
    True
    """
    asked = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
    rng = random.Random(json.dumps(asked, sort_keys=True))
    some = ["hare", "naïve", "über", "兎", "runs", '"under"', "skies", "and", "\\", "🐇", "\n"]
    return " ".join(rng.choices(some, k=rng.randint(3, 40)))


def vector(text: str, dimensions: int) -> list[float]:
    """Hashed words, so that texts with words in common lie near each other."""
    found = [0.0] * dimensions
    for word in text.lower().split():
        found[hashlib.sha256(word.encode()).digest()[0] % dimensions] += 1.0
    return found or [0.0]


class Server:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.attempts: Counter[str] = Counter()
        self.in_flight = 0
        self.log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.answer: Callable[[dict[str, Any]], str] = words
        self.finish: Callable[[dict[str, Any]], str] = lambda body: "stop"
        if settings.answers:
            spec = importlib.util.spec_from_file_location("answers", settings.answers)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.answer = module.answer
            self.finish = getattr(module, "finish", self.finish)

    def write(self, event: str, prompt: str, **more: Any) -> None:
        row = {"event": event, "time": time.monotonic(), "prompt": prompt, **more}
        os.write(self.log, json.dumps(row).encode() + b"\n")

    def fault(self, prompt: str) -> str:
        """The fault of this attempt, or ""."""
        attempt = self.attempts[prompt]
        self.attempts[prompt] += 1
        rng = random.Random(f"{self.settings.seed}/{prompt}/{attempt}")
        if attempt >= self.settings.most_faults or rng.random() >= self.settings.fault_rate:
            return ""
        weights = self.settings.faults or dict.fromkeys(FAULTS, 1.0)
        return rng.choices(list(weights), list(weights.values()))[0]

    async def models(self, request: web.Request) -> web.Response:
        if refusal := self.refusal(request):
            return refusal
        return web.json_response({"object": "list", "data": [{"id": self.settings.model}]})

    def refusal(self, request: web.Request) -> web.Response | None:
        key = request.headers.get("Authorization", "")
        if self.settings.key and key != f"Bearer {self.settings.key}":
            return problem(401, f"Incorrect API key provided: {key}")
        return None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = json.dumps([body["messages"], body.get("seed")])
        self.in_flight += 1
        self.write("asked", body["messages"][-1]["content"], in_flight=self.in_flight, body=body)
        try:
            response = await self.respond(request, body, prompt)
        finally:
            self.in_flight -= 1
        return response

    async def respond(
        self, request: web.Request, body: dict[str, Any], prompt: str
    ) -> web.StreamResponse:
        last = body["messages"][-1]["content"]
        if refusal := self.refusal(request):
            return refusal
        if self.settings.status:
            return problem(self.settings.status, self.settings.error)
        if body["model"] != self.settings.model:
            return problem(404, f"The model `{body['model']}` does not exist.")
        text = self.answer(body)
        fault = self.fault(prompt)
        if fault:
            self.write("fault", last, kind=fault)
            return await self.fail(request, fault, text)
        await asyncio.sleep(self.settings.delay_s)
        usage = {"prompt_tokens": len(last), "completion_tokens": len(text)}
        counted = {"usage": usage} if self.settings.usage else {}
        if not (body.get("stream") and self.settings.streams):
            message = {"role": "assistant", "content": text}
            self.write("answered", last)
            return web.json_response(
                {"choices": [choice(self.finish(body), message=message)], **counted}
            )
        response = await begin(request)
        for piece in pieces(text):
            await event(response, {"choices": [choice(None, delta={"content": piece})]})
        await event(response, {"choices": [choice(self.finish(body), delta={})]})
        if self.settings.usage and (body.get("stream_options") or {}).get("include_usage"):
            await event(response, {"choices": [], **counted})
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        self.write("answered", last)
        return response

    async def fail(self, request: web.Request, fault: str, text: str) -> web.StreamResponse:
        if fault == "429":
            after = {"Retry-After": str(self.settings.retry_after_s)}
            return problem(429, "Rate limit reached", headers=after)
        if fault == "500":
            return problem(500, "internal error")
        if fault in ("502_html", "html"):
            page = "<html><body>Bad gateway</body></html>"
            status = 502 if fault == "502_html" else 200
            return web.Response(status=status, text=page, content_type="text/html")
        if fault == "stall":
            await asyncio.sleep(self.settings.stall_s)
            return problem(500, "after a long sleep")
        if fault == "truncated_json":
            whole = json.dumps({"choices": [choice("stop", message={"content": text})]})
            half = whole[: len(whole) // 2]
            return web.Response(text=half, content_type="application/json")
        response = await begin(request)
        if fault == "empty_choices":
            await event(response, {"choices": []})
            await response.write(b"data: [DONE]\n\n")
            return response
        for piece in pieces(text)[:2]:
            await event(response, {"choices": [choice(None, delta={"content": piece})]})
        if fault == "stall_in_stream":
            await asyncio.sleep(self.settings.stall_s)
        elif fault == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif fault == "nonsense":
            await response.write(b"data: {oops\n\n")
        elif fault == "error_in_stream":
            await event(response, {"error": {"code": 500, "message": "out of memory"}})
        else:
            assert fault == "cut_cleanly", fault
        return response

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = body["input"]
        self.write("embed", texts[0], texts=texts)
        if fault := self.fault(json.dumps(texts)):
            return problem(500, fault)
        data = [
            {"index": k, "embedding": vector(text, self.settings.dimensions)}
            for k, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": sum(len(text) for text in texts)}
        return web.json_response({"data": data[::-1], "usage": usage})


def choice(finish: str | None, **more: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, **more}


def pieces(text: str) -> list[str]:
    return [text[k : k + 11] for k in range(0, len(text), 11)]


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": message, "code": status}}
    return web.json_response(error, status=status, headers=headers)


async def begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    return response


async def event(response: web.StreamResponse, value: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode())


async def serve(settings: Settings) -> str:
    """The address of a new server."""
    server = Server(settings)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_get("/v1/models", server.models)
    application.router.add_post("/v1/chat/completions", server.chat)
    application.router.add_post("/v1/embeddings", server.embeddings)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}/v1"


async def main() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await serve(Settings(**json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

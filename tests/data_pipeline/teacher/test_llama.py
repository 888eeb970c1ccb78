"""A real server with a real model file: llama.cpp's, over HTTP, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from data_pipeline.config import Structure
from data_pipeline.config import TeacherConfig as Config
from data_pipeline.teacher.client import TeacherClient
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest

# Of letters, since random bytes are seldom UTF-8, which the server refuses to pass on.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "pattern": "^[A-Z][a-z ]{0,9}[?]$"},
        "choices": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z]{1,5}$"},
            "minItems": 2,
            "maxItems": 3,
        },
        "answer": {"enum": ["A", "B", "C"]},
        "sure": {"type": "boolean"},
    },
    "required": ["question", "choices", "answer", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The extra `dev` brings xllamacpp and gguf: without them this fails."""
    folder = tmp_path_factory.mktemp("llama")
    command = [sys.executable, str(Path(__file__).with_name("llama_server.py"))]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, str(folder / "tiny.gguf")], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), (folder / "log").read_text()
        yield address
        process.kill()


def prompts(count: int, **fields: Any) -> list[TeacherRequest]:
    talk = ("system", "You are a teacher.")
    return [
        TeacherRequest(f"r{k}", (talk, ("user", f"Tell me about the number {k}.")), 24, **fields)
        for k in range(count)
    ]


def ask(
    config: Config, cache: Path, requests: list[TeacherRequest]
) -> tuple[list[TeacherReply], Any]:
    with TeacherClient(config, cache) as teacher:
        return list(teacher.ask(requests)), teacher.usage


def test_answers_come_once_and_stay(url: str, tmp_path: Path) -> None:
    config = Config(base_url=url, model="tiny.gguf", temperature=0.0, concurrency=4)
    replies, usage = ask(config, tmp_path, prompts(30))
    assert [reply.id for reply in replies] == [f"r{k}" for k in range(30)]
    assert not any(reply.error for reply in replies)
    assert all(reply.text for reply in replies)
    assert all(reply.finish in ("stop", "length") for reply in replies)
    # A character is a token: the server's counts are those of the template around the prompt.
    for request, reply in zip(prompts(30), replies, strict=True):
        said = "".join(f"{role}: {text}\n" for role, text in request.messages) + "assistant:"
        assert reply.prompt_tokens == pytest.approx(len(said), abs=2)
    assert all(r.completion_tokens == 24 for r in replies if r.finish == "length")
    assert (usage.cached, usage.estimated, usage.failed) == (0, 0, 0)

    config.base_url = "http://127.0.0.1:9/v1"  # nobody is there, and nobody is asked
    again, usage = ask(config, tmp_path, prompts(30))
    assert again == replies
    assert (usage.cached, usage.fresh_tokens) == (30, 0)


def test_one_at_a_time_the_answers_are_the_same_in_another_run(url: str, tmp_path: Path) -> None:
    config = Config(
        base_url=url,
        model="tiny.gguf",
        temperature=0.0,
        concurrency=1,
        extra_body={"cache_prompt": False},
    )
    runs = [ask(config, tmp_path / name, prompts(5))[0] for name in ("one", "other")]
    assert runs[0] == runs[1]


def test_a_random_model_held_to_a_schema_writes_json_that_fits_it(url: str, tmp_path: Path) -> None:
    config = Config(base_url=url, model="tiny.gguf", temperature=1.0, top_p=1.0, concurrency=4)
    requests = [
        TeacherRequest(f"s{k}", (("user", "Write a question."),), 700, SCHEMA, sample=k)
        for k in range(12)
    ]
    replies, _ = ask(config, tmp_path, requests)
    assert not any(reply.error for reply in replies)
    for reply in replies:
        assert reply.finish == "stop", reply
        jsonschema.validate(json.loads(reply.text), SCHEMA)
    assert len({reply.text for reply in replies}) == 12  # samples differ by their seeds

    free = Config(base_url=url, model="tiny.gguf", structure=Structure.NONE)
    with pytest.raises(ValueError, match=r"Expecting|Extra|Invalid|Unterminated"):
        for reply in ask(free, tmp_path, prompts(3, schema=SCHEMA))[0]:
            json.loads(reply.text)


def test_vectors_of_texts(url: str, tmp_path: Path) -> None:
    config = Config(base_url=url, model="tiny.gguf", concurrency=2)
    texts = [f"text number {k}" for k in range(40)]
    with TeacherClient(config, tmp_path) as teacher:
        found = teacher.embed(texts)
    assert found.shape == (40, 64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-4)
    assert len({row.tobytes() for row in found}) == 40
    with TeacherClient(
        Config(base_url="http://127.0.0.1:9/v1", model="tiny.gguf"), tmp_path
    ) as teacher:
        np.testing.assert_array_equal(teacher.embed(texts[::-1]), found[::-1])


def test_a_prompt_that_is_too_long_is_refused_by_itself(url: str, tmp_path: Path) -> None:
    config = Config(base_url=url, model="tiny.gguf", concurrency=2)
    long = TeacherRequest("long", (("user", "hare " * 1000),), 8)
    replies, usage = ask(config, tmp_path, [*prompts(2), long])
    assert [bool(reply.error) for reply in replies] == [False, False, True]
    assert "HTTP 400" in replies[2].error and "context" in replies[2].error
    assert (usage.failed, usage.retries) == (1, 0)

"""The protocol: an answer that is not all there is never taken for one that is."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.config import Structure, TeacherConfig
from data_pipeline.teacher import wire
from data_pipeline.teacher.errors import RetryableError
from data_pipeline.teacher.messages import TeacherRequest
from data_pipeline.teacher.wire import Completion, Stream

CONFIG = TeacherConfig(base_url="http://a/v1", model="m", temperature=0.5)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
REQUEST = TeacherRequest("id", (("system", "Be brief."), ("user", "Why?")), 100, SCHEMA)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def events(pieces: list[str], finish: str = "stop", end: str = "\n") -> list[bytes]:
    """The lines of a stream: comment, role, pieces, finish, counts, end."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    deltas += [{"content": piece} for piece in pieces]
    values: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    values.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    values.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    lines = [": wait"] + [f"data: {json.dumps(v, ensure_ascii=False)}" for v in values]
    return [f"{line}{end}{end}".encode() for line in [*lines, "data: [DONE]"]]


def read(data: bytes, cuts: list[int]) -> Completion:
    stream = Stream()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        stream.feed(data[start:stop])
    return stream.answer(prompt_tokens=99)


@given(st.lists(texts), st.lists(st.integers(0, 5000)), st.sampled_from(["\n", "\r\n"]))
def test_an_answer_does_not_depend_on_how_the_stream_is_cut_up(
    pieces: list[str], cuts: list[int], end: str
) -> None:
    data = b"".join(events(pieces, end=end))
    assert read(data, cuts) == Completion("".join(pieces), "stop", 7, 3)


@given(st.lists(texts, min_size=1), st.data())
def test_a_part_of_a_stream_is_a_failure_or_the_whole_text(
    pieces: list[str], data: st.DataObject
) -> None:
    whole = b"".join(events(pieces, finish="length"))
    end = data.draw(st.integers(0, len(whole)))
    try:
        answer = read(whole[:end], [])
    except RetryableError:
        return
    assert (answer.text, answer.finish) == ("".join(pieces), "length")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_a_failure(data: bytes) -> None:
    for judge in (
        lambda: read(data, []),
        lambda: read(b"data: " + data, []),
        lambda: wire.parse_completion(data, 1),
        lambda: wire.parse_embeddings(data, 1, 1),
    ):
        with pytest.raises(RetryableError):
            judge()
    assert wire.model_names(data) == []
    assert "\n" not in wire.server_message(data)


ODD = [
    "[]",
    "3",
    "null",
    '"x"',
    "{}",
    '{"choices": 3}',
    '{"choices": []}',
    '{"choices": [[]]}',
    '{"choices": {"a": 1}}',
    '{"choices": [{"finish_reason": "stop", "delta": {"content": 7}, "message": {"content": 7}}]}',
    '{"choices": [{"finish_reason": null, "message": {"content": "half"}}]}',
    "[" * 100_000,
    '{"error": "no"}',
    '{"error": {"message": "no", "code": 500}}',
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_json_that_is_no_answer_is_a_failure(odd: str) -> None:
    with pytest.raises(RetryableError):
        wire.parse_completion(odd.encode(), 1)
    with pytest.raises(RetryableError):
        read(f"data: {odd}\n\ndata: [DONE]\n\n".encode(), [])
    with pytest.raises(RetryableError):
        read(f"data: {odd}".encode(), [])


def test_an_error_in_the_middle_of_a_stream_is_told_with_its_message() -> None:
    for line in (b'data: {"error": {"message": "out of memory"}}\n', b'error: {"error": "full"}\n'):
        with pytest.raises(RetryableError, match=r"out of memory|full"):
            read(b"".join(events(["a", "b"])[:3]) + line, [])


def test_a_failure_keeps_what_had_been_written_for_the_account() -> None:
    with pytest.raises(RetryableError) as caught:
        read(b"".join(events(["Hares ", "run"])[:4]), [])
    assert caught.value.received == "Hares run"


def test_tokens_are_estimated_where_the_server_does_not_count() -> None:
    lines = events(["12345678"])
    without_counts = b"".join(lines[:-2] + lines[-1:])
    assert read(without_counts, []) == Completion("12345678", "stop", 99, 2, estimated=True)
    for odd in ('{"prompt_tokens": -1, "completion_tokens": 3}', "7", '{"prompt_tokens": true}'):
        data = b"".join([*lines[:-2], b'data: {"choices": [], "usage": ' + odd.encode() + b"}\n"])
        assert read(data, []).estimated


def test_an_answer_without_stream_and_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "So"}]
    for content, text in (("So", "So"), (parts, "So"), (None, "")):
        value = {
            "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        }
        assert wire.parse_completion(json.dumps(value).encode(), 9) == Completion(
            text, "stop", 5, 1
        )


def test_a_cached_answer_is_read_whatever_fields_were_added_since() -> None:
    answer = Completion("text é 兎", "stop", 3, 4, estimated=True)
    assert Completion.from_bytes(answer.to_bytes()) == answer
    older = json.loads(answer.to_bytes())
    del older["estimated"]
    newer = json.loads(answer.to_bytes()) | {"thoughts": "deep"}
    assert Completion.from_bytes(json.dumps(older).encode()) == replace(answer, estimated=False)
    assert Completion.from_bytes(json.dumps(newer).encode()) == answer


def key(config: TeacherConfig = CONFIG, request: TeacherRequest = REQUEST) -> bytes:
    return wire.cache_key(wire.chat_body(config, request), request.sample)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "n"},
        {"temperature": 0.6},
        {"top_p": 0.9},
        {"seed": 1},
        {"structure": Structure.JSON_OBJECT},
        {"structure": Structure.NONE},
        {"extra_body": {"min_p": 0.1}},
        {"extra_body": {"seed": None}},
    ],
)
def test_what_determines_an_answer_changes_its_key_and_the_address(changed: dict[str, Any]) -> None:
    other = replace(CONFIG, **changed)
    assert key(other) != key()
    assert wire.identity(other) != wire.identity(CONFIG)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "other"},
        {"messages": (("user", "Be brief."), ("user", "Why?"))},
        {"max_tokens": 101},
        {"schema": None},
        {"schema": SCHEMA | {"required": ["a"]}},
        {"sample": 1},
    ],
)
def test_all_of_a_request_but_its_id_is_in_the_key(changed: dict[str, Any]) -> None:
    assert (key(request=replace(REQUEST, **changed)) == key()) == ("id" in changed)


def test_samples_have_keys_of_their_own_where_the_server_takes_no_seed() -> None:
    seedless = replace(CONFIG, extra_body={"seed": None})
    assert key(seedless) != key(seedless, replace(REQUEST, sample=1))


def test_how_an_answer_is_fetched_changes_nothing() -> None:
    fetching = {
        "base_url": "https://b/v1",
        "api_key_variable": "KEY",
        "max_tokens_field": "max_completion_tokens",
        "concurrency": 1,
        "requests_per_minute": 5.0,
        "tokens_per_minute": 5.0,
        "connect_timeout_s": 1.0,
        "stall_timeout_s": 1.0,
        "answer_timeout_s": 1.0,
        "max_retries": 1,
        "first_backoff_s": 2.0,
        "max_backoff_s": 2.0,
        "prompt_price": 1.0,
        "completion_price": 1.0,
        "max_cost": 1.0,
        "max_unanswered": 0.5,
        "cache": "elsewhere",
    }
    other = replace(CONFIG, **fetching)
    assert key(other) == key()
    assert wire.identity(other) == wire.identity(CONFIG)
    assert fetching.keys() | wire.identity(CONFIG).keys() == set(TeacherConfig.__slots__)
    no_stream = replace(CONFIG, extra_body={"stream": False, "stream_options": None})
    assert key(no_stream) == key()


def test_keys_stay_what_they_were() -> None:
    """Were this number another, every answer that anyone has paid for would be paid for again."""
    assert key().hex()[:16] == "19e79880673a390e"


def test_what_is_sent() -> None:
    config = replace(
        CONFIG, max_tokens_field="max_completion_tokens", extra_body={"top_p": None, "min_p": 0.1}
    )
    assert wire.request_body(config, wire.chat_body(config, replace(REQUEST, sample=2))) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why?"},
        ],
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "seed": 2,
        "min_p": 0.1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    }
    loose = replace(CONFIG, structure=Structure.JSON_OBJECT)
    assert wire.chat_body(loose, REQUEST)["response_format"] == {"type": "json_object"}
    assert "response_format" not in wire.chat_body(CONFIG, replace(REQUEST, schema=None))
    assert wire.request_body(CONFIG, wire.embedding_body(CONFIG, ["a"])) == {
        "model": "m",
        "input": ["a"],
    }


def test_vectors_come_back_in_the_order_of_the_texts() -> None:
    rows = [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]
    found = wire.parse_embeddings(json.dumps({"data": rows}).encode(), 2, 9)
    np.testing.assert_array_equal(found.array, np.array([[1, 2], [3, 4]], np.float32))
    assert found.array.dtype == np.float32
    assert found.prompt_tokens == 9


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0, 3.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("nan")]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}],
    ],
)
def test_vectors_that_are_not_all_there_are_a_failure(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(RetryableError, match="not 2 vectors"):
        wire.parse_embeddings(json.dumps({"data": rows}).encode(), 2, 9)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "inf"}, 1e9),
        ({"Retry-After": "nan"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({"Retry-After": formatdate(1060, usegmt=True)}, 60),
        ({"Retry-After": formatdate(940, usegmt=True)}, 0),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float) -> None:
    assert wire.retry_after(headers, now=1000.0) == pytest.approx(seconds)


def test_which_statuses_are_asked_again() -> None:
    again = {status for status in range(300, 600) if wire.is_retryable(status)}
    assert again == {408, 409, 425, 429, *range(500, 600)}
    assert wire.is_out_of_credit(402, b"")
    assert wire.is_out_of_credit(429, b'{"error": {"code": "insufficient_quota"}}')
    assert not wire.is_out_of_credit(429, b'{"error": {"code": "rate_limit_exceeded"}}')

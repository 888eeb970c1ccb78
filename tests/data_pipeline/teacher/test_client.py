"""Through every known kind of failure each request is answered, in order, and paid for once."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline import config as configs
from data_pipeline.teacher import client, settings, wire
from data_pipeline.teacher.cache import TeacherCache
from data_pipeline.teacher.client import TeacherClient
from data_pipeline.teacher.errors import BudgetExceededError, TeacherError
from data_pipeline.teacher.messages import TeacherReply, TeacherRequest
from tests.builders import ROOT

SEVEN = ("429", "500", "502_html", "cut", "cut_cleanly", "nonsense", "html")
# Asks for prompts 0 .. N - 1 and says which have been answered.
ASK = """
import json, sys
from pathlib import Path
from data_pipeline.config import Structure, TeacherConfig
from data_pipeline.teacher.client import TeacherClient
from data_pipeline.teacher.messages import TeacherRequest
config, cache, count = json.loads(sys.argv[1])
config["structure"] = Structure(config["structure"])
with TeacherClient(TeacherConfig(**config), Path(cache)) as teacher:
    requests = (TeacherRequest(f"r{k}", (("user", f"prompt {k}"),), 300) for k in range(count))
    for reply in teacher.ask(requests):
        assert not reply.error
        print(reply.id, flush=True)
"""


def prompts(count: int, start: int = 0) -> Iterator[TeacherRequest]:
    for k in range(start, start + count):
        yield TeacherRequest(f"r{k}", (("user", f"prompt {k}"),), 300)


def ask(
    config: configs.TeacherConfig, cache: Path, requests: Any
) -> tuple[list[TeacherReply], Any]:
    with TeacherClient(config, cache) as teacher:
        return list(teacher.ask(requests)), teacher.usage


def test_through_every_fault_each_request_is_answered_once_and_in_order(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    weights = dict.fromkeys(SEVEN, 1.0) | {
        "error_in_stream": 1.0,
        "truncated_json": 1.0,
        "empty_choices": 1.0,
        "stall": 0.15,
        "stall_in_stream": 0.15,
    }
    faulty = serve_teacher(fault_rate=0.35, faults=weights)
    replies, usage = ask(faulty.config(), tmp_path / "cache", prompts(500))

    assert [reply.id for reply in replies] == [f"r{k}" for k in range(500)]
    assert not any(reply.error for reply in replies)
    faults = faulty.events("fault")
    assert {row["kind"] for row in faults} == set(weights)
    assert usage.retries == len(faults)
    # Nothing that was paid was asked again.
    assert faulty.answered() == {f"prompt {k}": 1 for k in range(500)}
    # And the faults have left no trace in the answers.
    clean = serve_teacher()
    assert ask(clean.config(), tmp_path / "clean", prompts(500))[0] == replies

    again, usage = ask(faulty.config(), tmp_path / "cache", prompts(500))
    assert again == replies
    assert (usage.cached, usage.paid) == (500, 0)
    assert len(faulty.events("asked")) == 500 + len(faults)


def test_what_is_cached_needs_no_server_and_no_key(
    serve_teacher: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "k-123")
    served = serve_teacher(key="k-123")
    config = served.config(api_key_variable="SOME_KEY")
    replies, first = ask(config, tmp_path, prompts(40))
    monkeypatch.delenv("SOME_KEY")
    config.base_url = ""
    again, usage = ask(config, tmp_path, prompts(40))
    assert again == replies
    assert usage.to_json() == first.to_json()
    with pytest.raises(ValueError, match=r"teacher\.base_url: got ''"):
        ask(config, tmp_path, prompts(41))


def test_after_kill_9_only_what_was_not_answered_is_asked(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.2, faults=dict.fromkeys(SEVEN, 1.0), delay_s=0.02)
    config = served.config(concurrency=8)
    count, cache = 400, tmp_path / "cache"
    arguments = [asdict(config) | {"structure": config.structure.value}, str(cache), count]
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        assert process.stdout is not None
        replied = [line.strip() for line in itertools.islice(process.stdout, 120)]
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    requests = list(prompts(count))
    keys = {wire.cache_key(wire.chat_body(config, r)): r.messages[0][1] for r in requests}
    with TeacherCache(cache) as opened:
        kept = {keys[key] for key in opened.get(list(keys))}
    assert {f"prompt {reply[1:]}" for reply in replied} <= kept
    assert len(kept) < count
    time.sleep(0.3)  # what was in flight: the server notices that nobody listens
    asked_before = len(served.events("asked"))

    replies, usage = ask(config, cache, requests)
    assert [reply.id for reply in replies] == [request.id for request in requests]
    assert usage.cached == len(kept)
    asked = {row["prompt"] for row in served.events("asked")[asked_before:]}
    assert asked == set(keys.values()) - kept
    times = served.answered()
    assert times.keys() == set(keys.values())
    assert all(times[prompt] == 1 for prompt in kept)
    assert sum(times.values()) - count <= config.concurrency  # those in flight at the kill


def test_equal_questions_are_asked_once_and_samples_apart(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(delay_s=0.02)
    same = [TeacherRequest(f"{k}", (("user", "same"),), 100, sample=k % 3) for k in range(90)]
    replies, usage = ask(served.config(), tmp_path, same)
    assert [reply.id for reply in replies] == [str(k) for k in range(90)]
    assert served.answered() == {"same": 3}
    assert len({reply.text for reply in replies}) == 3
    assert [r.text for r in replies[3:]] == [r.text for r in replies[:-3]]
    assert usage.cached == 87


def test_requests_are_taken_as_they_are_needed_and_left_when_nobody_waits(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(delay_s=0.005)
    taken = 0

    def endless() -> Iterator[TeacherRequest]:
        nonlocal taken
        for request in prompts(10**9):
            taken += 1
            yield request

    with TeacherClient(served.config(), tmp_path) as teacher:
        for reply in itertools.islice(teacher.ask(endless()), 700):
            assert not reply.error
            assert taken <= int(reply.id[1:]) + client.WINDOW + client.CHUNK
        more = list(teacher.ask(prompts(5, start=10**6)))  # what was left behind is in no one's way
        assert len(more) == 5
    assert taken <= 700 + client.WINDOW + client.CHUNK


def test_two_questions_at_a_time_that_share_an_answer(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(delay_s=0.1)
    with TeacherClient(served.config(concurrency=1), tmp_path) as teacher:
        one, other = teacher.ask(prompts(4)), teacher.ask(prompts(4))
        first = next(one)
        assert next(other).text == first.text
        other.close()
        assert [reply.id for reply in one] == ["r1", "r2", "r3"]
    assert served.answered().total() == 4


def test_no_more_than_the_bound_are_in_flight(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(delay_s=0.02)
    ask(served.config(concurrency=5), tmp_path, prompts(80))
    assert max(row["in_flight"] for row in served.events("asked")) == 5


def test_requests_keep_the_pace_with_all_their_retries(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.3, faults=dict.fromkeys(SEVEN, 1.0))
    started = time.monotonic()
    ask(served.config(requests_per_minute=2400), tmp_path, prompts(50))
    times = sorted(row["time"] for row in served.events("asked"))
    assert len(times) > 50
    assert all(at >= started + k / 40 for k, at in enumerate(times))


def test_tokens_keep_the_pace(serve_teacher: Callable[..., Any], tmp_path: Path) -> None:
    served = serve_teacher()
    started = time.monotonic()
    replies, _ = ask(served.config(tokens_per_minute=600_000), tmp_path, prompts(80))
    took = {f"prompt {r.id[1:]}": r.prompt_tokens + r.completion_tokens for r in replies}
    before = 0
    for row in sorted(served.events("asked"), key=lambda row: row["time"]):
        assert row["time"] >= started + before / 10_000
        before += took[row["prompt"]]


def test_a_pause_that_the_server_asks_for_is_kept_by_all(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.4, faults={"429": 1.0}, retry_after_s=0.3, most_faults=1)
    ask(served.config(concurrency=1), tmp_path, prompts(8))
    rows = served.events()
    pauses = [
        after["time"] - row["time"]
        for row, after in itertools.pairwise(rows)
        if row["event"] == "fault"
    ]
    assert pauses and min(pauses) >= 0.3


def test_max_cost_stops_before_it_is_exceeded_and_counts_earlier_runs(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.2, faults={"cut": 1.0, "500": 1.0})
    prices = {"prompt_price": 1000.0, "completion_price": 2000.0}

    def paid() -> float:
        """By the server's own account of whole answers; a character is a token."""
        done = [reply for reply in replies if not reply.error]
        return sum(1e-3 * r.prompt_tokens + 2e-3 * r.completion_tokens for r in done)

    replies: list[TeacherReply] = []
    config = served.config(max_cost=8.0, **prices)
    for _ in range(2):
        with (
            TeacherClient(config, tmp_path) as teacher,
            pytest.raises(
                BudgetExceededError, match=r"max_cost=8 is reached: [\d.]+ was spent.*higher"
            ),
        ):
            replies = []
            for reply in teacher.ask(prompts(200)):
                replies.append(reply)
        assert 0 < len(replies) < 200
        answered = served.answered()
    assert served.answered() == answered  # the second run had nothing left to spend
    with TeacherCache(tmp_path) as cache:
        prompt, completion = cache.spent("teacher")
    assert 6.0 < 1e-3 * prompt + 2e-3 * completion <= 8.0
    config.max_cost = 0.0
    replies, usage = ask(config, tmp_path, prompts(200))
    assert len(replies) == 200
    assert usage.cost == pytest.approx(paid())
    assert set(served.answered().values()) == {1}


def test_servers_that_do_not_stream_or_count(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    expected = [r.text for r in ask(serve_teacher().config(), tmp_path / "0", prompts(20))[0]]
    for k, server in enumerate(({"streams": False}, {"usage": False})):
        served = serve_teacher(**server)
        replies, usage = ask(served.config(), tmp_path / f"1{k}", prompts(20))
        assert [reply.text for reply in replies] == expected
        assert usage.estimated == (0 if "streams" in server else 20)
        assert all(reply.completion_tokens > 0 for reply in replies)


# ---- what people are told


def test_a_refused_request_is_not_repeated_and_not_cached(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(status=400, error="This model's maximum context length is 8 tokens")
    for attempt in (1, 2):
        replies, usage = ask(served.config(), tmp_path, prompts(5))
        assert [reply.id for reply in replies] == [f"r{k}" for k in range(5)]
        assert all("(HTTP 400)" in r.error and "context length" in r.error for r in replies)
        assert all((r.text, r.completion_tokens) == ("", 0) for r in replies)
        assert (usage.failed, usage.retries) == (5, 0)
        assert len(served.events("asked")) == 5 * attempt


def test_a_request_that_fails_too_often_says_so(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(status=503, error="overloaded")
    replies, usage = ask(served.config(max_retries=2), tmp_path, prompts(3))
    assert all("no answer after 3 attempts" in r.error for r in replies)
    assert all("HTTP 503: 'overloaded'" in r.error for r in replies)
    assert (usage.failed, usage.retries) == (3, 6)
    assert len(served.events("asked")) == 9


@pytest.mark.parametrize(("status", "retries"), [(400, 0), (500, 1)])
def test_a_server_that_answers_nobody_stops_the_run(
    serve_teacher: Callable[..., Any], tmp_path: Path, status: int, retries: int
) -> None:
    served = serve_teacher(status=status, error="unsupported field seed")
    with pytest.raises(TeacherError, match=r"16 requests in a row.*unsupported field seed.*kept"):
        ask(served.config(max_retries=retries), tmp_path, prompts(400))
    # Each was asked once at most, while the first ones waited for their second time.
    assert len(served.events("asked")) <= 400 + 32 * retries


@pytest.mark.parametrize(
    ("server", "fields", "said"),
    [
        (
            {"model": "other"},
            {},
            r"HTTP 404 to model 'teacher'.*It serves other\. Set teacher\.model",
        ),
        ({}, {"base_url": "{url}/more"}, r"404.*ends in /v1"),
        (
            {"key": "right"},
            {},
            r"refused the key \(HTTP 401\).*name into teacher\.api_key_variable",
        ),
        ({"key": "right"}, {"api_key_variable": "WRONG"}, r"valid key into the .* variable WRONG"),
        ({}, {"api_key_variable": "UNSET"}, r"'UNSET', which is not set in the environment"),
        (
            {},
            {"api_key_variable": "ODD"},
            r"^teacher\.api_key_variable: got 'ODD', .*whose value is not a valid key",
        ),
        ({"status": 402, "error": "add credit"}, {}, r"requires payment: 'add credit'"),
        ({"status": 429, "error": "insufficient_quota"}, {}, r"requires payment"),
        ({"status": 302}, {}, r"HTTP 302; expected an OpenAI-compatible server"),
        (
            {"fault_rate": 1.0, "faults": {"429": 1.0}, "retry_after_s": 7200},
            {},
            r"requests a pause of 2\.0 hours.*Rate limit reached.*kept",
        ),
    ],
)
def test_what_stops_a_run_says_what_to_do(
    serve_teacher: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: dict[str, Any],
    fields: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setenv("WRONG", "wrong-key-0123")
    monkeypatch.setenv("ODD", "two words")
    served = serve_teacher(**server)
    fields = {n: v.format(url=served.url) if n == "base_url" else v for n, v in fields.items()}
    with pytest.raises((TeacherError, ValueError), match=said):
        ask(served.config(**fields), tmp_path / "cache", prompts(300))
    assert not served.answered()
    assert len(served.events("asked")) <= 16  # those that were in flight, and no more


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = configs.TeacherConfig(base_url=f"http://127.0.0.1:{port}/v1", model="m")
    with pytest.raises(TeacherError, match=r"no server answers at .*/v1/models.*Start one"):
        ask(config, tmp_path, prompts(300))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, r"teacher\.model: got '', expected the model"),
        ({"concurrency": 0}, "concurrency: got 0, expected 1 or more"),
        ({"temperature": float("nan")}, "temperature: got nan, expected a finite number"),
        ({"stall_timeout_s": 0.0}, "stall_timeout_s: got 0.0, expected a number above 0"),
        ({"top_p": 0.0}, "top_p: got 0.0, expected a number above 0"),
        ({"max_unanswered": 1.5}, "max_unanswered: got 1.5, expected a number from 0 to 1"),
        ({"max_unanswered": -0.1}, "max_unanswered: got -0.1, expected a number from 0 to 1"),
        ({"max_cost": 1.0}, "max_cost: got 1.0, expected prices"),
    ],
)
def test_fields_that_cannot_be_meant(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        TeacherClient(configs.TeacherConfig(**({"model": "m"} | fields)), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://a/v1", "http://", "http://a?k=v"])
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base_url: got .*for example http://127"):
        ask(configs.TeacherConfig(model="m", base_url=url), tmp_path, prompts(1))


def test_a_password_in_the_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    config = configs.TeacherConfig(model="m", base_url="https://me:secret-7@a/v1")
    with pytest.raises(ValueError, match="an address with a user name or password") as caught:
        ask(config, tmp_path, prompts(1))
    assert "secret-7" not in str(caught.value)


def test_the_key_is_written_nowhere(
    serve_teacher: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    key = "sk-not-to-be-seen-4711"
    monkeypatch.setenv("TEACHER_KEY", key)
    monkeypatch.setattr(client, "PROGRESS_EVERY_S", 0.0)
    served = serve_teacher(key=key, fault_rate=0.3, faults=dict.fromkeys(SEVEN, 1.0))
    config = served.config(api_key_variable="TEACHER_KEY")
    with TeacherClient(config, tmp_path / "cache") as teacher:
        replies = list(teacher.ask(prompts(30), total=30))
        said = [repr(vars(teacher)), repr(teacher.usage), repr(config), repr(replies)]
    said.append(json.dumps(wire.identity(config)))
    # Servers that repeat the key in what they say.
    for status in (400, 401, 402, 404, 503):
        error = f"Your key {key} is bad. " + 12 * f"{key}, "  # the message is cut in one of them
        rude = serve_teacher(status=status, error=error)
        try:
            refused, _ = ask(
                rude.config(api_key_variable="TEACHER_KEY", max_retries=0),
                tmp_path / "cache",
                prompts(2, start=1000),
            )
            said += [reply.error for reply in refused]
        except TeacherError:
            said.append(traceback.format_exc())
        assert "Your key [key] is bad" in said[-1]
    output = capfd.readouterr()
    assert "30 of 30 answered" in output.out
    written = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) >= 3
    assert not any(key.encode() in data for data in written)
    assert not any(key[:8] in text for text in [*said, output.out, output.err])


# ---- embeddings


def test_vectors_of_texts_are_asked_for_once(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.3)
    texts = [f"word{k % 70} and word{k % 7}" for k in range(300)]
    with TeacherClient(served.config(), tmp_path) as teacher:
        found = teacher.embed(iter(texts))
        assert teacher.usage.retries > 0
    assert found.shape == (300, 16)
    assert found.dtype == np.float32
    for text, row in zip(texts, found, strict=True):
        one = [text_ for text_ in texts if set(text_.split()) == set(text.split())]
        assert all((found[texts.index(other)] == row).all() for other in one)
    assert found.sum() == 3 * 300  # three words each
    batches = [tuple(row["texts"]) for row in served.events("embed")]
    asked = [text for batch in set(batches) for text in batch]
    assert set(asked) == set(texts)
    with TeacherClient(served.config(base_url=""), tmp_path) as teacher:
        np.testing.assert_array_equal(teacher.embed(texts), found)
        assert teacher.usage.cached == 300
        assert teacher.embed([]).shape == (0, 0)
    assert len(served.events("embed")) == len(batches)


def test_vectors_of_another_length_are_refused(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    for dimensions, texts in ((16, ["a b"]), (8, ["c d"])):
        with TeacherClient(serve_teacher(dimensions=dimensions).config(), tmp_path) as teacher:
            teacher.embed(texts)
    with (
        TeacherClient(configs.TeacherConfig(model="teacher"), tmp_path) as teacher,
        pytest.raises(ValueError, match=r"lengths \[8, 16\].*teacher\.cache to another folder"),
    ):
        teacher.embed(["a b", "c d"])


def test_a_text_without_a_vector_is_named(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=1.0, most_faults=99)
    with (
        TeacherClient(served.config(max_retries=1), tmp_path) as teacher,
        pytest.raises(TeacherError, match=r"no embeddings of 2 texts.*9 characters.*Cut texts"),
    ):
        teacher.embed(["short", "very long"])


# ---- the network


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://127.0.0.1:1/v1", None),
        ("http://[::1]:80/v1", None),
        ("http://localhost/v1", None),
        ("http://mine.example/v1", None),
        ("http://other.example/v1", "http://proxy:1"),
        ("https://other.example/v1", "http://proxy:2"),
    ],
)
def test_which_proxy_is_asked(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("https_proxy", "http://proxy:2")
    monkeypatch.setenv("no_proxy", "mine.example")
    assert settings.proxy_for(url) == proxy


def test_through_a_proxy_with_the_key_and_not_with_the_password_of_a_netrc(
    serve_teacher: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve_teacher(key="k-1")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine teacher.invalid login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", served.url.removesuffix("/v1"))
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("KEY_1", "k-1")
    config = served.config(base_url="http://teacher.invalid/v1", api_key_variable="KEY_1")
    replies, _ = ask(config, tmp_path / "cache", prompts(3))
    assert len(replies) == 3
    assert served.answered().total() == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stall_timeout_s": 0.2}, r"SocketTimeoutError: .*teacher\.stall_timeout_s"),
        ({"answer_timeout_s": 0.2}, r"TimeoutError: .* longer than teacher\.answer_timeout_s"),
    ],
)
def test_which_time_was_too_short_is_told(
    serve_teacher: Callable[..., Any], tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    for kind in ("stall", "stall_in_stream"):
        served = serve_teacher(fault_rate=1.0, faults={kind: 1.0}, most_faults=9)
        replies, _ = ask(served.config(max_retries=0, **fields), tmp_path, prompts(1))
        assert re.search(said, replies[0].error), replies[0].error


def test_what_is_paid_is_what_the_server_counts(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    config = serve_teacher().config(prompt_price=3.0, completion_price=5.0)
    replies, usage = ask(config, tmp_path, prompts(40))
    prompt = sum(reply.prompt_tokens for reply in replies)
    completion = sum(reply.completion_tokens for reply in replies)
    assert usage.paid == pytest.approx(usage.cost) == (3 * prompt + 5 * completion) / 1e6
    with TeacherCache(tmp_path) as cache:
        assert cache.spent("teacher") == (prompt, completion)


def test_what_was_written_before_a_stream_was_cut_is_in_the_account(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve_teacher(fault_rate=0.5, faults={"cut_cleanly": 1.0})
    replies, usage = ask(served.config(completion_price=1.0), tmp_path, prompts(20))
    taken = sum(reply.prompt_tokens + reply.completion_tokens for reply in replies)
    with TeacherCache(tmp_path) as cache:
        assert sum(cache.spent("teacher")) == taken + usage.wasted_tokens
    assert usage.wasted_tokens > 0
    assert usage.paid > usage.cost

"""The stages of restructuring against a server process: nothing is lost or repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import (
    Benchmark,
    Cleaning,
    HeldOut,
    Recipe,
    Restructuring,
    Source,
    TeacherConfig,
)
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.nlp_tasks.restructure import schemas
from data_pipeline.nlp_tasks.restructure_stage import restructure
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_dropped
from data_pipeline.teacher.errors import TeacherError
from data_pipeline.text import seeded_random
from tests.builders import ROOT, write_jsonl
from tests.data_pipeline.builders import (
    curate_serially,
    dropped_by_id,
    dropped_documents,
    kept_documents,
    result_files,
    runner_at,
    stage_of_documents,
)
from tests.data_pipeline.nlp_tasks import restructuring_answers as answers

pytestmark = pytest.mark.slow

ANSWERS = str(Path(answers.__file__))
STAGES = ("restructuring_requests", "restructure", "restructured_tasks")
NOUNS = "river hunter meadow village forest farmer garden winter market bridge harvest evening"
VERBS = "crossed watched remembered followed described visited measured painted"


def text(k: int) -> str:
    """Paragraphs of sentences that differ from document to document."""
    random_ = seeded_random.seeded(0, "text", str(k))
    paragraphs = []
    for _ in range(6):
        sentences = []
        for _ in range(5):
            one, two, three = random_.sample(NOUNS.split(), 3)
            verb = random_.choice(VERBS.split())
            sentences.append(f"The old {one} near the {two} {verb} another distant {three}.")
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


def documents(runner: Runner, count: int = 30) -> Directory:
    """Two sources in two shards, one of them of a category that is not asked about."""
    made = {
        "sea": [Document(f"sea/{k}", text(k), "sea", "wiki") for k in range(count)],
        "daily": [Document(f"daily/{k}", text(1000 + k), "daily", "news") for k in range(3)],
    }
    return stage_of_documents(runner, made, tiers={"sea": "D1", "daily": "D1"})


def recipe(teacher: TeacherConfig, **changes: Any) -> Recipe:
    made = {"min_words": 40, "max_words": 120, "teacher": teacher, "enabled": True}
    return Recipe(restructuring=Restructuring(**(made | changes)))


def run(recipe: Recipe, root: Path, workers: int = 0, count: int = 30) -> Runner:
    with runner_at(root, workers) as runner:
        restructure(recipe, runner, [documents(runner, count)], root / "teacher")
        return runner


def stages(runner: Runner) -> list[Directory]:
    return [d for d in runner.directories if d.manifest["stage"] in STAGES]


def written(root: Path) -> dict[str, bytes]:
    """The bytes of every stage; not those of the cache, the clock and what was paid."""
    return result_files(root, without=("timing.json", "teacher", "spent"))


def test_every_request_becomes_a_task_or_a_drop(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS)
    asked, told, made = stages(run(recipe(server.config()), tmp_path))
    requests = {row.id: row for row in kept_documents(asked)}
    assert len(requests) == 30 * 4 and {r.meta["from_source"] for r in requests.values()} == {"sea"}
    assert server.answered() == Counter(row.text for row in requests.values())

    counts = made.counts()["restructured"]
    assert counts.documents_in == len(requests) == counts.kept + counts.dropped.total()
    assert counts.tier == "D3"
    found = {row.id: "" for row in kept_documents(made)}
    for file in made.files("dropped"):
        for stage, dropped in read_dropped(file.path):
            assert stage == "restructured_tasks"
            assert dropped.document.id not in found
            found[dropped.document.id] = dropped.reason
            assert dropped.document.text  # what the teacher said
    assert found == {
        name: answers.expected(row.meta["task"], row.text) for name, row in requests.items()
    }
    assert {answers.planned(row.text) for row in requests.values()} == {
        *answers.GOOD,
        *answers.BAD,
    }
    for task in kept_documents(made):
        request = requests[task.id]
        assert task.text.endswith(task.meta["answer"])
        assert task.meta["task"] == request.meta["task"]
        good = answers.item(request.meta["task"], request.meta["passage"])
        values = [v for v in good.values() if isinstance(v, str)] or good.get("keywords", [])
        assert all(value in task.text for value in values)

    by_kind: Counter[tuple[str, str]] = Counter()
    for ledger in made.ledgers():
        for kind, became in ledger.extra["kinds"].items():
            by_kind.update({(kind, what or "kept"): n for what, n in became.items()})
    assert by_kind == Counter(
        (row.meta["task"], found[name] or "kept") for name, row in requests.items()
    )
    usage = [ledger.extra["usage"] for ledger in told.ledgers()]
    assert sum(one["requests"] for one in usage) == len(requests)
    assert sum(one["completion_tokens"] for one in usage) > 0


def test_second_run_gives_the_same_bytes_without_requests(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS, fault_rate=0.3, faults={"429": 1, "500": 1, "cut": 1})
    run(recipe(server.config()), tmp_path / "one")
    first = written(tmp_path / "one")
    asked = len(server.events("asked"))

    run(recipe(server.config()), tmp_path / "one")
    assert len(server.events("asked")) == asked  # finished stages
    elsewhere = recipe(server.config(cache=str(tmp_path / "one" / "teacher")))
    run(elsewhere, tmp_path / "two", workers=2)
    assert len(server.events("asked")) == asked  # cached answers
    assert max(server.answered().values()) == 1

    fresh = serve_teacher(answers=ANSWERS)
    run(recipe(fresh.config(concurrency=3)), tmp_path / "three", workers=2)
    assert fresh.answered() == server.answered()
    assert written(tmp_path / "two") == first == written(tmp_path / "three")


def addresses(runner: Runner) -> dict[str, str]:
    return {d.manifest["stage"]: d.address for d in stages(runner)}


def test_address_depends_on_what_determines_the_text_and_nothing_else(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS)
    other = serve_teacher(answers=ANSWERS)
    key = {"api_key_variable": "HARE_TEST_KEY"}
    os.environ["HARE_TEST_KEY"] = "a secret"

    def made(teacher: TeacherConfig, **changes: Any) -> dict[str, str]:
        return addresses(run(recipe(teacher, **changes), tmp_path, count=4))

    first = made(server.config())
    same = made(other.config(concurrency=2, max_retries=1, requests_per_minute=9e9, **key))
    assert same == first
    manifests = "".join(path.read_text() for path in tmp_path.rglob("manifest.json"))
    assert (
        "a secret" not in manifests and other.url not in manifests and server.url not in manifests
    )

    def changed(teacher: TeacherConfig, **changes: Any) -> list[bool]:
        now = made(teacher, **changes)
        return [now[name] != first[name] for name in STAGES]

    assert changed(server.config(temperature=0.1)) == [False, True, True]
    assert changed(server.config(seed=1)) == [False, True, True]
    assert changed(server.config(), answer_tokens=99) == [False, True, True]
    assert changed(server.config(), max_tokens=99) == [False, False, True]
    assert changed(server.config(), per_passage=1) == [True, True, True]
    assert changed(server.config(), seed=5) == [True, True, True]


def test_requests_without_a_reply_are_dropped_with_a_reason(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS, fault_rate=0.3, most_faults=1, faults={"500": 1})
    teacher = server.config(max_retries=0, max_unanswered=1.0)
    _, told, made = stages(run(recipe(teacher), tmp_path))
    failed = len(server.events("fault"))
    counts = told.counts()["restructured"]
    assert 0 < failed == counts.dropped["no_answer"] == counts.documents_in - counts.kept
    for dropped in dropped_documents(told):
        assert "500" in dropped.evidence["error"] and "JSON:" in dropped.document.text
    assert made.counts()["restructured"].documents_in == counts.kept
    assert sum(ledger.extra["usage"]["failed"] for ledger in told.ledgers()) == failed


def test_shard_with_too_few_replies_fails_and_the_same_command_requests_the_rest(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS, fault_rate=0.3, most_faults=1, faults={"500": 1})
    made = recipe(server.config(max_retries=0))
    with pytest.raises(TeacherError) as refused:
        run(made, tmp_path / "one")
    failed = len(server.events("fault"))
    assert (
        f": {failed} of 120 requests got no answer, more than the allowed share of 0.01 ("
        in str(refused.value)
    )
    assert 0 < failed == 120 - server.answered().total()
    assert not list((tmp_path / "one").glob("restructured_tasks-*"))

    run(made, tmp_path / "one")
    assert len(server.events("asked")) == 120 + failed
    assert server.answered().total() == len(server.answered()) == 120
    run(recipe(serve_teacher(answers=ANSWERS).config()), tmp_path / "two")
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_killed_run_requests_only_what_is_missing(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS, delay_s=0.02)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from data_pipeline.config import TeacherConfig\n"
        "from tests.data_pipeline.nlp_tasks import test_restructure_stage as t\n"
        "if __name__ == '__main__':\n"
        "    url, root, cache = sys.argv[1:]\n"
        "    teacher = TeacherConfig(base_url=url, model='teacher', concurrency=2, cache=cache)\n"
        "    t.run(t.recipe(teacher), Path(root))\n"
    )
    file, cache = tmp_path / "run.py", tmp_path / "cache"
    file.write_text(script)

    def start(root: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(file), server.url, str(root), str(cache)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )

    process = start(tmp_path / "run")
    until = time.monotonic() + 60
    while len(server.events("answered")) < 30 and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 30 <= server.answered().total() < 120
    assert not list((tmp_path / "run").glob("restructured_tasks-*"))

    assert start(tmp_path / "run").wait(timeout=60) == 0
    answered = server.answered()
    assert len(answered) == 120
    assert answered.total() <= 120 + 2  # two may have been under way when the process was killed
    assert start(tmp_path / "whole").wait(timeout=60) == 0
    assert server.answered() == answered
    assert written(tmp_path / "run") == written(tmp_path / "whole")


def test_source_name_in_use_is_an_error(tmp_path: Path) -> None:
    config = recipe(TeacherConfig(base_url="http://127.0.0.1:9/v1", model="m"), source="sea")
    with pytest.raises(
        ValueError, match=r"restructuring\.source: got 'sea', but documents already have"
    ):
        run(config, tmp_path)


def test_tasks_are_no_source_of_requests_and_several_directories_are(
    serve_teacher: Callable[..., Any], tmp_path: Path
) -> None:
    server = serve_teacher(answers=ANSWERS)
    made = {"old_tasks": ("D3", (0, 1)), "synthetic_wiki": ("D2", (2, 3)), "sea": ("D1", (4, 5))}
    with runner_at(tmp_path) as runner:
        directories = []
        for name, (tier, numbers) in made.items():
            own = [Document(f"{name}/{k}", text(k), name, "wiki") for k in numbers]
            directories.append(stage_of_documents(runner, {"all": own}, name, {name: tier}))
        restructure(recipe(server.config()), runner, directories, tmp_path / "teacher")
        asked = stages(runner)[0]
    assert {row.meta["from_source"] for row in kept_documents(asked)} == {"synthetic_wiki", "sea"}
    assert {counts.tier for counts in asked.counts().values()} == {"D3"}
    assert json.dumps(asked.manifest["config"])


def test_recipe_requests_tasks_from_clean_documents_by_topic_and_bakes_them(
    serve_teacher: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baked: dict[str, list[Directory]] = {}

    def bake(name: str, *args: Any) -> Path:
        baked[name] = list(args[2])
        return tmp_path

    monkeypatch.setattr("data_pipeline.pipeline.bake", bake)
    server = serve_teacher(answers=ANSWERS)
    item = (
        "Which quick brown foxes of Bergen jump over lazy dogs while judges mix five jugs of wax?"
    )
    texts = [text(k) + (f"\n\n{item}" if k == 7 else "") for k in range(60)]
    rows = ({"id": str(k), "text": one} for k, one in enumerate(texts))
    source = write_jsonl(tmp_path / "raw" / "sea.jsonl", rows)
    bench = write_jsonl(tmp_path / "bench" / "test.jsonl", [{"question": item}]).parent
    made = recipe(server.config())
    made.sources = [Source(path=str(source.parent), category="wiki")]
    made.cleaning = Cleaning(min_foreign_score=1.1)
    made.held_out = HeldOut(fraction=0.3, max_documents=6, items=3)
    made.decontamination.held_out = False  # these documents have few words, all of them alike
    made.decontamination.benchmarks = [Benchmark("bench", str(bench), ("question",))]
    made.mixtures = {"all": {"D1": 1.0, "D3": 1.0}}
    curated = curate_serially(made, tmp_path / "run")
    found = {d.manifest["stage"]: d for d in curated.directories}

    prompts = kept_documents(found["restructuring_requests"])
    dropped = set(dropped_by_id(found["decontaminate"]))
    held_out = {document.id for document in kept_documents(found["held_out"])}
    assert held_out and "sea/7" in dropped - held_out
    about = {prompt.meta["from"] for prompt in prompts}
    assert about and about.isdisjoint(dropped | held_out)
    topics = {prompt.meta["topic"] for prompt in prompts}
    assert len(topics) > 1 and all(f"topic: {p.meta['topic']}\n" in p.text for p in prompts)

    clean = found["decontaminate_restructured"].counts()["restructured"]
    assert clean.documents_in == found["restructured_tasks"].counts()["restructured"].kept > 0
    assert [d.manifest["stage"] for d in baked["bake"]] == [
        "decontaminate",
        "decontaminate_tasks",
        "decontaminate_restructured",
    ]


def test_answers_of_a_random_model_fit_their_schema_and_are_all_rejected(tmp_path: Path) -> None:
    """llama.cpp's server holds a model with random weights to the schemas: JSON, and nonsense."""
    start = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.data_pipeline.teacher import llama_server\n"
        "llama_server.CONTEXT = 6144\n"  # a character is a token
        "llama_server.main(sys.argv[2])"
    )
    command = [sys.executable, "-c", start, str(ROOT), str(tmp_path / "m.gguf")]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), (tmp_path / "log").read_text()
            no_bytes = [[token, False] for token in range(3, 259)]  # they are seldom UTF-8
            teacher = TeacherConfig(
                base_url=url,
                model="m.gguf",
                temperature=1.0,
                top_p=1.0,
                concurrency=4,
                extra_body={"logit_bias": no_bytes},
            )
            made = recipe(teacher, per_document=1, per_passage=8, max_words=60, answer_tokens=300)
            told, judged = stages(run(made, tmp_path / "run", count=3))[1:]
        finally:
            process.kill()
    replies = kept_documents(told)
    whole = [reply for reply in replies if reply.meta["finish"] == "stop"]
    assert len(replies) == 3 * 8 and len(whole) > 8
    for reply in whole:
        assert schemas.violation(reply.meta["task"], json.loads(reply.text)) is None
    counts = judged.counts()["restructured"]
    assert (counts.documents_in, counts.kept) == (len(replies), 0)
    assert counts.dropped["invalid_json"] == counts.dropped["wrong_schema"] == 0
    assert counts.dropped["reply_cut"] == len(replies) - len(whole)

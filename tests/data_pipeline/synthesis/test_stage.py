"""Synthesis end to end, against a server process with good and bad replies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import pipeline
from data_pipeline.cleaning.personal_information import replace_personal_information
from data_pipeline.config import (
    Baking,
    Benchmark,
    Cleaning,
    CleaningProfile,
    Decontamination,
    Features,
    HeldOut,
    NlpTasks,
    OutputFilters,
    Reading,
    Recipe,
    Source,
    Synthesis,
    TeacherConfig,
    Topics,
)
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.report import flow, synthesis
from data_pipeline.report.flow import ReportStage
from data_pipeline.report.results import Results
from data_pipeline.storage.document import Document
from data_pipeline.storage.shards import read_shard
from data_pipeline.synthesis.prompts import all_prompts
from data_pipeline.synthesis.stage import filter_replies, synthesize
from data_pipeline.teacher.cache import TeacherCache
from data_pipeline.teacher.errors import TeacherError
from data_pipeline.topics.stage import find_topics
from data_pipeline.validate import validate
from tests.builders import ROOT, write_jsonl
from tests.data_pipeline.builders import (
    curate_serially,
    dropped_by_id,
    kept_by_id,
    report_page,
    result_files,
    runner_at,
    stage_of_documents,
)
from tests.data_pipeline.synthesis import synthetic_answers as answers

pytestmark = pytest.mark.slow

ANSWERS = str(answers.__file__)


# What becomes of an answer of each quality, if it goes: the stage and its reasons.
DROPPED = {
    "refusal": ("gates", {"refusal"}),
    "loop": ("gates", {"loop", "duplicate_lines"}),
    "copied": ("gates", {"copied"}),
    "language": ("gates", {"language"}),
    "too_short": ("gates", {"too_short"}),
    "meta_talk": ("gates", {"meta_talk"}),
    "prompt_leak": ("gates", {"prompt_leak"}),
    "twin": ("deduplicate", {"exact_duplicate"}),
    "leak": ("decontaminate", {"contaminated"}),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty documents of three categories, and an evaluation item."""
    folder = tmp_path / "raw"
    for source in ("web", "law", "recipes"):
        rows = [{"id": str(k), "text": answers.essay(f"{source}/{k}")} for k in range(30)]
        write_jsonl(folder / f"{source}.jsonl", rows)
    write_jsonl(tmp_path / "items.jsonl", [{"question": answers.LEAKED}])
    return folder


def recipe(folder: Path, teacher: TeacherConfig, **changes: Any) -> Recipe:
    made = Recipe(
        sources=[Source(path=str(folder))],
        reading=Reading(shard_bytes=40_000),
        cleaning=Cleaning(),
        held_out=HeldOut(fraction=0.1, max_documents=2, items=2),
        decontamination=Decontamination(
            benchmarks=[Benchmark("fruit", str(folder.parent / "items.jsonl"), ("question",))],
            held_out=False,
        ),
        topics=Topics(count=4),
        synthesis=Synthesis(
            enabled=True,
            documents=90,
            weights={"web": 2.0, "law": 1.0, "math": 7.0},
            per_document=2,
            max_passage_words=60,
            shard_requests=40,
            teacher=teacher,
        ),
        nlp_tasks=NlpTasks(kinds=("cloze",), per_document=1),
        baking=Baking(sequence_length=128),
        mixtures={"all": {"D1": 1.0, "D2": 1.0, "D3": 1.0}},
        workers=2,
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def by_name(directories: list[Directory], name: str) -> Directory:
    return next(d for d in directories if d.manifest["stage"] == name)


def files(root: Path) -> dict[str, bytes]:
    """All results: not times, what a run happened to spend, and the answers' cache."""
    return result_files(root, without=("timing.json", "spent", "teacher"))


def test_every_answer_is_accounted_for(
    folder: Path,
    tmp_path: Path,
    serve_teacher: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From raw text to the baked mixture, nothing is lost, duplicated or requested twice.

    Every fault of a reply is detected, and a second run writes the same bytes.
    """
    baked: dict[str, Sequence[Directory]] = {}

    def bake(
        name: str, _: Recipe, runner: Runner, documents: Sequence[Directory], *more: Any
    ) -> Path:
        baked[name] = documents
        return runner.root

    monkeypatch.setattr(pipeline, "bake", bake)
    server = serve_teacher(answers=ANSWERS, fault_rate=0.2, faults={"500": 1, "cut": 1})
    root = tmp_path / "run"
    teacher = server.config(prompt_price=2.0, completion_price=3.0)
    done = pipeline.run(recipe(folder, teacher), root).directories
    prompts = kept_by_id(by_name(done, "prompts"))
    assert len(prompts) == 90
    assert Counter(d.source for d in prompts.values()) == {"synthetic_web": 60, "synthetic_law": 30}

    # Each prompt was answered once, and each answer is either in the training data or dropped once.
    assert server.answered() == Counter(d.text for d in prompts.values())
    final = kept_by_id(by_name(done, "decontaminate_synthetic"))
    gone = [
        (stage.removesuffix("_synthetic"), one)
        for stage in ("synthesise", "gates", "deduplicate_synthetic", "decontaminate_synthetic")
        for one in dropped_by_id(by_name(done, stage)).values()
    ]
    assert sorted([*final, *(one.document.id for _, one in gone)]) == sorted(prompts)

    # Whatever is wrong with an answer is what it was dropped for.
    quality = {id: answers.quality(d.text) for id, d in prompts.items()}
    assert set(quality.values()) == set(answers.QUALITIES)
    for stage, one in gone:
        expected, reasons = DROPPED[quality[one.document.id]]
        assert (stage, one.reason in reasons) == (expected, True), (quality[one.document.id], one)
    assert Counter(quality[id] for id in final) == Counter(
        q for q in quality.values() if q not in DROPPED
    ) + Counter({"twin": 1})
    for id, document in final.items():
        body = {"messages": [{"content": prompts[id].text}]}
        whole = answers.essay("one and the same" if quality[id] == "twin" else prompts[id].text)
        assert document.text == whole, quality[id]
        assert answers.answer(body) != whole or quality[id] in ("good", "twin")
        assert document.meta["model"] == "teacher"
        assert document.meta["prompt"] in {p.id for p in all_prompts()[document.category]}
    changed = by_name(done, "gates").counts()
    total = sum((counts.changed for counts in changed.values()), Counter())
    framed = sum(q == "framed" for q in quality.values())
    cut = sum(q == "cut_off" for q in quality.values())
    assert total == {"preamble": framed, "closing": framed, "cut_off": cut}

    # A seed is a stretch of a document of D1 that survived decontamination.
    clean = kept_by_id(by_name(done, "decontaminate"))
    for prompt in prompts.values():
        start, end = prompt.meta["passage"]
        origin = clean[prompt.meta["from"]].text
        assert prompt.text[start:end] == origin[prompt.meta["start"] : prompt.meta["end"]]

    # They are baked as tier D2, and so are tasks made from them.
    (synthetic,) = (d for d in baked["bake"] if d.manifest["stage"] == "decontaminate_synthetic")
    assert synthetic.tiers() == {"synthetic_law": "D2", "synthetic_web": "D2"}
    sources = {d.meta["from_source"] for d in kept_by_id(by_name(done, "nlp_tasks")).values()}
    assert "synthetic_law" in sources and "law" in sources

    # The report says the same.
    everything = ReportStage.all_of(done)
    colors = flow.colors(everything, Results.read(None, None, None, None))
    told = synthesis.section(everything, colors)
    assert told is not None
    assert (told["usage"]["requests"], told["kept"], told["model"]) == (90, len(final), "teacher")
    assert told["usage"]["cached"] == 0 and told["usage"]["retries"] > 0
    assert told["usage"]["cost"] == pytest.approx(
        (2 * told["usage"]["prompt_tokens"] + 3 * told["usage"]["completion_tokens"]) / 1e6
    )
    assert sum(number for *_, number in told["reasons"]) == len(gone)
    assert {row["name"]: row["kept"] for row in told["by_source"]} == Counter(
        document.source for document in final.values()
    )
    for example in told["examples"]:
        passage = "".join(piece for piece, _ in example["passage"])
        assert passage.removesuffix(" …") in clean[example["from"]].text
        assert example["id"] in final
    html = report_page(tmp_path, done)
    assert "90 prompts were sent to teacher" in html and f"<b>{len(final)}</b> of the" in html

    # Another run asks nothing, wherever the teacher is now, and writes the same bytes.
    before = files(root)
    nowhere = {"base_url": "http://127.0.0.1:9/v1", "api_key_variable": "NOT_SET"}
    config = replace(teacher, cache=str(root / "teacher"), concurrency=1, **nowhere)
    again = tmp_path / "again"
    curate_serially(recipe(folder, config), again)
    after = files(again)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert sum(server.answered().values()) == 90


def without_baking(made: Recipe, root: Path, cache: Path) -> tuple[list[Directory], Directory]:
    """The first steps and synthesis, which is what these tests are about."""
    with runner_at(root) as runner:
        documents = pipeline.read(made, runner)
        topics = find_topics(made, runner, documents, cache)
        return runner.directories, synthesize(made, runner, documents, topics, cache)


def test_requests_without_a_reply_are_dropped_with_a_reason(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any]
) -> None:
    server = serve_teacher(answers=ANSWERS, fault_rate=0.3, faults={"500": 1})
    made = recipe(folder, server.config(max_retries=0, concurrency=1, max_unanswered=1.0))
    done, _ = without_baking(made, tmp_path / "run", tmp_path / "cache")
    gone = dropped_by_id(by_name(done, "synthesise"))
    assert {one.reason for one in gone.values()} == {"no_answer"}
    assert all("500" in one.evidence["error"] for one in gone.values())
    came = kept_by_id(by_name(done, "synthesise"))
    assert 5 < len(gone) < 60 and len(came) + len(gone) == 90
    assert gone.keys() | came.keys() == kept_by_id(by_name(done, "prompts")).keys()
    usage = [ledger.extra["usage"] for ledger in by_name(done, "synthesise").ledgers()]
    assert sum(one["failed"] for one in usage) == len(gone)


def test_shard_with_too_few_replies_fails_and_the_same_command_requests_the_rest(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any]
) -> None:
    """Each prompt fails at most once, so the second run has all replies.

    It writes the bytes of a run without failures. A run that allows a share of failures of the
    same size continues without these replies.
    """
    server = serve_teacher(answers=ANSWERS, fault_rate=0.3, faults={"500": 1}, most_faults=1)
    config = server.config(max_retries=0, concurrency=1, max_unanswered=0.05)
    made = recipe(folder, config)
    made.synthesis.shard_requests = 1000
    root, cache = tmp_path / "run", tmp_path / "cache"
    with pytest.raises(TeacherError) as refused:
        without_baking(made, root, cache)
    answered, failed = server.answered(), len(server.events("fault"))
    assert str(refused.value) == (
        f"shard synthetic-00000: {failed} of 90 requests got no answer, more than the allowed "
        "share of 0.05 (no answer after 1 attempts; the last one: HTTP 500: 'internal error'). "
        "All answers are kept, and the same command sends only the failed requests again; to "
        "continue without them, increase teacher.max_unanswered."
    )
    assert 5 < failed < 60 and answered.total() == 90 - failed
    (stopped,) = root.glob("synthesise-*")
    assert not [path for path in stopped.rglob("*") if path.is_file()]

    done, _ = without_baking(made, root, cache)
    assert set(server.answered().values()) == {1} and server.answered().total() == 90
    assert len(server.events("asked")) == 90 + failed
    never = serve_teacher(answers=ANSWERS)
    whole = replace(made, synthesis=replace(made.synthesis, teacher=never.config()))
    without_baking(whole, tmp_path / "whole", tmp_path / "other")
    assert files(root) == files(tmp_path / "whole")

    again = serve_teacher(answers=ANSWERS, fault_rate=0.3, faults={"500": 1})
    exact = again.config(max_retries=0, concurrency=1, max_unanswered=failed / 90)
    enough = replace(made, synthesis=replace(made.synthesis, teacher=exact))
    without, _ = without_baking(enough, tmp_path / "enough", tmp_path / "third")
    assert len(dropped_by_id(by_name(without, "synthesise"))) == failed
    address = by_name(done, "synthesise").address
    assert by_name(without, "synthesise").address == address  # no limit is part of it


def test_topics_from_embeddings(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any]
) -> None:
    """The same steps with the vectors of a server; a second run asks for none."""
    server = serve_teacher(dimensions=32)
    topics = Topics(count=4, features=Features.EMBEDDINGS, embedder=server.config())
    made = recipe(folder, server.config(), topics=topics)
    tables = []
    for run in ("one", "two"):
        with runner_at(tmp_path / run) as runner:
            table = find_topics(made, runner, pipeline.read(made, runner), tmp_path / "cache")
        tables.append(files(tmp_path / run))
        if run == "one":
            asked = [text for row in server.events("embed") for text in row["texts"]]
    assert len(asked) == len(set(asked)) == 90
    assert len([text for row in server.events("embed") for text in row["texts"]]) == 90
    assert tables[0] == tables[1]
    sizes = Counter[str]()
    for ledger in table.ledgers():
        for counts in ledger.extra["sizes"].values():
            sizes.update(counts)
    assert sizes.total() == 90 and len(sizes) > 1


@pytest.mark.parametrize("asks", ["synthesis.teacher", "restructuring.teacher", "topics.embedder"])
def test_without_a_server_cached_replies_are_required(
    folder: Path, tmp_path: Path, asks: str
) -> None:
    """Refused before anything is read, unless the run's own cache or a named one has answers."""
    step, _, name = asks.partition(".")
    made = recipe(folder, TeacherConfig(model="m"))
    made.synthesis.enabled = step == "synthesis"
    made.restructuring.enabled = step == "restructuring"
    config = TeacherConfig(model="m")
    setattr(getattr(made, step), name, config)
    if step == "topics":
        made.topics.features = Features.EMBEDDINGS
    without = "features=TERMS" if step == "topics" else "enabled=False"
    root, shared = tmp_path / "run", tmp_path / "shared"

    def refused() -> str:
        with pytest.raises(ValueError) as error:
            pipeline.run(made, root)
        assert not root.exists() or not list(root.glob("read-*"))
        return str(error.value)

    assert refused() == (
        f"config.data.{asks}.base_url: got '', expected a server, for example "
        f"http://127.0.0.1:8000/v1, since {root / 'teacher'} has no replies of an earlier run "
        f"(answers.sqlite). config.data.{asks}.cache names another folder of replies. "
        f"To do without: config.data.{step}.{without}"
    )
    config.base_url = "127.0.0.1:8000"
    assert f"{asks}.base_url: got '127.0.0.1:8000', expected the address" in refused()
    config.base_url, config.cache = "", str(shared)
    assert f"since {shared} has no replies" in refused()
    TeacherCache(shared).__exit__()
    validate(made, root / "teacher")
    config.cache = ""
    TeacherCache(root / "teacher").__exit__()
    validate(made, root / "teacher")


def test_cached_replies_need_no_server(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of D1 to D2 by cached answers alone; a question that they lack is said to need one."""
    monkeypatch.setattr(pipeline, "bake", lambda *_: tmp_path)
    server = serve_teacher(answers=ANSWERS)
    made = recipe(folder, server.config())
    made.nlp_tasks.enabled = False
    made.synthesis.documents = 20
    curate_serially(made, tmp_path / "run")
    made.synthesis.teacher.base_url = ""
    made.synthesis.teacher.cache = str(tmp_path / "run" / "teacher")
    curate_serially(made, tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "run")
    made.synthesis.documents = 30
    with pytest.raises(ValueError, match=r"teacher\.base_url: got '', expected the address"):
        curate_serially(made, tmp_path / "more")


PRIVATE = (
    "Write to jane.miller@northgate-valley.org, or call (415) 555-2671 before noon. The key was "
    "AKIAIOSFODNN7EXAMPLQ, they said."
)


def test_personal_information_in_replies_is_replaced_by_the_rules_of_their_category(
    tmp_path: Path,
) -> None:
    """As cleaning replaces it, of prose more than of code; nothing else changes."""
    passage = answers.essay("passage", 3)
    texts = {name: f"{PRIVATE}\n\n{answers.essay(name)}" for name in ("web", "code", "refused")}
    texts["refused"] = f"I'm sorry, but I can't help with that. {texts['refused']}"
    said = [
        Document(f"s/{name}", text, f"synthetic_{category}", category, {"finish": "stop"})
        for name, text in texts.items()
        for category in ["code" if name == "code" else "web"]
    ]
    asked = [
        replace(one, text=f"Write. {passage}", meta={"passage": [7, 7 + len(passage)]})
        for one in said
    ]

    def judge(recipe: Recipe) -> Directory:
        with runner_at(tmp_path / "run") as runner:
            before = [
                stage_of_documents(runner, {"one": rows}, name)
                for name, rows in (("asked", asked), ("said", said))
            ]
            return filter_replies(recipe, runner, before[0], before[1])

    made = Recipe()
    judged = judge(made)
    for name, profile in (("web", CleaningProfile.PROSE), ("code", CleaningProfile.CODE)):
        text, found = replace_personal_information(texts[name], profile)
        assert found == {"email": 1, "secret": 1} | ({"phone": 1} if name == "web" else {})
        assert kept_by_id(judged)[f"s/{name}"].text == text != texts[name]
        assert judged.counts()[f"synthetic_{name}"].changed == found
    assert [one.reason for one in dropped_by_id(judged).values()] == ["refusal"]
    made.cleaning.min_words = 7  # of cleaning alone: the same address
    made.cleaning.profiles["khan academy"] = CleaningProfile.CODE
    assert judge(made).path == judged.path

    made.cleaning.profiles = made.cleaning.profiles | {"web": CleaningProfile.CODE}
    assert "(415) 555-2671" in kept_by_id(judge(made))["s/web"].text
    made.cleaning.replace_personal_information = False
    untouched = judge(made)
    assert {d.id: d.text for d in kept_by_id(untouched).values()} == {
        f"s/{name}": texts[name] for name in ("web", "code")
    }
    assert not any(counts.changed for counts in untouched.counts().values())


def test_source_name_in_use_is_an_error(folder: Path, tmp_path: Path) -> None:
    (folder / "law.jsonl").rename(folder / "synthetic_law.jsonl")
    with pytest.raises(ValueError, match="already have a source 'synthetic_law'"):
        without_baking(
            recipe(folder, TeacherConfig(model="m")), tmp_path / "run", tmp_path / "cache"
        )


def test_documents_without_a_passage_are_an_error(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, TeacherConfig(model="m"))
    made.synthesis.weights = {"math": 1.0}
    with pytest.raises(
        ValueError, match=r"no document can provide a passage; .* 40 words .*\(math\)"
    ):
        without_baking(made, tmp_path / "run", tmp_path / "cache")


def test_changed_output_filters_need_no_new_requests(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any]
) -> None:
    server = serve_teacher(answers=ANSWERS)
    made = recipe(folder, server.config())
    first, _ = without_baking(made, tmp_path / "run", tmp_path / "cache")
    made.synthesis.output_filters = OutputFilters(repair_truncated=False)
    second, _ = without_baking(made, tmp_path / "run", tmp_path / "cache")
    differ = {d.manifest["stage"] for d in second} - {
        d.manifest["stage"] for d in second if d.path in {one.path for one in first}
    }
    assert differ == {"gates"}
    reasons = {one.reason for one in dropped_by_id(by_name(second, "gates")).values()}
    assert "cut_off" in reasons


KILLED = """
import sys
sys.path.insert(0, {root!r})
import json
import subprocess
import sys
import time
from pathlib import Path
from data_pipeline.config import TeacherConfig
from data_pipeline.execution.manifest import load
from data_pipeline.execution.task import Task
from data_pipeline.synthesis.stage import SynthesisRequestSettings, request_shard
from data_pipeline.config import Synthesis

folder = Path({prompts!r})
config = Synthesis(teacher=TeacherConfig(**json.loads({teacher!r})))
for file in load(folder).files():
    settings = SynthesisRequestSettings(config, Path({cache!r}))
    request_shard(Task(file.name, settings, None, Path({out!r}), (file,)))
"""


def test_killed_run_requests_only_the_rest(
    folder: Path, tmp_path: Path, serve_teacher: Callable[..., Any]
) -> None:
    """After kill -9, earlier requests are not sent again.

    The replies are those of an uninterrupted run.
    """
    server = serve_teacher(answers=ANSWERS, delay_s=0.02)
    config = server.config(concurrency=2)
    done, _ = without_baking(recipe(folder, config), tmp_path / "run", tmp_path / "whole")
    whole = kept_by_id(by_name(done, "synthesise"))
    before = Counter(server.answered())

    def ask() -> subprocess.Popen[bytes]:
        script = KILLED.format(
            root=str(ROOT),
            prompts=str(by_name(done, "prompts").path),
            teacher=json.dumps({"base_url": config.base_url, "model": "teacher", "concurrency": 2}),
            out=str(tmp_path / "again"),
            cache=str(tmp_path / "cache"),
        )
        return subprocess.Popen([sys.executable, "-c", script])

    process = ask()
    while (server.answered() - before).total() < 30:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert ask().wait() == 0
    asked_twice = [n for n in (server.answered() - before).values() if n > 1]
    assert len(asked_twice) <= 2 * config.concurrency  # in flight, or not yet on the disk
    shards = (tmp_path / "again" / "shards").glob("*.zst")
    assert {d.id: d for path in shards for d in read_shard(path)} == whole

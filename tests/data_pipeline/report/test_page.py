"""The page: agrees with the ledgers, loads nothing, and escapes what documents contain."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_pipeline import report
from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.storage.atomic import write_text
from data_pipeline.storage.document import Document, Dropped
from tests.builders import python_output
from tests.data_pipeline.builders import stage_with_files

ATTACK = (
    "<script>alert('x')</script><img src=https://evil.example/x.png> \u202egnirts\u202c \x07 end"
)
SENTENCE = "Hares rest in a shallow form by day and feed at dusk on grass, herbs and bark. "


def make(
    root: Path,
    stage: str,
    came: Sequence[Document],
    kept: Sequence[Document],
    dropped: Sequence[Dropped] = (),
    *,
    bad: Sequence[Dropped] = (),
    changed: dict[str, int] | None = None,
    extra: dict[str, Any] | None = None,
) -> Directory:
    """A finished directory of one shard, as a stage writes it."""
    path = root / "data" / f"{stage}-0123456789ab"
    ledger = Ledger("part", extra=extra or {})
    for document in came:
        counts = ledger.of(document.source, "D3" if document.source == "tasks" else "D1")
        counts.documents_in += 1
        counts.bytes_in += len(document.text.encode())
    for document in kept:
        counts = ledger.of(document.source, "D3" if document.source == "tasks" else "D1")
        counts.kept += 1
        counts.bytes_kept += len(document.text.encode())
    for answer in dropped:
        ledger.of(answer.document.source).dropped[answer.reason] += 1
    for answer in bad:
        ledger.of(answer.document.source).bad[answer.reason] += 1
    if changed:
        ledger.of("web").changed.update(changed)
    write_text(path / "timing.json", json.dumps({"seconds": 1.5, "workers": 1}))
    return stage_with_files(
        path,
        stage,
        [(ledger, kept, [*dropped, *bad])],
        config={"least": 3},
        code={"data_pipeline.x": "ab12", "zstandard": "0.23.0"},
        address=hashlib.sha256(stage.encode()).hexdigest(),
    )


def curate(root: Path) -> list[Directory]:
    """Twenty documents of two sources, of which every stage drops some."""
    documents = [
        Document(f"{source}/{k}", f"{source} number {k}. {SENTENCE * (k + 1)}", source, source)
        for source in ("web", "code")
        for k in range(10)
    ]
    documents[0] = Document("web/<b>0</b>", ATTACK, "web", "web")
    torn = Document("web/a.jsonl@17", '{"text": "caf\\xe9', "web", "")
    bad = Dropped(torn, "invalid_utf8", {"file": "a.jsonl", "offset": 17, "detail": "byte 0xe9"})
    clean = [
        Dropped(documents[0], "too_short", {"words": 4}),
        Dropped(documents[1], "too_short", {"words": 9}),
        Dropped(documents[2], "duplicate_lines", {"repeated": 0.5, "line": "feed at dusk"}),
        Dropped(documents[11], "a_rule_of_tomorrow", {"nested": {"a": [1, 2]}}),
    ]
    cleaned = [d for d in documents if d.id not in {x.document.id for x in clean}]
    near = Document("web/copy", documents[9].text.replace("dusk", "dawn"), "web", "web")
    duplicate = [
        Dropped(near, "near_duplicate", {"kept": "web/9", "kept_source": "web", "jaccard": 0.8123}),
        Dropped(
            cleaned[-1],
            "exact_duplicate",
            {"kept": "web/9", "jaccard": 1.0},
        ),
    ]
    single = cleaned[:-1]
    found = {
        "rule": "item_share",
        "benchmark": "gsm8k",
        "item": "gsm8k/test/7",
        "part": "question",
        "share": 0.9,
        "hits": 21,
        "span": "feed at dusk on grass",
    }
    leak = [Dropped(single[0], "contaminated", found), Dropped(single[-1], "held_out")]
    tasks = [Document(f"t/{k}", f"Question {k}? Answer.", "tasks", "tasks") for k in range(5)]
    return [
        make(root, "read", documents, documents, bad=[bad]),
        make(root, "clean", documents, cleaned, clean, changed={"email": 3}),
        make(root, "signatures", [], []),
        make(root, "deduplicate", [*cleaned, near], single, duplicate),
        make(root, "index", [], [], extra={"items": {"gsm8k": 30, "mmlu": 40}}),
        make(root, "decontaminate", single, single[1:-1], leak),
        make(root, "nlp_tasks", tasks, tasks),
        make(root, "stage_of_tomorrow", single[1:-1], single[1:-1]),
    ]


def baked(root: Path) -> Path:
    sources = [
        {"name": n, "category": n, "tier": t, "documents": d, "tokens": d * 100, "records": 1}
        for n, t, d in (("web", "D1", 6), ("code", "D1", 7), ("tasks", "D3", 5))
    ]
    value = {
        "schema": 1,
        "fingerprint": "f" * 64,
        "tokenizer": {"file": "t.model", "sha256": "e" * 64, "vocab_size": 320},
        "sequence_length": 16,
        "sources": sources,
        "mixtures": {"stage1": {"web": 3, "code": 1}, "stage2": {"web": 0.5, "tasks": 0.5}},
    }
    path = root / "mixture.json"
    path.write_text(json.dumps(value))
    return path


def trained(root: Path) -> Path:
    folder = root / "training"
    folder.mkdir()

    def stage(name: str, epochs: dict[str, float]) -> dict[str, Any]:
        rows = [
            {"name": s, "tier": "D1", "weight": 0.5, "tokens": 320, "epochs": e}
            for s, e in epochs.items()
        ]
        return {"name": name, "mixture": name, "tokens": 640, "steps": 40, "sources": rows}

    plan = {
        "stages": [stage("stage1", {"web": 1.0, "code": 0.4}), stage("stage2", {"tasks": 12.5})],
        "parameters": 1234567,
        "tokens_per_step": 16,
        "steps": 80,
        "flops_per_token": 7.4e6,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    rows = [
        {
            "step": step,
            "stage": "stage1" if step <= 40 else "stage2",
            "loss": 10 - step / 20 if step != 5 else float("nan"),
            "learning_rate": 1e-3,
            "tokens": 16 * step,
            "tokens_per_second": 32.0,
            "mfu": None,
            "source_loss": {"web": 9.5 - step / 20},
        }
        for step in range(1, 81)
    ]
    lines = [json.dumps(row) for row in rows]
    lines.insert(30, lines[29][:20])  # what a killed run leaves, before it logs the step again
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def evaluated(root: Path) -> Path:
    folder = root / "evaluation"
    folder.mkdir()
    models = ["untrained", "unigram", "trained"]

    def table(key: str, name: str, metric: str, values: list[float]) -> dict[str, Any]:
        row = {key: name, metric: dict(zip(models, values, strict=True))}
        return row | {"stderr": {"untrained": 0.01, "unigram": None, "trained": 0.02}}

    by_models = {"untrained": 0.01, "unigram": None, "trained": 0.02}
    scores: dict[str, Any] = {}
    for suffix, trained in (("_mutual_info", 0.625), ("", 0.375), ("_norm", 0.4)):
        scores[f"accuracy{suffix}"] = dict(zip(models, (0.25, 0.3, trained), strict=True))
        scores[f"stderr{suffix}"] = by_models
    value = {
        "fingerprint": "d" * 64,
        "step": 80,
        "models": models,
        "heldout": [
            table("source", name, "loss", values) | {"tokens": 99}
            for name, values in (("web", [10.4, 7.25, 5.125]), ("all", [10.375, 7.125, 5.5]))
        ],
        "tasks": [
            scores | {"task": name, "items": 40, "chance": 0.25} for name in ("cloze", "all")
        ],
    }
    (folder / "evaluation.json").write_text(json.dumps(value))
    samples = [{"source": "web", "prompt": ATTACK, "completion": " and so on"}]
    (folder / "samples.json").write_text(json.dumps(samples))
    return folder


def write(root: Path, directories: list[Directory], **files: Path | None) -> str:
    path = report.write(
        root / "report.html",
        directories=directories,
        title="a <title>",
        command="python main.py --config=configs/x.py",
        results=report.Results.read(**files),
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture
def full(tmp_path: Path) -> str:
    return write(
        tmp_path,
        curate(tmp_path),
        mixture=baked(tmp_path),
        training=trained(tmp_path),
        evaluation=evaluated(tmp_path),
    )


class Page(HTMLParser):
    """Elements that are not closed in order, all attributes, text by section, table rows."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.sections: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self._section = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("section", "header") and dict(attrs).get("id"):
            self._section = str(dict(attrs)["id"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self.open and self.rows and self.rows[-1] and "tr" in self.open:
            self.rows[-1][-1] += data

    def row(self, begins: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].strip().startswith(begins))


def test_html_is_balanced_and_ids_are_unique(full: str) -> None:
    page = Page(full)
    assert page.wrong == []
    assert page.open == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert targets
    assert set(targets) <= set(ids)


def test_nothing_is_loaded(full: str) -> None:
    page = Page(full)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & page.tags.keys()
    for tag, name, value in page.attributes:
        assert name not in ("src", "srcset", "data", "action", "background"), (tag, name, value)
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
        assert not name.startswith("on"), (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", full, re.S)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_policy_names_the_one_script(full: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", full, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', full)
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]


def test_texts_are_escaped(full: str) -> None:
    page = Page(full)
    assert page.tags["script"] == 1
    assert "<img" not in full
    assert "alert('x')" not in full
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", full)
    # What was dangerous is still there to be seen, in the example and in the sample.
    for section in ("dropped", "samples"):
        assert "<script>alert('x')</script>" in page.sections[section]
        assert "⟨U+202E⟩gnirts" in page.sections[section]
    assert "a <title>" in page.sections["result"]


def test_every_reason_is_shown_with_its_count_and_an_example(full: str, tmp_path: Path) -> None:
    summaries = re.findall(
        r"<summary>\s*<span class=\"what\"><b>(.*?)</b>.*?</summary>", full, re.S
    )
    counts = re.findall(r'<span class="count">([\d,]+)</span>', full)
    shown = dict(zip(summaries, counts, strict=True))
    assert shown == {
        "too short": "2",
        "duplicate lines": "1",
        "a rule of tomorrow": "1",
        "near duplicate": "1",
        "exact duplicate": "1",
        "contaminated": "1",
        "held out": "1",
        "invalid utf8": "1",
    }
    why = Page(full).sections["dropped"]
    for identity in ("web/<b>0</b>", "web/1", "web/2", "code/1", "web/a.jsonl@17"):
        assert identity in why
    assert "a.jsonl" in why
    assert "0xe9" in why
    assert "<mark>feed at dusk</mark>" in full
    assert Page(full).row("email")[2] == "3"


def test_stage_table_is_the_sum_of_the_ledgers(full: str) -> None:
    page = Page(full)
    for stage, came, kept, dropped, bad in (
        ("Read", 20, 20, "", "1"),
        ("Clean", 20, 16, "4", ""),
        ("Deduplicate", 17, 15, "2", ""),
        ("Decontaminate", 15, 13, "2", ""),
        ("Write tasks", 5, 5, "", ""),
        ("Stage of tomorrow", 13, 13, "", ""),
    ):
        assert page.row(stage)[1:5] == [str(came), str(kept), dropped, bad]
        assert page.row(stage)[-1] == "1.5 s"
    assert page.row("Compute signatures")[1:5] == ["", "", "", ""]


def test_the_first_paragraph_accounts_for_every_document(tmp_path: Path) -> None:
    # One more copy came to light than was read, so this needs a run without it.
    documents = [Document(f"web/{k}", SENTENCE, "web", "web") for k in range(10)]
    tasks = [Document(f"t/{k}", "Question? Answer.", "tasks", "tasks") for k in range(3)]
    stages = [
        make(tmp_path, "read", documents, documents),
        make(
            tmp_path,
            "clean",
            documents,
            documents[3:],
            [Dropped(d, "too_short") for d in documents[:3]],
        ),
        make(
            tmp_path,
            "decontaminate",
            documents[3:],
            documents[6:],
            [
                Dropped(documents[3], "held_out"),
                Dropped(documents[4], "too_many_tokens"),
                Dropped(
                    documents[5], "contaminated", {"benchmark": "b", "item": "b/0", "rule": "r"}
                ),
            ],
        ),
        make(tmp_path, "nlp_tasks", tasks, tasks),
        make(tmp_path, "decontaminate_tasks", tasks, tasks[1:], [Dropped(tasks[0], "x")]),
    ]
    text = " ".join(Page(write(tmp_path, stages)).sections["result"].split())
    assert "Of 10 documents" in text
    assert "4 were kept for training. Of the others, 3 broke a cleaning rule," in text
    assert "1 contained evaluation data, 1 was held out for evaluation, " in text
    assert "1 exceeded the token limit." in text
    assert "3 further documents were written, of which 2 were kept." in text


def test_duplicates_show_the_survivor_beside_the_copy(full: str) -> None:
    page = Page(full)
    assert "0.812" in page.sections["duplicates"]
    assert "<mark>dawn</mark>" in full
    assert "<mark>dusk</mark>" in full
    header = next(row for row in page.rows if row[:3] == ["", "web", "code"])
    assert page.row("code")
    matrix = [row for row in page.rows if row and len(row) == len(header) and row[0] != ""]
    assert [row[1:] for row in matrix if row[0] == "web"] == [["1", "", "1"]]
    assert [row[1:] for row in matrix if row[0] == "code"] == [["1", "", "1"]]


def test_contamination_shows_item_rule_and_text(full: str) -> None:
    page = Page(full)
    assert page.row("gsm8k")[1:] == ["30", "1", "1", "item share 1"]
    assert page.row("mmlu")[1:] == ["40", "0", "0", ""]
    assert "gsm8k/test/7" in page.sections["contamination"]
    section = full[full.index('id="contamination"') : full.index('id="mixture"')]
    assert "<mark>feed at dusk on grass</mark>" in section


def test_mixture_shows_shares_and_warns_of_repetition(full: str) -> None:
    page = Page(full)
    shares = {row[0]: row[2] for row in page.rows if len(row) == 7 and row[0] in ("web", "code")}
    assert shares == {"web": "50.0%", "code": "25.0%"}  # web as stage2, the later table, has it
    assert "tasks is repeated 12.5 times in stage2" in page.sections["mixture"]
    assert "web is repeated" not in page.sections["mixture"]


def test_training_counts_each_step_once(full: str) -> None:
    text = Page(full).sections["training"]
    assert "80 steps" in text
    assert "1,280 tokens in 0:40" in text  # 1280 tokens at 32 a second
    assert full.count("nan") == full.count("financ")  # a NaN loss is left out of the line


def test_evaluation_has_models_and_standard_errors(full: str) -> None:
    page = Page(full)
    losses = [row for row in page.rows if row and row[0] == "all"]
    assert [" ".join(cell.split()) for cell in losses[0][1:]] == [
        "99",
        "10.375 ±0.010",
        "7.125",
        "5.500 ±0.020",
        "4.88",
    ]
    assert " ".join(losses[1][-1].split()) == "62.5% ±2.0%"
    result = " ".join(page.sections["result"].split())
    assert "changed from 10.38 to 5.50 nats per token" in result


@pytest.mark.parametrize("missing", ["mixture", "training", "evaluation"])
def test_a_section_without_files_is_left_out(tmp_path: Path, missing: str) -> None:
    files = {
        "mixture": baked(tmp_path),
        "training": trained(tmp_path),
        "evaluation": evaluated(tmp_path),
    }
    page = Page(write(tmp_path, curate(tmp_path), **{**files, missing: None}))
    assert page.wrong == []
    sections = {"mixture": ["mixture"], "training": ["training"]}
    for name in sections.get(missing, ["evaluation", "samples"]):
        assert name not in page.sections
    rest = {"flow", "dropped", "duplicates", "contamination", "reproducibility"}
    assert rest | (files.keys() - {missing}) <= page.sections.keys()


def test_section_is_left_out_without_decontamination(tmp_path: Path) -> None:
    stages = [stage for stage in curate(tmp_path) if stage.manifest["stage"] != "index"]
    page = Page(write(tmp_path, stages))
    assert page.wrong == []
    assert "contamination" not in page.sections
    assert "Contaminated" not in page.sections["result"]


def test_page_without_input(tmp_path: Path) -> None:
    page = Page(write(tmp_path, [], training=tmp_path / "not there"))
    assert page.wrong == []
    assert page.sections.keys() - {""} == {"result", "reproducibility"}


def test_addresses_and_versions_are_given(full: str) -> None:
    text = Page(full).sections["reproducibility"]
    assert hashlib.sha256(b"clean").hexdigest() in text
    assert "f" * 64 in text
    assert "zstandard 0.23.0" in text
    assert "python main.py --config=configs/x.py" in text
    assert '"least": 3' in text


def test_more_sources_than_colors(tmp_path: Path) -> None:
    documents = [Document(f"{k}/0", SENTENCE * (k + 1), f"source{k:02}", "c") for k in range(30)]
    html = write(tmp_path, [make(tmp_path, "read", documents, documents)])
    page = Page(html)
    assert page.wrong == []
    assert len([row for row in page.rows if row and row[0].startswith("source")]) == 30
    # The largest have a color of their own each, the others the last one.
    legend = re.search(r'<ul class="legend">(.*?)</ul>', html, re.S)
    assert legend
    classes = Counter(re.findall(r'class="swatch (s\d)"', legend[1]))
    assert classes == {f"s{k}": 1 for k in range(9)} | {"s9": 21}


def test_same_files_same_bytes_in_every_process(tmp_path: Path, full: str) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from data_pipeline import report\n"
        "from data_pipeline.execution import manifest\n"
        "root = Path(sys.argv[1])\n"
        "names = sys.argv[2].split(',')\n"
        "report.write(root / 'again.html', title='a <title>',\n"
        "  directories=[manifest.load(root / 'data' / f'{n}-0123456789ab') for n in names],\n"
        "  results=report.Results.read(mixture=root / 'mixture.json',\n"
        "  training=root / 'training', evaluation=root / 'evaluation'),\n"
        "  command='python main.py --config=configs/x.py')\n"
    )
    stages = "read,clean,signatures,deduplicate,index,decontaminate,nlp_tasks,stage_of_tomorrow"
    python_output(script, str(tmp_path), stages, hash_seed="7", TZ="Asia/Tokyo")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == full
    assert str(tmp_path) not in full


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    mixture = tmp_path / "mixture.json"
    mixture.write_text("{")
    with pytest.raises(ValueError, match=r"mixture\.json is not valid JSON"):
        write(tmp_path, [], mixture=mixture)
    assert not (tmp_path / "report.html").exists()

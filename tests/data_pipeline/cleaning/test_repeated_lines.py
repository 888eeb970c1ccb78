from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.cleaning.repeated_lines import (
    LineCounts,
    line_hash,
    merge,
    remove_repeated_lines,
)
from data_pipeline.cleaning.repeated_lines_stage import find_repeated_lines
from data_pipeline.cleaning.stage import clean
from data_pipeline.config import Cleaning, Reading, Recipe, RepeatedLines, Source
from data_pipeline.reading.stage import read
from data_pipeline.text import seeded_random
from tests.builders import write_jsonl
from tests.data_pipeline.builders import kept_documents, runner_at

SOURCES = ("web", "law")
LINES = ["Skip to the text", "All rights reserved.", "é ü ñ line", "no", "", "Hares are fast."]
T = TypeVar("T")
R = TypeVar("R")
Pages = list[tuple[str, str]]

pages_of = st.lists(
    st.tuples(
        st.lists(st.sampled_from(LINES), max_size=5).map("\n ".join), st.sampled_from(SOURCES)
    ),
    max_size=12,
)


def oracle(pages: Pages, least: int) -> dict[str, dict[int, int]]:
    counts: dict[str, Counter[int]] = {source: Counter() for source in SOURCES}
    for text, source in pages:
        lines = {line.strip() for line in text.split("\n")}
        counts[source].update(line_hash(source, line) for line in lines if len(line) >= 4)
    return {s: {k: n for k, n in c.items() if n >= least} for s, c in counts.items()}


@settings(max_examples=60, deadline=None)
@given(pages_of, st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.randoms())
def test_any_shards_in_any_order_in_any_partitions_give_the_same(
    pages: Pages, least: int, shards: int, partitions: int, random: object
) -> None:
    shuffled = list(pages)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    counted = [LineCounts.from_documents(shuffled[k::shards]) for k in range(shards)]
    found: dict[str, dict[int, int]] = {source: {} for source in SOURCES}
    for number in range(partitions):
        parts = (counts.partition(number, partitions) for counts in counted)
        for source, table in merge(parts, dict.fromkeys(SOURCES, least)).items():
            assert not found[source].keys() & table.keys()  # nothing twice
            found[source] |= table
    assert found == oracle(pages, least)


def test_a_line_counts_once_for_a_document_and_for_its_source_alone() -> None:
    pages = [("Menu of it\nMenu of it", "web"), ("Menu of it", "law")]
    assert LineCounts.from_documents(pages).documents_L.tolist() == [1, 1]
    assert line_hash("web", "Menu of it") != line_hash("law", "Menu of it")


def test_partitions_are_the_whole_hash_space(tmp_path: Path) -> None:
    everything = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    counts = LineCounts(["web"], everything, np.ones(4, np.uint32), np.zeros(4, np.uint32))
    for partitions in (1, 2, 3, 7):
        parts = [counts.partition(k, partitions).hashes_L for k in range(partitions)]
        assert np.concatenate(parts).tolist() == everything.tolist()
    counts.save(tmp_path / "counts.npz")
    loaded = LineCounts.load(tmp_path / "counts.npz")
    assert loaded.sources == ["web"] and loaded.hashes_L.tolist() == everything.tolist()


def removed(text: str, *lines: str) -> list[str]:
    table = {line_hash("web", line): 9 for line in lines}
    kept, gone = remove_repeated_lines(text, table, "web")
    left = [line.strip() for line in kept.split("\n") if line.strip()]
    before = [line.strip() for line in text.split("\n") if line.strip()]
    assert sorted(left + [line for line, _ in gone]) == sorted(before)  # nothing is lost or changed
    assert all(documents == 9 for _, documents in gone)
    return [line for line, _ in gone]


MENU = ("Skip to main content", "Toggle the menu", "Navigation")
BODY = "Hares are fast.\n\nThey live alone."


def test_the_template_of_a_page_is_removed() -> None:
    page = "\n\n".join([*MENU, BODY, "All rights reserved"])
    assert removed(page, *MENU, "All rights reserved") == [*MENU[:2], "All rights reserved"]
    # the last line of the menu could be the heading of what follows
    title = f"A title\n\n{page}"
    assert removed(title, *MENU, "Search", "All rights reserved") == ["All rights reserved"]
    more = title.replace("Navigation", "Navigation\n\nD.C. Law Library")
    assert removed(more, *MENU, "D.C. Law Library") == list(MENU)


def test_sentences_go_wherever_they_stand() -> None:
    notice = "Please do not scrape these pages."
    assert removed(f"Hares\n\n{notice}\n\n{BODY}", notice) == [notice]
    assert removed(f"Hares {BODY}\n{notice}\n{BODY}", notice) == []  # one of a paragraph's lines


IMPORTS = "import numpy\nimport torch\nimport jax\nimport os"
TABLE = "| Yes | No |\n| No | Yes |\n| No | No |\n| a | b |"
LATEX = "\\begin{proof}\n\\end{proof}\n\\begin{lemma}\n\\end{lemma}"
FIGURES = "Energy\nelectrification: 100% (2022 est.)\nUrban share is 90%\nOil fields"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Greece\n\nPopulation\n\n10 million\n\nArea\n\n130,000 km2", "Population\nArea"),
        ("Hares\n\nYou will be able to:\n\n- run", "You will be able to:"),
        ("x\n\n```\n\n" + IMPORTS.replace("\n", "\n\n") + "\n\n```\n\ny", IMPORTS),
        ("x\n\n    " + IMPORTS.replace("\n", "\n    ") + "\n\ny", IMPORTS),
        (f"x\n\n{TABLE}\n\ny", TABLE),
        (f"x\n\n{LATEX}\n\ny", LATEX),
        ("Niger\n\n" + FIGURES.replace("\n", "\n\n") + "\n\n1", FIGURES),
        ("KING RICHARD:\nNow is the winter.\n\nKING RICHARD:\nOf our.", "KING RICHARD:"),
    ],
)
def test_structure_and_data_stay(text: str, lines: str) -> None:
    assert removed(text, *lines.split("\n")) == []


def folder_of_pages(folder: Path) -> Path:
    random = seeded_random.seeded(0, "pages")
    for source in ("web", "code"):
        rows = []
        for k in range(60):
            words = " ".join(random.choices(["hare", "tortoise", "race", "field", "grass"], k=9))
            body = f"Page {k} says that {words}."
            frame = ["Skip to the main content.", body, "All rights reserved by the authors."]
            text = "\n\n".join(frame[: 3 if k < 40 else 2])
            rows.append({"id": str(k), "text": text, "source": source, "category": source})
            if k % 2:  # the same source has code too
                rows.append(rows[-1] | {"id": f"code {k}", "category": "code"})
        write_jsonl(folder / f"{source}.jsonl", rows)
    return folder


def run(folder: Path, root: Path, **knobs: object) -> tuple[dict[str, str], Recipe]:
    recipe = Recipe(
        sources=[Source(path=str(folder))],
        reading=Reading(shard_bytes=int(knobs.pop("shard_bytes", 4000))),  # type: ignore[call-overload]
        cleaning=Cleaning(min_foreign_score=1.1, min_words=3),
        repeated_lines=RepeatedLines(**knobs),  # type: ignore[arg-type]
    )
    with runner_at(root) as runner:
        before = read(recipe, runner)
        after = clean(recipe, runner, before, find_repeated_lines(recipe, runner, before))
    texts = {f"{d.source}/{d.id}": d.text for d in kept_documents(after)}
    changed = {source: dict(counts.changed) for source, counts in after.counts().items()}
    assert changed["code"] == {}
    expected = {"repeated_line": 100} if recipe.repeated_lines.enabled else {}
    assert changed["web"] == (expected if knobs.get("min_documents", 20) < 60 else {})  # type: ignore[operator]
    return texts, recipe


def test_the_stages_remove_boilerplate_from_prose_only(tmp_path: Path) -> None:
    folder = folder_of_pages(tmp_path / "pages")
    texts, _ = run(folder, tmp_path / "one")
    assert len(texts) == 180
    for name, text in texts.items():
        is_prose = name.startswith("web") and "code" not in name
        assert ("Skip to the main content" in text) != is_prose
        assert not (is_prose and "All rights reserved" in text)
        assert "says that" in text
    (path,) = tmp_path.glob("one/lines-*/manifest.json")
    counted = [shard["extra"]["documents"] for shard in json.loads(path.read_text())["shards"]]
    assert sum(map(Counter, counted), Counter()) == {"web": 60}  # code is not counted
    in_parts, _ = run(folder, tmp_path / "parts", partitions=3, shard_bytes=2500)
    assert in_parts == texts
    off, _ = run(folder, tmp_path / "off", enabled=False)
    assert all("Skip to the main content" in text for text in off.values())
    rare, _ = run(folder, tmp_path / "rare", min_documents=60)  # not in more than 60
    assert rare == off


def test_the_ledger_names_the_most_frequent_lines(tmp_path: Path) -> None:
    run(folder_of_pages(tmp_path / "pages"), tmp_path / "run")
    (path,) = tmp_path.glob("run/clean-*/manifest.json")
    ledgers = json.loads(path.read_text())["shards"]
    named = [ledger["extra"]["repeated_lines"]["web"] for ledger in ledgers if ledger["extra"]]
    both = [["Skip to the main content.", 60], ["All rights reserved by the authors.", 40]]
    assert both in named and all(lines in (both, both[:1]) for lines in named)

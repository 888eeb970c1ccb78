"""Examples: the right part of a text, deterministic, from few shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.execution.manifest import Directory, Ledger
from data_pipeline.report import excerpts
from data_pipeline.storage import shards
from data_pipeline.storage.document import Document, Dropped
from tests.data_pipeline.builders import stage_with_files


def whole(segments: list[excerpts.Segment]) -> str:
    return "".join(piece for piece, _ in segments)


def marked(segments: list[excerpts.Segment]) -> list[str]:
    return [piece for piece, is_marked in segments if is_marked]


def test_invisible_characters_are_shown_and_others_stay() -> None:
    text = "tab\t newline\n é 漢 👩\u200d🔬 שלום"
    assert excerpts.printable(text) == text
    for code in (0x0, 0x1B, 0x7F, 0x85, 0x202E, 0x2066, 0x200B, 0xFEFF, 0xD800, 0xE0041):
        assert excerpts.printable(f"a{chr(code)}b") == f"a⟨U+{code:04X}⟩b"


def test_excerpt_begins_where_the_evidence_is() -> None:
    text = "a" * 1000 + "EVIDENCE" + "b" * 1000
    segments = excerpts.excerpt(text, [(1000, 1008)], size=300)
    assert marked(segments) == ["EVIDENCE"]
    assert whole(segments) == "… " + "a" * 120 + "EVIDENCE" + "b" * 172 + " …"


def test_excerpt_begins_and_ends_between_words() -> None:
    text = "hares " * 300
    start = 1000  # inside a word
    segments = excerpts.excerpt(text, [(start, start + 10)], size=300)
    assert whole(segments) == "… " + " ".join(["hares"] * 50) + " …"
    assert "".join(marked(segments)) == text[start : start + 10]
    assert whole(excerpts.excerpt(text, size=20)) == "hares hares hares …"


def test_excerpt_of_a_short_text_is_the_text() -> None:
    assert excerpts.excerpt("hares", [(0, 5)]) == [("hares", True)]
    assert excerpts.excerpt("") == []


def test_excerpt_marks_overlapping_and_cut_spans() -> None:
    segments = excerpts.excerpt("0123456789", [(2, 5), (4, 7), (8, 99)], size=9)
    assert whole(segments) == "012345678 …"
    assert "".join(marked(segments)) == "234568"


def test_quotes_are_found_despite_other_whitespace() -> None:
    text = "They\n   rest  by day. (They rest.)"
    evidence = {"span": "They rest by day", "rule": "rest"}
    assert excerpts.evidence_spans(text, evidence) == [(0, 20)]
    assert excerpts.evidence_values(text, evidence) == [("rule", "rest")]
    # A quote that cannot be marked is said.
    assert excerpts.evidence_values("other", {"span": "They rest"}) == [("span", "They rest")]


def test_compare_marks_what_differs_and_begins_near_it() -> None:
    common = "".join(f"word{k} " for k in range(300))
    one, other = excerpts.compare(common + "hare runs", common + "fox runs")
    assert marked(one) == ["hare"]
    assert marked(other) == ["fox"]
    assert whole(one).startswith("… ")
    assert len(whole(one)) < 450
    assert excerpts.compare("same text", "same\ntext") == (
        [("same text", False)],
        [("same\ntext", False)],
    )
    assert excerpts.compare("", "hare") == ([], [("hare", True)])


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """Three shards; "rare" lies in the last only, "common" in all, of two sources."""
    shards = []
    for k in range(3):
        ledger = Ledger(f"s{k}")
        rows = [Dropped(Document(f"a{k}{i}", "t", "a", "c"), "common") for i in range(9)]
        rows += [Dropped(Document(f"b{k}{i}", "t", "b", "c"), "common") for i in range(2)]
        if k == 2:
            rows.append(Dropped(Document("b2r", "t", "b", "c"), "rare"))
        for row in rows:
            ledger.of(row.document.source).dropped[row.reason] += 1
        shards.append((ledger, [Document(f"k{k}", f"text {k}", "a", "c")], rows))
    return stage_with_files(tmp_path / "clean", "clean", shards)


def test_choice_is_spread_over_sources_and_complete(directory: Directory) -> None:
    chosen = excerpts.choose(directory, 3)
    assert [d.document.id for d in chosen["rare"]] == ["b2r"]
    assert sorted(d.document.source for d in chosen["common"]) == ["a", "a", "b"]
    assert len(excerpts.choose(directory, 99)["common"]) == 33


def test_choice_opens_only_what_it_needs(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def read(path: Path) -> object:
        opened.append(path.name)
        return shards.read_dropped(path)

    monkeypatch.setattr(excerpts, "read_dropped", read)
    excerpts.choose(directory, 3)
    assert opened == ["s0.jsonl.zst", "s2.jsonl.zst"]


def test_survivors_are_found_by_id(directory: Directory) -> None:
    found = excerpts.survivors(directory, {"k1", "nobody"})
    assert {key: document.text for key, document in found.items()} == {"k1": "text 1"}

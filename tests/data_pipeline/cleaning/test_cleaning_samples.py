"""What `python -m benchmarks.cleaning` draws to be read follows from ids and seed alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.cleaning import draw, main
from tests.builders import read_jsonl, write_jsonl

SENTENCE = "The hare that lives in these hills has to run with all of its strength, and it does. "


def row(source: str, number: int, category: str = "web", text: str = "") -> dict[str, str]:
    text = text or f"{SENTENCE * 4}It is number {number}."
    return {"id": f"{number}", "text": text, "source": source, "category": category}


def write(folder: Path, files: dict[str, list[dict[str, str]]]) -> str:
    folder.mkdir()
    for name, rows in files.items():
        write_jsonl(folder / name, rows)
    return str(folder)


def drawn(folder: str, each: int, seed: int, into: Path) -> list[dict[str, str]]:
    draw(folder, each, seed, into)
    return read_jsonl(into)


def test_the_sample_does_not_depend_on_the_files(tmp_path: Path) -> None:
    hares, foxes = ([row(name, k) for k in range(30)] for name in ("hares", "foxes"))
    code = [row("programs", k, "code") for k in range(30)]
    owls = [row("owls", k) for k in range(3)]
    one = write(tmp_path / "one", {"all.jsonl": [*hares, *code, *foxes, *owls]})
    several = write(
        tmp_path / "several",
        {"a.jsonl": [*foxes[9:], *owls], "b.jsonl": [*hares[::-1], *code], "c.jsonl": foxes[:9]},
    )
    rows = drawn(one, 5, 0, tmp_path / "1.jsonl")
    assert [r["source"] for r in rows] == ["foxes"] * 5 + ["hares"] * 5 + ["owls"] * 3
    assert all(r in [*hares, *foxes, *owls] for r in rows)
    assert len({(r["source"], r["id"]) for r in rows}) == len(rows)
    assert drawn(several, 5, 0, tmp_path / "2.jsonl") == rows
    assert drawn(one, 5, 1, tmp_path / "3.jsonl") != rows
    more = drawn(one, 9, 0, tmp_path / "4.jsonl")
    assert len(more) == 21 and all(r in more for r in rows)


def test_rule_sets_are_distinguished_from_the_default_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    menu = "\n".join(f"Chapter {k} of the hare that runs.\n" for k in range(9))
    rows = [row("hares", k) for k in range(6)]
    rows += [row("hares", 6, text="Too short."), row("hares", 7, text=menu)]
    folder = write(tmp_path / "in", {"hares.jsonl": rows})
    work = ["--prose", "20", "--workdir", str(tmp_path / "work"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["cleaning", folder, "--rule", "GopherRepetition", *work])
    main()
    # the short one goes by a default rule: of the other seven, the set drops those that repeat
    printed = capsys.readouterr().out
    assert (
        "GopherRepetition drops 7 of 7" in printed and "too_short" not in printed.split("\n\n")[1]
    )
    monkeypatch.setattr(sys, "argv", ["cleaning", folder, "--rule", "FineWeb", *work])
    main()
    printed = capsys.readouterr().out
    assert "FineWeb drops 0 of 7" in printed


def test_a_negative_number_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cleaning", "nowhere", "--prose", "-1"])
    with pytest.raises(SystemExit):
        main()
    assert "--prose: got -1, expected a number of documents, 0 for all" in capsys.readouterr().err

"""The read step: what is not there is listed at once, and a source has one tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.config import Reader, Recipe, Source, Tier
from data_pipeline.reading.stage import read
from tests.builders import write_jsonl
from tests.data_pipeline.builders import runner_at


def run(recipe: Recipe, root: Path) -> set[str]:
    with runner_at(root) as runner:
        return set(read(recipe, runner).counts())


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    empty = tmp_path / "empty"
    empty.mkdir()
    return Recipe(
        sources=[
            Source("web", path=str(write_jsonl(tmp_path / "web.jsonl", [{"text": "Hares."}]))),
            Source("books", path=str(tmp_path / "books"), obtain="To get it: ask a library"),
            Source("laws", path=str(empty), obtain="To get it: ask a court"),
            Source("maths", path="", obtain="To get it: think"),
            Source("corpus", reader=Reader.TFDS, path="corpus", data_dir=str(empty)),
            Source(path=""),
        ]
    )


def test_all_missing_sources_are_listed(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"4 of 5 sources are missing\. Get them, or") as said:
        run(recipe, tmp_path / "data")
    lines = str(said.value).splitlines()
    assert lines[0].endswith("--config.data.allow_missing=True:")
    assert (
        lines[1] == f"  source 'books': {tmp_path}/books does not exist. To get it: ask a library."
    )
    assert "'laws': no documents in" in lines[2] and lines[2].endswith("ask a court.")
    assert "'maths' has no path. Set its `path` to a file or folder. To get it: think." in lines[3]
    assert "no prepared TFDS dataset 'corpus'" in lines[4]
    assert not (tmp_path / "data").exists()


def test_the_others_are_read_only_when_asked_for(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.allow_missing = True
    for name in ("LICENSE", "hare.png"):
        (tmp_path / "empty" / name).touch()
    assert run(recipe, tmp_path / "data") == {"web"}
    printed = capsys.readouterr().out
    ignored = "unsupported files are ignored: 1 without suffix, 1 .png"
    assert " ".join(printed.split()).count(ignored) == 1  # the console wraps long lines
    assert "4 of 5 sources are missing:" in printed
    assert "To get it: ask a court." in printed
    del recipe.sources[0]
    with pytest.raises(ValueError, match=r"4 of 4 sources are missing\. Get them:"):
        run(recipe, tmp_path / "data")


def test_one_missing_source_is_one_line(recipe: Recipe, tmp_path: Path) -> None:
    del recipe.sources[2:]
    with pytest.raises(
        ValueError,
        match=r"^config\.data\.sources: source 'books': .* does not exist\. .* ask a library\.$",
    ):
        run(recipe, tmp_path / "data")


def test_obtain_does_not_change_the_address(recipe: Recipe, tmp_path: Path) -> None:
    del recipe.sources[1:]
    with runner_at(tmp_path / "data") as runner:
        before = read(recipe, runner)
        recipe.sources[0].obtain = "To get it: look around"
        assert read(recipe, runner).address == before.address


def test_a_source_has_one_tier(tmp_path: Path) -> None:
    """Rows may name their source: two tiers of one name would be counted as the first."""
    row = {"text": "Hares.", "source": "wiki"}
    sources = [
        Source(path=str(write_jsonl(tmp_path / "a.jsonl", [row]))),
        Source(path=str(write_jsonl(tmp_path / "b.jsonl", [row])), tier=Tier.D3),
    ]
    with pytest.raises(
        ValueError, match=r"'wiki' has tier D1 in shard a-00000 and tier D3 in shard b-00000"
    ):
        run(Recipe(sources=sources), tmp_path / "data")
    sources[1].name = "tasks"
    assert run(Recipe(sources=sources), tmp_path / "data") == {"wiki", "tasks"}


def test_worker_processes_read_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict({"text": [f"Hare {i}." for i in range(30)]})
    rows.save_to_disk(tmp_path / "saved")
    source = Source("hares", reader=Reader.HUGGING_FACE, path=str(tmp_path / "saved"))
    with runner_at(tmp_path / "data", workers=2) as runner:
        counts = read(Recipe(sources=[source]), runner).counts()
    assert counts["hares"].kept == 30

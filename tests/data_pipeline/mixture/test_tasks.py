from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader

from data_pipeline.config import Baking, Source, Tier
from data_pipeline.execution.manifest import digest
from data_pipeline.mixture import bake, tasks
from data_pipeline.mixture.tokenizer import MixtureTokenizer
from data_pipeline.storage.document import Document
from tests.data_pipeline.mixture import tokenization_samples as samples

TEXTS = ["Hares are fast.", *samples.TEXTS, "the hare and the tortoise\n" * 2000]
SOURCES = [
    Source("web", category="web", tier=Tier.D1),
    Source("code", category="code", tier=Tier.D1),
    Source("quiz show", category="tasks", tier=Tier.D3),
]
MIXTURES = {"stage1": {"D1": 1.0}, "stage2": {"web": 0.5, "code": 0.2, "D3": 0.3}}


def documents(source: str) -> list[Document]:
    return [Document(f"{source}/{i}", text, source, source) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("a [baked] folder")
    config = Baking(sequence_length=64)
    parts = [
        bake.bake_part(f"part-{i}", source.name, documents(source.name), directory, config)
        for i, source in enumerate(SOURCES)
    ]
    bake.write_manifest(directory, SOURCES, parts, MIXTURES, config)
    return directory


@pytest.fixture(scope="module")
def defined(baked: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return tasks.define(baked)


def examples(provider: Any, length: int | None = None, **options: Any) -> list[dict[str, Any]]:
    lengths = None if length is None else {"targets": length}
    options = {"shuffle": False, "num_epochs": 1, **options}
    return list(provider.get_dataset(lengths, "train", **options).as_numpy_iterator())


# -- tasks -------------------------------------------------------------------------------------


def test_tasks_give_what_the_tokenizer_gives(defined: tuple[dict[str, Any], Any]) -> None:
    """For every text, odd, empty or long: BOS, the Python tokenizer's ids, EOS, and the id."""
    tokenizer = MixtureTokenizer()
    got = examples(defined[0]["web"])
    assert [e["id"].decode() for e in got] == [d.id for d in documents("web")]
    for example, text in zip(got, TEXTS, strict=True):
        assert example["targets"].tolist() == [1, *tokenizer.encode(text), 2]


def test_a_vocabulary_with_pieces_across_words(tmp_path: Path) -> None:
    """Words cannot be encoded apart then: the ids are still those of the Python tokenizer."""
    path = samples.changed_model(tmp_path, {300: "'s"})
    tokenizer = MixtureTokenizer(path)
    assert 300 in tokenizer.encode(samples.APOSTROPHES)
    bake.bake_part("part", "web", documents("web"), tmp_path, Baking(tokenizer=str(path)))
    got = examples(tasks.task("across", [tmp_path / "part.tfrecord"], tokenizer))
    for example, text in zip(got, TEXTS, strict=True):
        assert example["targets"].tolist() == [1, *tokenizer.encode(text), 2]


def test_long_documents_become_several_examples(defined: tuple[dict[str, Any], Any]) -> None:
    whole = {e["id"]: e["targets"].tolist() for e in examples(defined[0]["web"])}
    pieces: dict[bytes, list[int]] = {}
    for example in examples(defined[0]["web"], length=100):
        assert len(example["targets"]) <= 100
        pieces.setdefault(example["id"], []).extend(example["targets"].tolist())
    assert pieces == whole
    assert max(map(len, whole.values())) > 1000


def test_baked_rows_hold_the_examples(baked: Path, defined: tuple[dict[str, Any], Any]) -> None:
    """What training reads is what a SeqIO user gets, though another encoder has made it."""
    rows, spans = (
        ArrayRecordReader(str(baked / f"part-0{end}.array_record")).read_all()
        for end in ("", ".spans")
    )
    examples_by_id = {e["id"].decode(): e["targets"] for e in examples(defined[0]["web"])}
    seen: Counter[str] = Counter()
    for row, of_row in zip(rows, map(json.loads, spans), strict=True):
        tokens, at = np.frombuffer(row[: 2 * 65], "<u2"), 0
        for name, offset, length in of_row:
            own = examples_by_id[name][offset : offset + length]
            assert tokens[at : at + length].tolist() == own.tolist()
            seen[name] += length - (offset > 0)
            at += length
    assert seen == {name: len(tokens) for name, tokens in examples_by_id.items()}


@pytest.mark.slow
def test_rates_are_honoured(defined: tuple[dict[str, Any], dict[str, Any]]) -> None:
    mixture = defined[1]["stage2"]
    assert mixture.name == "hare_stage2"
    dataset = mixture.get_dataset(
        {"targets": 1 << 20}, "train", shuffle=False, seed=1, passthrough_features=["id"]
    )
    counts = Counter(
        example["id"].decode().split("/")[0] for example in dataset.take(2000).as_numpy_iterator()
    )
    # Three standard deviations of a share of 0.5 in 2000 draws are 0.034.
    for source, share in {"web": 0.5, "code": 0.2, "quiz show": 0.3}.items():
        assert counts[source] / 2000 == pytest.approx(share, abs=0.034)


@pytest.mark.slow
def test_any_seqio_user_can_load_it_by_name(baked: Path) -> None:
    """In a process of its own, which also must end by itself and say nothing."""
    program = f"""
import data_pipeline.mixture.tasks as tasks
print(tasks.register({str(baked)!r}))
import seqio
mixture = seqio.get_mixture_or_task("hare_stage2")
dataset = mixture.get_dataset({{"targets": 2048}}, "train", shuffle=False)
for example in dataset.take(3).as_numpy_iterator():
    print(example["targets"][0], example["targets"].dtype)
task = seqio.get_mixture_or_task("hare_quiz_show")
converter = seqio.LMFeatureConverter(pack=True)
packed = seqio.get_dataset("hare_stage2", {{"targets": 128}}, converter, "train", num_epochs=None)
print(next(packed.as_numpy_iterator())["decoder_target_tokens"].shape)
print(task.output_features["targets"].vocabulary.vocab_size)
try:
    tasks.register({str(baked)!r})
except ValueError as error:
    print(error)
"""
    got = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert (got.returncode, got.stderr) == (0, "")
    assert got.stdout.splitlines() == [
        "['hare_web', 'hare_code', 'hare_quiz_show', 'hare_stage1', 'hare_stage2']",
        *["1 int32"] * 3,
        "(128,)",
        "32000",
        "SeqIO already has 'hare_web'; give another prefix",
    ]


# -- what is not as it should be ---------------------------------------------------------------


def copied(baked: Path, to: Path) -> Path:
    for file in baked.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_folder_without_mixtures_is_refused_by_name(baked: Path, tmp_path: Path) -> None:
    """Held-out documents lie in such a folder; its tasks can still be defined."""
    held_out = tmp_path / "held-out"
    shutil.copytree(baked, held_out)
    path = held_out / "mixture.json"
    manifest = json.loads(path.read_text()) | {"mixtures": {}}
    del manifest["fingerprint"]
    path.write_text(json.dumps({"fingerprint": digest(manifest), **manifest}))
    with pytest.raises(ValueError, match=r"defines no mixture, only the tasks .*'web'"):
        tasks.register(held_out, prefix="held_out")


def test_refuses_what_was_changed_after_baking(baked: Path, tmp_path: Path) -> None:
    directory = copied(baked, tmp_path)
    manifest = directory / "mixture.json"
    text = manifest.read_text("utf-8")
    manifest.write_text(text.replace('"web": 0.5', '"web": 0.6'), "utf-8")
    with pytest.raises(ValueError, match=r"mixture\.json states fingerprint"):
        tasks.define(directory)
    manifest.write_text(text, "utf-8")
    tfrecord = directory / "part-1.tfrecord"
    tfrecord.write_bytes(tfrecord.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"part-1\.tfrecord has \d+ bytes"):
        tasks.define(directory)
    model = directory / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"tokenizer\.model has sha256"):
        tasks.define(directory)
    manifest.unlink()
    with pytest.raises(FileNotFoundError, match="expected a mixture directory"):
        tasks.define(directory)


def test_refuses_two_names_that_are_one_in_seqio(baked: Path, tmp_path: Path) -> None:
    directory = copied(baked, tmp_path)
    manifest = json.loads((directory / "mixture.json").read_text("utf-8"))
    manifest["mixtures"]["quiz/show"] = {"web": 1.0}
    del manifest["fingerprint"]
    manifest["fingerprint"] = bake.digest(manifest)
    (directory / "mixture.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ValueError, match="'quiz show' and 'quiz/show' would both be named"):
        tasks.define(directory)

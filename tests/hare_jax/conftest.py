"""Eight fake CPU devices, strict JAX, and a small baked mixture."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # before jax is imported for the first time

import jax
import numpy as np
import pytest

from hare_jax.config import Model
from hare_jax.training import train
from tests.builders import write_jsonl
from tests.hare_jax.builders import (
    BOS,
    EOS,
    VOCABULARY,
    Row,
    T,
    one_device,
    tiny_model,
    tiny_training,
    write_mixture,
)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    # When one array of a damaged checkpoint cannot be read, Orbax closes its event loop under the
    # readers of the others; their complaints arrive at any later time, in whatever test runs then.
    readers = "(_read_|_get_array_metadatas|deserialize)"
    for complaint in (
        "(?s)Exception ignored in.*Event loop is closed:pytest.PytestUnraisableExceptionWarning",
        f"(?s)Exception ignored in.*{readers}:pytest.PytestUnraisableExceptionWarning",
        f"coroutine .*{readers}.* was never awaited:RuntimeWarning",
        # JAX writes the entries of its cache in place: another process may read half of one, and
        # then compiles for itself.
        "Error reading persistent compilation cache entry:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{complaint}")


@pytest.fixture(autouse=True, scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compilation cache of all tests, of all pytest workers and of the processes they start.

    Most of a small run is compilation.
    """
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folder above those of the workers
        directory = directory.parent
    directory /= "compiled"
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return directory


@pytest.fixture(scope="session")
def curves() -> Callable[[Path], dict[tuple[str, int], float]]:
    """A run's folder -> (name, step) -> value of each curve, as its TensorBoard files have them."""

    def read(run_dir: Path) -> dict[tuple[str, int], float]:
        from tensorboardX.proto.event_pb2 import Event  # imports torch where it is installed

        found = {}
        for events in sorted((run_dir / "tensorboard").iterdir()):
            data, at = events.read_bytes(), 0
            while at < len(data):
                size = int.from_bytes(data[at : at + 8], "little")
                event = Event.FromString(data[at + 12 : at + 12 + size])
                for value in event.summary.value:
                    found[value.tag, event.step] = value.simple_value
                at += 16 + size
        return found

    return read


@pytest.fixture
def model() -> Model:
    """A decoder with all the parts of the large one."""
    return tiny_model()


@pytest.fixture(scope="module")
def own_datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache of Hugging Face datasets, which lm-evaluation-harness reads rows with."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="module")
def write_tasks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[list[dict[str, Any]], dict[str, str]], Path]:
    """(rows, task -> what its YAML says of prompts and metrics) -> a folder of task files.

    The first five rows are the split "train", which examples are drawn from.
    """

    def write(rows: list[dict[str, Any]], tasks: dict[str, str]) -> Path:
        folder = tmp_path_factory.mktemp("tasks")
        files = {
            split: str(write_jsonl(folder / f"{split}.jsonl", own))
            for split, own in (("train", rows[:5]), ("test", rows[5:]))
        }
        for name, body in tasks.items():
            head = [
                f"task: {name}",
                "dataset_path: json",
                f"dataset_kwargs: {json.dumps({'data_files': files})}",
                "training_split: train",
                "test_split: test",
            ]
            (folder / f"{name}.yaml").write_text("\n".join(head) + body, "utf-8")
        return folder

    return write


def _random_row(source: str, documents: Iterator[int], rng: np.random.Generator, size: int) -> Row:
    """Returns a row of random documents of a source."""
    ids: list[int] = []
    spans: list[tuple[str, int, int]] = []
    while T + 1 - len(ids) >= 3 and len(spans) < 4:
        length = int(rng.integers(3, min(T + 1 - len(ids), 9) + 1))
        # Learnable: each document counts upwards from a random token.
        body = (rng.integers(3, size) + np.arange(length - 2)) % (size - 3) + 3
        ids += [BOS, *body.tolist(), EOS]
        spans.append((f"{source}/{next(documents)}", 0, length))
    return Row(ids, spans)


@pytest.fixture(scope="session")
def bake_at() -> Callable[..., Path]:
    """Returns a function that bakes a mixture below a folder, from numbers of records by source."""

    def write(
        parent: Path,
        records: dict[str, int] | None = None,
        mixtures: dict[str, dict[str, float]] | None = None,
        name: str = "baked data",  # with a space, as people's paths have
        vocab_size: int = VOCABULARY,
    ) -> Path:
        rng = np.random.default_rng(0)
        sources = {}
        for source, count in ({"web": 40, "code": 25} if records is None else records).items():
            numbers = itertools.count()
            sources[source] = [
                [_random_row(source, numbers, rng, vocab_size) for _ in part]
                for part in np.array_split(np.arange(count), 2 if count > 3 else 1)
            ]
        if mixtures is None:
            mixtures = {
                "stage1": {"web": 0.75, "code": 0.25},
                "stage2": {"web": 0.4, "code": 0.6},
            }
        return write_mixture(parent / name, sources, mixtures, vocab_size=vocab_size)

    return write


@pytest.fixture
def bake(bake_at: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """bake_at, under the test's own directory."""
    return partial(bake_at, tmp_path)


def _unchanged(folder: Path) -> Iterator[Path]:
    """Yields a folder that tests share; fails where one of them has changed it."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before, f"a test changed {folder}"


@pytest.fixture(scope="session")
def mixture(
    tmp_path_factory: pytest.TempPathFactory, bake_at: Callable[..., Path]
) -> Iterator[Path]:
    """A baked mixture that no test changes."""
    yield from _unchanged(bake_at(tmp_path_factory.mktemp("mixture")))


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, mixture: Path) -> Iterator[Path]:
    """The folder of a finished `tiny_training()` of `tiny_model()`, which no test changes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train.run(tiny_model(), tiny_training(), mixture, folder, one_device())
    yield from _unchanged(folder)


@pytest.fixture
def finished_run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of `whole_run`, to be changed or continued."""
    return shutil.copytree(whole_run, tmp_path / "run")

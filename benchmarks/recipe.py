"""Runs the stages of the recipe on shards in a folder, and measures CPU seconds of each.

`python -m benchmarks.curation --only recipe` prints them; benchmarks/projection.py uses them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.corpus import megabytes_of
from data_pipeline.cleaning.repeated_lines_stage import find_repeated_lines
from data_pipeline.cleaning.stage import clean
from data_pipeline.config import Baking, Decontamination, Reading, Recipe, Source
from data_pipeline.decontamination.index_files import load_index
from data_pipeline.decontamination.stage import decontaminate, protect
from data_pipeline.deduplication.stage import deduplicate
from data_pipeline.execution.local_engine import ExecutionEngine, LocalEngine
from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.runner import Runner
from data_pipeline.held_out.stage import draw, hold_out, make_items
from data_pipeline.mixture.stage import bake
from data_pipeline.reading.stage import read
from data_pipeline.storage.document import Document

T = TypeVar("T")
R = TypeVar("R")

SHARD_BYTES = 2 << 20
TOGETHER = ("clean", "deduplicate", "decontaminate")


class Metered(ExecutionEngine):
    """An engine that works in this process and sums CPU seconds by function."""

    workers = 1

    def __init__(self) -> None:
        """Starts with no time."""
        self.seconds: dict[str, float] = {}

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], **ignored: Any
    ) -> Iterator[tuple[T, R]]:
        """Yields (task, result) for each task, and adds its CPU seconds."""
        for task in tasks:
            begin = time.process_time()
            made = function(task)
            seconds = time.process_time() - begin
            self.seconds[function.__name__] = self.seconds.get(function.__name__, 0.0) + seconds
            yield task, made


@dataclass(slots=True)
class RunCost:
    """The cost of a run over some text. `seconds`: step -> stage function -> CPU seconds."""

    megabytes: float  # of text that came in
    documents: int
    baked_megabytes: float
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    wall: float = 0.0
    directories: list[Directory] = field(default_factory=list)

    def total(self, *steps: str) -> float:
        """Returns the CPU seconds of some steps."""
        return sum(sum(self.seconds[step].values()) for step in steps)


def write(documents: Sequence[Document], folder: Path) -> None:
    """Writes documents as .jsonl files of about SHARD_BYTES, all of one source."""
    folder.mkdir()
    number, size, lines = 0, 0, list[str]()
    for k, d in enumerate(documents):
        row = {"id": d.id, "text": d.text, "source": "corpus", "category": d.category}
        lines.append(json.dumps(row) + "\n")
        size += len(lines[-1])
        if size >= SHARD_BYTES or k == len(documents) - 1:
            (folder / f"input-{number:04}.jsonl").write_text("".join(lines))
            number, size, lines = number + 1, 0, []


def run(
    documents: Sequence[Document],
    benchmarks: str,
    folder: Path,
    engine: ExecutionEngine,
    part_bytes: int = 16 << 20,
) -> RunCost:
    """Reads, cleans, deduplicates, decontaminates and bakes with the default settings."""
    write(documents, folder / "input")
    recipe = Recipe(
        sources=[Source(path=str(folder / "input"))],
        reading=Reading(shard_bytes=SHARD_BYTES),
        decontamination=Decontamination(folder=benchmarks),
        baking=Baking(part_bytes=part_bytes),
    )
    runner = Runner(folder / "run", engine)
    measured = RunCost(megabytes_of(documents), len(documents), 0.0)

    def timed(step: str, function: Callable[[], T]) -> T:
        made = function()
        if isinstance(engine, Metered):
            own = measured.seconds.setdefault(step, {})
            for name, seconds in engine.seconds.items():
                own[name] = own.get(name, 0.0) + seconds
            engine.seconds.clear()
        return made

    begin = time.perf_counter()
    raw = timed("read", lambda: read(recipe, runner))
    cleaned = timed(
        "clean", lambda: clean(recipe, runner, raw, find_repeated_lines(recipe, runner, raw))
    )
    unique = timed("deduplicate", lambda: deduplicate(recipe, runner, cleaned))
    candidates = timed("hold out", lambda: draw(recipe, runner, unique))
    held_out = timed("hold out", lambda: hold_out(recipe, runner, candidates))
    items = timed("hold out", lambda: make_items(recipe, runner, candidates, held_out))
    protected = timed("index", lambda: protect(recipe, runner, held_out, items, candidates))
    if protected is not None:
        # Once in a worker, whatever it then looks through.
        files = protected.index.files()
        timed("load index", lambda: timed_in(engine, load_index, files))
    kept = timed(
        "decontaminate",
        lambda: decontaminate("decontaminate", recipe, runner, unique, held_out, protected),
    )
    timed("bake", lambda: bake("bake", recipe, runner, [kept], {}))
    measured.wall = time.perf_counter() - begin
    measured.baked_megabytes = sum(c.bytes_kept for c in kept.counts().values()) / 1e6
    measured.directories = runner.directories
    return measured


def timed_in(engine: ExecutionEngine, function: Callable[[T], R], values: Sequence[T]) -> None:
    """Runs a function on values if the engine measures."""
    if isinstance(engine, Metered):
        for _ in engine.run(function, values):
            pass


def measure(
    documents: Sequence[Document], benchmarks: str, folder: Path, repeats: int = 1
) -> RunCost:
    """Measures the recipe in this process, after a small run that loads libraries and models.

    The `seconds` of each function are the lowest of all runs.
    """
    (folder / "warm").mkdir()
    run(documents[:50], benchmarks, folder / "warm", Metered())
    for repeat in range(repeats):
        (folder / str(repeat)).mkdir()
        again = run(documents, benchmarks, folder / str(repeat), Metered())
        if not repeat:
            measured = again
        for step, functions in again.seconds.items():
            least = measured.seconds[step]
            for name, seconds in functions.items():
                least[name] = min(seconds, least[name])
    return measured


def deduplication(documents: Sequence[Document], repeats: int) -> float:
    """Returns the CPU seconds of the stages of deduplication on files, the lowest of all runs."""
    best = float("inf")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(documents, folder / "input")
            recipe = Recipe(sources=[Source(path=str(folder / "input"))])
            engine = Metered()
            runner = Runner(folder / "run", engine)
            raw = read(recipe, runner)
            engine.seconds.clear()
            deduplicate(recipe, runner, raw)
            best = min(best, sum(engine.seconds.values()))
    return best


def print_rates(documents: Sequence[Document], benchmarks: str, repeats: int) -> None:
    """Prints the rate and share of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(documents, benchmarks, Path(folder), repeats)
    everything = measured.total(*measured.seconds)
    print("\nThe recipe's own stages with their files, default settings, MB a CPU-second")
    for step, functions in measured.seconds.items():
        megabytes = measured.baked_megabytes if step == "bake" else measured.megabytes
        seconds = sum(functions.values())
        print(f"  {step:<20} {megabytes / seconds:9.2f} MB/s   {seconds / everything:6.1%}")
        for name, own in sorted(functions.items(), key=lambda entry: -entry[1]):
            if len(functions) > 1:
                print(f"      {name:<22} {megabytes / own:9.1f} MB/s {own / everything:6.1%}")
    together = measured.megabytes / measured.total(*TOGETHER)
    print(f"  {' + '.join(TOGETHER)}: {together:.2f} MB/s a core")


def _documents_of(documents: Sequence[Document], size: int) -> int:
    """Returns how many of the first documents have `size` bytes together."""
    sizes = accumulate(len(d.text.encode()) for d in documents)
    return sum(1 for _ in takewhile(lambda so_far: so_far < size, sizes))


def print_workers(documents: Sequence[Document], benchmarks: str, repeats: int) -> None:
    """Prints wall-clock seconds of the stages with one worker and with two, in turns."""
    print(f"\nThe same stages by LocalEngine, wall-clock in seconds, the best of {repeats} runs")
    walls: dict[int, Counter[str]] = {1: Counter(), 2: Counter()}
    for workers in (1, 2) * repeats:
        with tempfile.TemporaryDirectory() as name, LocalEngine(workers) as engine:
            folder = Path(name)
            for part in ("started", "measured"):
                (folder / part).mkdir()
            few = documents[: _documents_of(documents, 6 * SHARD_BYTES)]
            run(few, benchmarks, folder / "started", engine, part_bytes=SHARD_BYTES)
            made = run(documents, benchmarks, folder / "measured", engine, part_bytes=8 << 20)
            for directory in made.directories:
                seconds = json.loads((directory.path / "timing.json").read_text())["seconds"]
                stage = directory.path.name.rpartition("-")[0]
                walls[workers][stage] = min(seconds, walls[workers].get(stage, seconds))
    for stage, one in walls[1].most_common(8):
        print(f"  {stage:<24} {one:8.1f} {walls[2][stage]:8.1f} {one / walls[2][stage]:6.2f} x")
    one, two = walls[1].total(), walls[2].total()
    print(f"  {'all':<24} {one:8.1f} {two:8.1f} {one / two:6.2f} x")

"""Measures start-up and reading of a mixture of any claimed size, made of few real bytes.

    python -m benchmarks.scale                                    # 3e8 rows in 18,750 files
    python -m benchmarks.scale --rows 3e7 --files 1875 --open-files 1024
    python -m benchmarks.scale --processes 256                    # one process of 256

Each of --sources sources has one real file, of rows / files rows of --sequence tokens. All its
other files are hard links to it under names of their own, so that the mixture of the default size
takes about half a gigabyte. A new process then runs the code of training on it, under the limits of
--open-files and --hard-limit: it opens the mixture as process number --process of --processes,
schedules an epoch, and reads --steps batches of --batch rows. "first start" is without the time of
hashing, since to hash the links is to hash the claimed size; "start" is every start after it.

For each part it prints seconds, CPU seconds of all threads, bytes read (rchar of /proc/self/io,
also those that come from the page cache), and open files and resident memory at its end. Linux
only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import input_speed
from hare_jax.config import Stage, Training
from hare_jax.data import packed_dataset, verify


def make(folder: Path, sources: int, files: int, rows: int, sequence: int) -> Path:
    """Writes a mixture that claims `rows` rows in `files` files; each source has one real file."""
    input_speed.bake(folder, sources, max(1, rows // files), sequence, document=600)
    path = folder / "mixture.json"
    manifest = json.loads(path.read_text("utf-8"))
    for number, source in enumerate(manifest["sources"]):
        (real,) = source["files"]
        source["files"] = [
            _link(folder, real, copy) for copy in range(len(range(number, files, sources)))
        ]
        for key in ("documents", "tokens", "records"):
            source[key] *= len(source["files"])
    manifest["fingerprint"] = packed_dataset.fingerprint(manifest)
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def _link(folder: Path, real: dict[str, Any], copy: int) -> dict[str, Any]:
    """Returns the entry of the copy-th file of a source, whose two files are links."""
    entry = dict(real)
    for key in ("file", "spans"):
        entry[key] = real[key].replace("-00000.", f"-{copy:05d}.")
        if copy:
            os.link(folder / real[key], folder / entry[key])
    return entry


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Opens the mixture as training does, reads batches, and prints what each part took."""
    limit = options.open_files or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, options.hard_limit or hard))
    print(
        f"  {'':<22} {'s':>8} {'CPU s':>8} {'MB read':>9} {'open files':>10} {'MiB resident':>12}"
    )
    meter = Meter()
    meter.line("imports", since_start=True)
    share = (options.process, options.processes)
    with mock.patch.object(verify, "_check"):  # hashed before, but not recorded
        packed_dataset.PackedDataset(folder, folder / "verified", share)
    meter.line("first start, unhashed")
    dataset = packed_dataset.PackedDataset(folder, folder / "verified", share)
    tokens = sum(source.records for source in dataset.sources) * dataset.sequence_length
    stages = [Stage("scale", mixture="all", tokens=tokens)]
    order = packed_dataset.make_order(dataset, Training(stages=stages, batch_size=options.batch))
    packed_dataset.plan(dataset, order, max_epochs=100.0)
    meter.line("start")
    batches = packed_dataset.batches(dataset, order, first_step=0, rows=slice(0, options.batch))
    next(batches)
    meter.line("first batch")
    for _ in range(options.steps):
        next(batches)
    meter.line(f"{options.steps} steps")
    packed_dataset.trace(dataset, order, 0)
    meter.line("documents of a step")


class Meter:
    """What this process has used since the last line."""

    def __init__(self) -> None:
        """Starts to measure."""
        self.before = self._now()

    def line(self, name: str, *, since_start: bool = False) -> None:
        """Prints what was used since the last line, or since the process started."""
        now = self._now()
        used = now - (np.zeros(3) if since_start else self.before)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mebibytes = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        files = len(list(Path("/proc/self/fd").iterdir()))
        print(
            f"  {name:<22} {used[0]:8.2f} {used[1]:8.2f} {used[2] / 1e6:9,.1f} {files:10,} "
            f"{mebibytes:12,.0f}",
            flush=True,
        )
        self.before = self._now()

    def _now(self) -> np.ndarray:
        """Returns (seconds, CPU seconds, bytes read) since the process was started."""
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # after the machine was started
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - started
        counters = dict(x.split(": ") for x in Path("/proc/self/io").read_text().splitlines())
        return np.array([seconds, time.process_time(), float(counters["rchar"])])


def main() -> None:
    """Parses the options, makes the mixture and measures it in a new process."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=float, default=3e8)
    parser.add_argument("--files", type=int, default=18_750)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=2048, help="tokens a row")
    parser.add_argument("--batch", type=int, default=256, help="rows a step of this process")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--open-files", type=int, default=0, help="soft limit; 0: as it is")
    parser.add_argument("--hard-limit", type=int, default=0, help="of open files; 0: as it is")
    parser.add_argument("--mixture", default="", help="a folder that is kept, and used again")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.mixture), options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.mixture or Path(scratch, "baked"))
        if not (folder / "mixture.json").exists():
            make(folder, options.sources, options.files, int(options.rows), options.sequence)
        size = sum(file.stat().st_size for file in folder.glob("*.array_record"))
        print(
            f"{options.rows:,.0f} rows of {options.sequence} tokens in {options.files:,} files of "
            f"rows and as many of spans, {options.sources} sources, claims {size / 1e9:,.1f} GB; "
            f"mixture.json has {(folder / 'mixture.json').stat().st_size / 1e6:,.1f} MB; process "
            f"{options.process} of {options.processes}, {options.batch} rows a step",
            flush=True,
        )
        command = [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:]]
        subprocess.run([*command, "--measure", "--mixture", str(folder)], check=True)


if __name__ == "__main__":
    main()

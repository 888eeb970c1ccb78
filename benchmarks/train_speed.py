"""Measures tokens per second of the train step beside PyTorch: same model, batch and device.

    python -m benchmarks.train_speed                                    a small model, on a CPU
    python -m benchmarks.train_speed --config hare_1b --batch 32 --segments 8 --fp8      on a GPU

hare-jax runs the step of training (hare_jax/training/step.py) on synthetic tokens, one document per
row; with --segments N also N packed documents per row, with --fp8 also in 8 bits; --profile DIR
writes a trace. The peer is transformers' MistralForCausalLM with fused AdamW, scaled dot product
attention and torch.compile, under bfloat16 autocast on a GPU; on a CPU in float32, compiled and
not. It runs under --peer-python, which needs torch and transformers; if they are missing, or with
--ours, it is skipped.

Every program is a process of its own that compiles, warms up, and runs --steps steps --repeats
times; best and median are printed. On a CPU the programs take turns; on a GPU they run one after
another.

    tokens/s      of all devices; median: of the repeats
    TFLOP/s, MFU  6 x parameters of matrix products + 6 L T H K per token: causal attention,
                  recomputation not counted; MFU of the datasheet's dense bfloat16 peak
    tokens/CPU-s  on a CPU: tokens per CPU second of all cores, which other processes disturb less
    memory        peak of the device or of the process
    compile       seconds; of the peer, its first step
    ratio         to the peer's first row, or to the first row of hare-jax
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hare_jax.config import Matmul, Model, Remat, plain
from hare_jax.model.decoder import flops_per_token

ROOT = Path(__file__).parents[1]
SMALL = Model(  # 18.9 M parameters
    vocab_size=8192,
    num_layers=8,
    d_model=384,
    num_heads=6,
    num_kv_heads=2,
    head_dim=64,
    d_ff=1024,
    scan_layers=False,  # XLA on a CPU copies what a scanned layer keeps: 1.5 times the time
)


@dataclass(slots=True)
class Contestant:
    """A trainer in a process of its own, with requests and answers in lines of JSON."""

    name: str
    command: list[str]
    request: dict[str, Any]
    process: Any = None
    about: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)
    memory: int = 0

    def start(self) -> bool:
        """Waits until the process has compiled; returns False if it lacks a package."""
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        print(f"{self.name}: starting ...", flush=True)
        self.about = self._ask(self.request)
        if "missing" in self.about:
            print(f"{self.name}: left out, {self.command[0]} has no {self.about['missing']}")
            self.close()
        return "missing" not in self.about

    def run(self, steps: int) -> None:
        """Measures some steps."""
        self.runs.append(self._ask({"steps": steps}))

    def finish(self) -> None:
        """Asks for the memory and ends the process."""
        self.memory = self._ask({})["memory"]
        self.close()

    def close(self) -> None:
        """Kills the process if it still runs."""
        self.process.communicate()

    @property
    def best(self) -> dict[str, float]:
        """The repeat that took the least time."""
        return min(self.runs, key=lambda run: run["seconds"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the answer."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):  # whatever else libraries print
                return dict(json.loads(line))
        raise SystemExit(f"{self.name}: ended with status {self.process.wait()}, see above")


def contestants(options: argparse.Namespace, model: Model) -> list[Contestant]:
    """Returns the programs that the options select."""
    ours = [sys.executable, "-m", "benchmarks.jax_trainer"]
    peer = [options.peer_python, str(ROOT / "benchmarks" / "torch_trainer.py")]
    request = {
        "model": plain(model),
        "batch": options.batch,
        "accumulation": options.accumulation,
        "loss_chunks": options.loss_chunks,
        "sequence": options.sequence,
        "segments": 1,
        "profile": options.profile,
    }
    found = [Contestant("ours", ours, request)]
    unprofiled = request | {"profile": ""}
    if options.segments > 1:
        name = f"ours, {options.segments} documents a row"
        found.append(Contestant(name, ours, unprofiled | {"segments": options.segments}))
    if options.fp8:
        fp8 = request["model"] | {"matmul": Matmul.FP8.value}
        found.append(Contestant("ours, fp8", ours, unprofiled | {"model": fp8}))
    if not options.ours:
        found += [
            Contestant("peer, compiled", peer, request | {"compiled": True}),
            Contestant("peer, eager", peer, request | {"compiled": False}),
        ]
    return found


def compete(entered: Sequence[Contestant], steps: int, repeats: int) -> list[Contestant]:
    """Runs all programs and returns those that ran."""
    first, *others = entered
    first.start()
    if first.about["platform"] != "cpu":
        ran = [first, *others]
        for contestant in ran:
            if contestant is first or contestant.start():
                for _ in range(repeats):
                    contestant.run(steps)
                contestant.finish()
        return [contestant for contestant in ran if contestant.runs]
    ran = [first, *(contestant for contestant in others if contestant.start())]
    for repeat in range(repeats):
        print(f"round {repeat + 1} of {repeats}", flush=True)
        for contestant in ran:
            contestant.run(steps)
    for contestant in ran:
        contestant.finish()
    return ran


def table(ran: Sequence[Contestant], options: argparse.Namespace, model: Model) -> str:
    """Returns a Markdown table."""
    first = ran[0].about
    flops = flops_per_token(model, options.sequence)
    tokens = options.batch * options.sequence * options.steps
    peak = first["peak_flops"]
    peak_text = f"peak {peak / 1e12:.0f} TFLOP/s" if peak else "peak unknown: no MFU"
    lines = [
        f"{first['parameters']:,} parameters, {options.batch} rows of {options.sequence} tokens "
        f"a step, on {first['devices']} x {first['device']} ({peak_text})",
        f"{flops / 1e9:.4g} GFLOP a token: 6 x parameters of matrix products + 6 L T H K",
        f"best of {options.repeats} times {options.steps} steps",
        f"  {'':<28} {'dtype':<9} {'tokens/s':>10} {'median':>9} {'TFLOP/s':>8} {'MFU':>7} "
        f"{'tokens/CPU-s':>13} {'GiB':>6} {'compile':>8} {'ratio':>6}",
    ]
    peer = next((c for c in ran if c.name.startswith("peer")), ran[0])
    for contestant in ran:
        best = contestant.best
        speed = tokens / best["seconds"]
        median = tokens / statistics.median(run["seconds"] for run in contestant.runs)
        rate = speed * flops / first["devices"]
        on_cpu = contestant.about["platform"] == "cpu"
        cpu = max(tokens / run["cpu_seconds"] for run in contestant.runs) if on_cpu else 0
        lines.append(
            f"  {contestant.name:<28} {contestant.about['dtype']:<9} {speed:10,.0f} "
            f"{median:9,.0f} "
            f"{rate / 1e12:8.3g} {f'{rate / peak:.1%}' if peak else '-':>7} "
            f"{f'{cpu:,.0f}' if on_cpu else '-':>13} {contestant.memory / (1 << 30):6.2f} "
            f"{contestant.about['compile_seconds']:8.1f} "
            f"{peer.best['seconds'] / best['seconds']:6.2f}"
        )
    for contestant in ran:
        parts = contestant.about.get("parts", 1)
        if parts > 1:
            lines.append(f"  {contestant.name}: in {parts} parts, since the batch did not fit")
    versions = {k: v for c in ran for k, v in c.about["versions"].items()}
    lines.append("  " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return "\n".join(lines)


def model_called(name: str) -> Model:
    """Returns the model of a config page."""
    if name == "small":
        return SMALL
    config = importlib.import_module(f"configs.{name}").get_config("none is read")
    model: Model = config.model
    return model


def main() -> None:
    """Parses the options, runs and prints the table."""
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", choices=("small", "hare_250m", "hare_1b"), default="small")
    parser.add_argument("--batch", type=int, default=8, help="rows a step, over all devices")
    parser.add_argument("--sequence", type=int, default=0, help="tokens a row: 512 small, 2048")
    parser.add_argument("--accumulation", type=int, default=1, help="ours: parts of a batch")
    parser.add_argument("--loss-chunks", type=int, default=8, help="ours: parts of a row's logits")
    parser.add_argument("--layers", type=int, default=0, help="of the model, other than its own")
    parser.add_argument("--remat", choices=[r.value for r in Remat], help="ours: what is kept")
    parser.add_argument("--unrolled", action="store_true", help="ours: layers not scanned")
    parser.add_argument("--segments", type=int, default=1, help="ours too with N documents a row")
    parser.add_argument("--fp8", action="store_true", help="ours too in 8 bits")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", default="", help="a folder for a trace of ours")
    parser.add_argument("--ours", action="store_true", help="without the peer")
    parser.add_argument("--peer-python", default=sys.executable, help="has torch, transformers")
    options = parser.parse_args()
    options.sequence = options.sequence or (512 if options.config == "small" else 2048)
    model = model_called(options.config)
    model.num_layers = options.layers or model.num_layers
    model.remat = Remat(options.remat) if options.remat else model.remat
    model.scan_layers = model.scan_layers and not options.unrolled
    ran = compete(contestants(options, model), options.steps, options.repeats)
    print(table(ran, options, model))


if __name__ == "__main__":
    main()

"""Runs of one training, each in a process of its own, killed (SIGKILL) at places of the product.

    python killed_runs.py SETTINGS DIRECTORY

For each place a run DIRECTORY/PLACE that is killed there; then one that nobody kills, and each of
the others again, to its end. Prints as JSON the status of each process that was killed, and the
checkpoints that it left. What the steps saw and gave is written to RUN/seen.jsonl. Everything is
imported once: the processes are forks.
"""

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hare_jax.data import packed_dataset
from hare_jax.data.order import Order
from hare_jax.evaluation.held_out import evaluate
from hare_jax.training import train
from tests.hare_jax.function_tokenizer import FunctionTokenizer

COMPILE_STEP = train.compile_step
EVALUATED = ("whole", "during_evaluation")  # the other runs end with training


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def during_a_step(run: "Run") -> None:
    """Step 7 is on its way: nothing has been asked of it yet."""
    run.after_dispatch = lambda step, values: die() if step == 6 else None


def just_across_a_stage_switch(run: "Run") -> None:
    """Step 6, the first of stage two, is done."""

    def first_of_stage_two(step: int, values: Any) -> None:
        if step == 5:
            jax.block_until_ready(values)
            die()

    run.after_dispatch = first_of_stage_two


def during_an_asynchronous_save(run: "Run") -> None:
    """Orbax's thread has written arrays of step 8, and is about to merge their files."""
    finalize = ocp.StandardCheckpointHandler.finalize

    def dying(self: Any, directory: Any) -> None:
        if f"/8.{'orbax-checkpoint-tmp'}" in str(directory):
            die()
        finalize(self, directory)

    ocp.StandardCheckpointHandler.finalize = dying


def between_save_and_commit(run: "Run") -> None:
    """All of step 8 is on disk, under another name than its own."""
    rename = os.rename

    def dying(source: Any, target: Any, **named: Any) -> None:
        if Path(target) == run.directory / "checkpoints" / "8":
            die()
        rename(source, target, **named)

    os.rename = dying


def during_prefetch(run: "Run") -> None:
    """A thread reads the batch of step 9 ahead, while the loop does earlier steps."""
    picks, reading = Order.records_of_step, packed_dataset.PackedDataset.batch

    def picked(self: Order, step: int) -> Any:
        return [*picks(self, step), step]

    def dying(self: Any, chosen: Any) -> Any:
        if chosen[-1] == 8:
            run.wait_for_a_checkpoint()
            die()
        return reading(self, chosen[:-1])

    packed_dataset._Steps.__getitem__ = lambda self, step: dying(
        self.dataset, picked(self.order, step)
    )


def during_evaluation(run: "Run") -> None:
    """Training is over; the third text of the items is being scored."""
    encode, calls = run.encode, iter(range(1000))

    def dying(text: str) -> list[int]:
        if next(calls) == 3:
            die()
        return encode(text)

    run.encode = dying


PLACES = (
    during_a_step,
    during_an_asynchronous_save,
    between_save_and_commit,
    during_prefetch,
    during_evaluation,
    just_across_a_stage_switch,
)


class Run:
    """Trains and evaluates, as main.py does; `kill_at` has changed the place where it dies."""

    def __init__(self, settings: dict[str, Any], directory: Path, kill_at: Callable | None):
        self.settings, self.directory = settings, directory
        self.doomed = kill_at is not None
        self.after_dispatch: Callable[[int, Any], None] = lambda step, values: None
        if kill_at:
            kill_at(self)

    def wait_for_a_checkpoint(self) -> None:
        """Until that of step 4 is committed: to start from nothing again would prove less."""
        while not (self.directory / "checkpoints" / "4").exists():
            time.sleep(0.005)

    def encode(self, text: str) -> list[int]:
        return [3 + ord(character) % 61 for character in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(chr(ord("a") + token % 26) for token in tokens)

    def go(self) -> None:
        self.directory.mkdir(exist_ok=True)
        train.compile_step = self.recorded(COMPILE_STEP)
        s = self.settings
        train.run(s["model"], s["training"], s["mixture"], self.directory)
        if self.directory.name not in EVALUATED:
            return
        evaluate.run(
            s["model"],
            s["training"],
            s["evaluation"],
            self.directory,
            evaluate.HeldOutData(
                mixture=s["mixture"],
                held_out=s["held_out"],
                items=s["items"],
                prompts=[{"source": "web", "text": "the hare"}],
                tokenizer=FunctionTokenizer(self.encode, self.decode),
            ),
        )

    def recorded(self, compile_step: Callable) -> Callable:
        def recording(*arguments: Any) -> Any:
            step_fn = compile_step(*arguments)
            seen = (self.directory / "seen.jsonl").open("a")

            def run_step(state: Any, batch: Any) -> Any:
                step = int(state.step)
                if self.doomed and step > 4:
                    self.wait_for_a_checkpoint()
                rows = {key: batch[key].tolist() for key in ("record_id_B", "source_id_B")}
                state, values = step_fn(state, batch)
                self.after_dispatch(step, values)
                loss = float(values["loss"]).hex()
                seen.write(json.dumps({"step": step, "loss": loss, **rows}) + "\n")
                seen.flush()
                return state, values

            return run_step

        return recording


def fork(settings: dict[str, Any], directory: Path, kill_at: Callable) -> int:
    process = os.fork()
    if process:
        return process
    try:
        Run(settings, directory, kill_at).go()
        status = 0
    except BaseException as error:
        print(f"{directory.name}: {error!r}", file=sys.stderr, flush=True)
        status = 1
    os._exit(status)


def main(settings_path: str, directory: Path) -> None:
    settings = pickle.loads(Path(settings_path).read_bytes())
    jax.config.update("jax_compilation_cache_dir", settings["compiled"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    told: dict[str, Any] = {}

    def kill(*places: Callable) -> None:
        processes = {p.__name__: fork(settings, directory / p.__name__, p) for p in places}
        for name, process in processes.items():
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            told[name] = [status, sorted(p.name for p in (directory / name).glob("checkpoints/*"))]

    kill(during_evaluation)  # compiles everything, for the others to find
    kill(*(place for place in PLACES if place is not during_evaluation))
    for name in ("whole", *told):
        Run(settings, directory / name, None).go()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

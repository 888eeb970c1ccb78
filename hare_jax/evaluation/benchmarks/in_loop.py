"""Benchmarks during training: scores the current parameters for training/in_loop_evaluation.py.

Engine, tasks and scores are those of configs/evaluate.py. Tasks are read once, and programs are
compiled at the first evaluation; nothing else is kept between two evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import InLoopConfig, Model
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.benchmarks import evaluate, lm_harness
from hare_jax.evaluation.benchmarks.lm_harness import LoadedBenchmark
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import SentencePieceTokenizer
from hare_jax.model import decoder
from hare_jax.runtime import distributed

# Of a benchmark's row in scores-ID.json.
KEPT_FIELDS = ("score", "bits_per_byte", "gold_log_likelihood", "failed")


class Benchmarks:
    """Scores parameters on benchmarks.

    All processes of a run call it, and process 0 does the work.
    """

    def __init__(self, model: Model, config: InLoopConfig, baked: PackedDataset):
        """Loads the benchmarks.

        Args:
          model: the architecture of the run.
          config: which benchmarks, and how they are run.
          baked: the training data, with its tokenizer.

        Raises:
          FileNotFoundError: the data of a benchmark is missing.
          ValueError: settings, names or data do not fit together.
        """
        if not config.benchmarks:
            raise ValueError(
                "training.in_loop.benchmarks: got none, expected names as configs/evaluate.py "
                "lists them"
            )
        max_length = config.max_length or baked.sequence_length
        self._options = replace(config, max_length=max_length)
        self._model = replace(model, compute_dtype=config.compute_dtype)
        self._loaded: list[LoadedBenchmark] = []

        def load() -> None:
            lm_harness.check(config.benchmarks, config, max_length)
            self._tokenizer = SentencePieceTokenizer(baked.directory / baked.tokenizer["file"])
            self._loaded = lm_harness.load(config.benchmarks, self._options)

        distributed.on_process_zero(load)

    def __call__(self, params: decoder.Params, doing: Callable[[str], None]) -> dict[str, Any]:
        """Returns a row of benchmarks.jsonl without its step; the same in all processes.

        A benchmark that fails has no score, and its error is in "failed".

        Args:
          params: the current parameters, over all devices of the run; they are not changed.
          doing: called with a text about the progress.
        """
        with jax.set_mesh(None):  # that of training; the engine has its own
            local = _replicate_locally(decoder.in_compute_dtype(params, self._model))
            return distributed.on_process_zero(lambda: self._score(local, doing))

    def _score(self, params: decoder.Params, doing: Callable[[str], None]) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        failed: dict[str, str] = {}
        devices = jax.tree.leaves(params)[0].sharding.mesh.local_devices
        engine = InferenceEngine(
            self._model,
            params,
            max_length=self._options.max_length,
            batch_tokens=self._options.batch_tokens,
            devices=devices,
        )
        try:
            for loaded in self._loaded:
                try:
                    rows[loaded.name] = self._row(engine, loaded, doing)
                except Exception as error:  # whatever it is, training goes on without this score
                    failed[loaded.name] = f"{type(error).__name__}: {error}"
                    print(f"benchmarks: {loaded.name} has no score: {failed[loaded.name]}")
        finally:
            # lm-eval's objects refer to each other in circles, and may keep the engine for a while.
            del engine.weights
        row = {
            "protocol": self._options.protocol.value,
            "lm_eval": lm_harness.version(),
            "limit": self._options.limit,
            "benchmarks": rows,
        }
        return {**row, "failed": failed} if failed else row

    def _row(
        self, engine: InferenceEngine, loaded: LoadedBenchmark, doing: Callable[[str], None]
    ) -> dict[str, Any]:
        finished, total = 0, lm_harness.num_requests(loaded, self._options)

        def advance(count: int) -> None:
            nonlocal finished
            finished += count
            doing(f"{loaded.name}, {finished:,} of {total:,} requests")

        advance(0)
        lm = lm_harness.model(
            engine, self._tokenizer, self._options.protocol, ResponseCache(), advance
        )
        row = evaluate.benchmark_row(lm, loaded, self._options)
        return {name: row[name] for name in KEPT_FIELDS if name in row}


def _replicate_locally(params: decoder.Params) -> decoder.Params:
    """Returns the parameters with a full copy on each device of this process.

    All processes call it together, since none has all of them. In a run of one process nothing is
    copied here.
    """
    if not distributed.is_multi_process():
        return params  # the engine moves them
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    local_mesh = Mesh(mesh.local_devices, ("rows",))

    def local(array: jax.Array) -> jax.Array:
        copies = [shard.data for shard in array.addressable_shards]
        sharding = NamedSharding(local_mesh, P())
        return jax.make_array_from_single_device_arrays(array.shape, sharding, copies)

    return jax.tree.map(local, jax.device_put(params, NamedSharding(mesh, P())))

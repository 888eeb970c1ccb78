"""Benchmarks inside a training run: what training/in_loop_evaluation.py asks of the parameters of the moment.

Engine, tasks and scores are those of configs/evaluate.py. Tasks are read once, programs compiled at
the first look; between two looks nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hare_jax.config import InLoopConfig, Model
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.benchmarks import evaluate, lm_harness
from hare_jax.evaluation.benchmarks.evaluate import OpenTokenizer
from hare_jax.evaluation.benchmarks.lm_harness import Loaded
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import SentencePieceTokenizer
from hare_jax.model import decoder
from hare_jax.runtime import distributed

KEPT = ("score", "bits_per_byte", "gold_log_likelihood")  # of a benchmark's row in scores-ID.json


class Benchmarks:
    """Scores parameters; called by all processes of a run, of which the first does the work.

    Raises ValueError or FileNotFoundError for settings, names or data that do not fit.
    """

    def __init__(
        self,
        open_tokenizer: OpenTokenizer,
        model: Model,
        config: InLoopConfig,
        baked: PackedDataset,
    ):
        if not config.benchmarks:
            raise ValueError(
                "training.in_loop.benchmarks: got none, expected names as configs/evaluate.py "
                "lists them"
            )
        self._config = config
        self._model = replace(model, compute_dtype=config.compute_dtype)
        self._max_length = config.max_length or baked.sequence_length
        self._loaded: list[Loaded] = []
        tokenizer = baked.directory / baked.tokenizer["file"]

        def load() -> None:
            self._texts = SentencePieceTokenizer(open_tokenizer(tokenizer))
            self._loaded = lm_harness.load(
                config.benchmarks,
                config.protocol,
                data=Path(config.data).absolute() if config.data else None,
                task_folders=[Path(folder).absolute() for folder in config.task_folders],
                shots=None if config.shots < 0 else config.shots,
                max_length=self._max_length,
            )

        distributed.on_process_zero(load)

    def __call__(self, params: decoder.Params, doing: Callable[[str], None]) -> dict[str, Any]:
        """What a row of benchmarks.jsonl says beside the step; the same in all processes.

        `params`: as training has them, over all its devices; they stay as they are. `doing` is told
        how far this is.
        """
        with jax.set_mesh(None):  # training's; the engine has one of its own
            whole = _whole_here(decoder.in_compute_dtype(params, self._model))
            return distributed.on_process_zero(lambda: self._score(whole, doing))

    def _score(self, params: decoder.Params, doing: Callable[[str], None]) -> dict[str, Any]:
        devices = jax.tree.leaves(params)[0].sharding.mesh.local_devices
        engine = InferenceEngine(
            self._model,
            params,
            max_length=self._max_length,
            batch_tokens=self._config.batch_tokens,
            devices=devices,
        )
        try:
            rows = {loaded.name: self._row(engine, loaded, doing) for loaded in self._loaded}
        finally:
            del engine.weights  # lm-eval's objects know each other, and may live for a while
        return {
            "protocol": self._config.protocol.value,
            "lm_eval": lm_harness.version(),
            "limit": self._config.limit,
            "benchmarks": rows,
        }

    def _row(
        self, engine: InferenceEngine, loaded: Loaded, doing: Callable[[str], None]
    ) -> dict[str, Any]:
        c, finished = self._config, 0
        total = lm_harness.num_requests(loaded, c.protocol, c.limit)

        def advance(count: int) -> None:
            nonlocal finished
            finished += count
            doing(f"{loaded.name}, {finished:,} of {total:,} requests")

        advance(0)
        lm = lm_harness.model(engine, self._texts, c.protocol, ResponseCache(), advance)
        row = evaluate.benchmark_row(lm, loaded, c.protocol, c.limit)
        return {name: row[name] for name in KEPT}


def _whole_here(params: decoder.Params) -> decoder.Params:
    """The parameters whole on each device of this process; those of a single device are not copied.

    All processes call it, since none has all of them.
    """
    if not distributed.is_multi_process():
        return params  # the engine moves them
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    here = Mesh(mesh.local_devices, ("rows",))

    def local(array: jax.Array) -> jax.Array:
        parts = [shard.data for shard in array.addressable_shards]
        sharding = NamedSharding(here, P())
        return jax.make_array_from_single_device_arrays(array.shape, sharding, parts)

    return jax.tree.map(local, jax.device_put(params, NamedSharding(mesh, P())))

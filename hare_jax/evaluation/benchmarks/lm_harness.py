"""The one door to lm-evaluation-harness (extra `eval`): its tasks, prompts, filters and metrics.

Tasks are loaded from its own files, the model behind them is an `Engine`. Nothing of it is imported
before it is asked for; torch and transformers never are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks import protocols
from hare_jax.evaluation.benchmarks.registry import BENCHMARKS, BenchmarkTask
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache, key_of
from hare_jax.inference.batch_decoding import Sampling
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Tokenizer

SEEDS = {"random": 0, "numpy": 1234, "fewshot": 1234}  # as lm-eval's command line has them
NEW_TOKENS = 256  # of a completion, unless the task says otherwise


@dataclass(slots=True)
class Loaded:
    """A benchmark's tasks, ready to be asked. `groups`: lm-eval's, by name."""

    name: str
    benchmark: BenchmarkTask
    tasks: dict[str, Any]
    groups: dict[str, Any]


def version() -> str:
    """Raises ValueError where lm-evaluation-harness is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError("lm-evaluation-harness is not installed: pip install -e .[eval]") from None


# ---- The model


def model(
    engine: InferenceEngine,
    texts: Tokenizer,
    protocol: Protocol,
    responses: ResponseCache,
    advance: Callable[[int], None] = lambda finished: None,
) -> Any:
    """An lm_eval.api.model.TemplateLM around `engine`.

    `advance` is told of finished requests, those found in `responses` included.
    """
    lm = _model_class()()
    lm.engine, lm.texts, lm.responses, lm.advance = engine, texts, responses, advance
    lm.adds_bos = protocols.adds_bos(protocol, texts.adds_bos)
    lm.prefix = protocols.prefix_id(protocol, texts.bos_id, texts.eos_id)
    lm.encoded_context = functools.lru_cache(maxsize=16)(lm.tok_encode)
    return lm


@functools.cache
def _model_class() -> type:
    from lm_eval.api.model import TemplateLM
    from lm_eval.models import utils
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class EngineLM(TemplateLM):
        engine: InferenceEngine
        texts: Tokenizer
        responses: ResponseCache
        advance: Callable[[int], None]
        adds_bos: bool
        prefix: int
        encoded_context: Callable[[str], list[int]]

        @property
        def eot_token_id(self) -> int:
            return self.texts.eos_id

        @property
        def prefix_token_id(self) -> int:
            return self.prefix

        @property
        def tokenizer_name(self) -> str:
            return self.texts.sha256

        def tok_encode(
            self, string: str, add_special_tokens: bool | None = None, **_: Any
        ) -> list[int]:
            ids, bos_id = self.texts.encode(string), self.texts.bos_id
            if bos_id is None:
                return ids
            bos = self.texts.special(bos_id)
            if add_special_tokens is None and string.startswith(bos):
                return [bos_id, *self.texts.encode(string[len(bos) :])]
            adds = self.adds_bos if add_special_tokens is None else add_special_tokens
            return [bos_id, *ids] if adds else ids

        def loglikelihood(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[tuple[float, bool]]:
            return super().loglikelihood(requests, disable_tqdm=True)

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            # As the base class has it; a context is encoded once for all that follows it.
            kept = context.rstrip()
            context_ids = self.encoded_context(kept)
            whole = self.tok_encode(kept + context[len(kept) :] + continuation)
            return context_ids, whole[len(context_ids) :]

        def _loglikelihood_tokens(
            self,
            requests: Sequence[tuple[Any, list[int], list[int]]],
            disable_tqdm: bool = False,
            **_: Any,
        ) -> list[tuple[float, bool]]:
            keys = [key_of("score", context, targets) for _, context, targets in requests]
            new = [i for i, key in enumerate(keys) if self.responses.get(key) is None]
            self.advance(len(requests) - len(new))

            def keep(scores: dict[int, Score]) -> None:
                answers = {keys[new[i]]: [s.log_likelihood, s.is_greedy] for i, s in scores.items()}
                self.responses.add(answers)
                self.advance(len(scores))

            asked = [ScoreRequest(requests[i][1], requests[i][2]) for i in new]
            self.engine.scores(asked, keep)
            answers = [self.responses.get(key) for key in keys]
            return [(log_likelihood, is_greedy) for log_likelihood, is_greedy in answers]

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[float]:
            windows: list[tuple[None, list[int], list[int]]] = []
            owners: list[int] = []
            for number, request in enumerate(requests):
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.engine.max_length,
                    context_len=1,
                ):
                    windows.append((None, *make_disjoint_window(window)))
                    owners.append(number)
            totals = [0.0] * len(requests)
            for owner, (log_likelihood, _) in zip(
                owners, self._loglikelihood_tokens(windows), strict=True
            ):
                totals[owner] += log_likelihood
            return totals

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            answers: list[str] = [""] * len(requests)
            by_kind: dict[str, list[int]] = {}
            for number, request in enumerate(requests):
                by_kind.setdefault(repr(sorted(request.args[1].items())), []).append(number)
            for kind, numbers in by_kind.items():
                contexts = [requests[n].args[0] for n in numbers]
                wanted = utils.normalize_gen_kwargs(requests[numbers[0]].args[1], NEW_TOKENS)
                found = self._generate(kind, contexts, dict(wanted))
                for number, text in zip(numbers, found, strict=True):
                    answers[number] = text
            return answers

        def _generate(self, kind: str, contexts: list[str], wanted: dict[str, Any]) -> list[str]:
            eos_id = self.texts.eos_id
            until = utils.handle_stop_sequences(wanted["until"], self.texts.special(eos_id))
            ids = [self.tok_encode(context) for context in contexts]
            keys = [key_of(f"generate {kind} {n}", context) for n, context in enumerate(ids)]
            new = [i for i, key in enumerate(keys) if self.responses.get(key) is None]
            self.advance(len(ids) - len(new))

            def text_of(tokens: list[int]) -> str:
                tokens = tokens[: tokens.index(eos_id)] if eos_id in tokens else tokens
                return self.texts.decode(tokens)

            def stopped(tokens: list[int]) -> bool:
                text = text_of(tokens)
                return eos_id in tokens or any(stop and stop in text for stop in until)

            def keep(number: int, tokens: list[int]) -> None:
                text = utils.postprocess_generated_text(text_of(tokens), until, None)
                self.responses.add({keys[new[number]]: text})
                self.advance(1)

            self.engine.generate(
                [ids[i] for i in new],
                max_new_tokens=wanted["max_gen_toks"],
                stopped=stopped,
                sampling=Sampling(
                    temperature=float(wanted["temperature"]) if wanted.get("do_sample") else 0.0,
                    top_k=int(wanted.get("top_k") or 0),
                    top_p=float(wanted.get("top_p") or 1.0),
                ),
                done=keep,
            )
            return [self.responses.get(key) for key in keys]

    return EngineLM


# ---- The tasks


def load(
    names: Sequence[str],
    protocol: Protocol,
    *,
    data: Path | None,
    task_folders: Sequence[Path] = (),
    shots: int | None = None,
    max_length: int | None = None,
) -> list[Loaded]:
    """The benchmarks with their documents, as `protocol` has them.

    `data`: a folder that benchmark_folder.run wrote; then nothing is asked of the network.
    `shots`: examples before each question; None: the benchmark's own number. `max_length`: tokens
    the model reads.

    Raises ValueError for an unknown name and for completions that `max_length` leaves no room for,
    FileNotFoundError for data that is not in the folder.
    """
    version()
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress is shown once, for all requests
    import datasets
    from lm_eval.api import task as lm_eval_task

    # tqdm reads the variable when it is imported, which may have happened before.
    lm_eval_task.tqdm = functools.partial(lm_eval_task.tqdm, disable=True)
    datasets.disable_progress_bars()
    _keep_templates()
    chosen = {name: BENCHMARKS.get(name) or _other(name) for name in names}
    with _reading(data):
        manager = _manager(list(chosen.values()), task_folders)
        loaded = []
        for name, benchmark in chosen.items():
            found = _load(manager, benchmark, data)
            number = benchmark.shots if shots is None or benchmark.shots == 0 else shots
            for task in found["tasks"].values():
                _prepare(task, benchmark, number, protocol)
                if max_length is not None:
                    _check_room(task, benchmark, max_length)
            loaded.append(Loaded(name, benchmark, found["tasks"], found["groups"]))
    return loaded


@functools.cache
def _keep_templates() -> None:
    """lm-eval compiles the template of a question anew for each item: half of the time it takes to
    put a benchmark into words."""
    from lm_eval import utils

    utils.env.from_string = functools.lru_cache(utils.env.from_string)


def _other(name: str) -> BenchmarkTask:
    """Any task of lm-eval: its own examples, its first score."""
    return BenchmarkTask(name, name, "", -1, "", "")


def _manager(benchmarks: Sequence[BenchmarkTask], task_folders: Sequence[Path]) -> Any:
    """Knows the asked tasks; the whole index of lm-eval takes seconds, and is a last resort."""
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    folders = [str(root / b.folder) for b in benchmarks if b.folder]
    folders += [str(folder) for folder in task_folders]
    manager = tasks.TaskManager(include_defaults=False, include_path=folders)
    if any(benchmark.task not in manager.all_tasks for benchmark in benchmarks):
        manager = tasks.TaskManager(include_path=[str(folder) for folder in task_folders] or None)
    return manager


def _load(manager: Any, benchmark: BenchmarkTask, data: Path | None) -> dict[str, Any]:
    if benchmark.task not in manager.all_tasks:
        raise ValueError(
            f"unknown benchmark {benchmark.task!r}: expected one of {', '.join(BENCHMARKS)}, a task"
            " of lm-evaluation-harness, or one whose file is in task_folders"
        )
    if data is not None and benchmark.dataset and not (data / benchmark.dataset).is_dir():
        raise FileNotFoundError(
            f"{data / benchmark.dataset}: no such folder; lay out {benchmark.title} with "
            "configs/benchmarks.py, or leave data empty to read the hub"
        )
    try:
        return manager.load([benchmark.task])
    except (ConnectionError, OSError, ValueError) as error:
        raise ValueError(f"the data of {benchmark.title} cannot be read: {error}") from error


@contextlib.contextmanager
def _reading(data: Path | None) -> Iterator[None]:
    """Where the hub's names are folders, and the network is not asked."""
    if data is None:
        yield
        return
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; lay it out with configs/benchmarks.py")
    # Both are read when the libraries are imported, which may have happened before.
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    cache = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    # Its own is by relative paths: one folder's items would be served for another's.
    datasets.config.HF_DATASETS_CACHE = Path(cache) / f"laid-out-{_stamp(data)}"
    try:
        with contextlib.chdir(data):
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before
        datasets.config.HF_DATASETS_CACHE = cache


def _stamp(folder: Path) -> str:
    """Another one for another folder, and for one that was made anew."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    return hashlib.sha256(json.dumps([str(folder.resolve()), state]).encode()).hexdigest()[:12]


def _prepare(task: Any, benchmark: BenchmarkTask, shots: int, protocol: Protocol) -> None:
    if shots >= 0:
        task.set_config(key="num_fewshot", value=shots)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    if protocol is Protocol.LEADERBOARD_V1 and benchmark.task == "gsm8k":
        _as_leaderboard_gsm8k(task)


def _check_room(task: Any, benchmark: BenchmarkTask, max_length: int) -> None:
    """Told before the first request, not after hours."""
    if task.OUTPUT_TYPE != "generate_until":
        return
    new = int((task.config.generation_kwargs or {}).get("max_gen_toks", NEW_TOKENS))
    if new >= max_length:
        raise ValueError(
            f"{benchmark.title} asks for completions of up to {new} tokens, the model reads "
            f"{max_length} at most; give max_length={4 * new}, or leave this benchmark out"
        )


def _as_leaderboard_gsm8k(task: Any) -> None:
    from lm_eval.api.metrics import mean
    from lm_eval.filters import build_filter_ensemble

    until = {"until": protocols.GSM8K_STOPS, "do_sample": False, "temperature": 0.0}
    task.set_config(key="generation_kwargs", value=until)
    task.config.process_results = protocols.gsm8k_results
    task._filters = [build_filter_ensemble("none", [("take_first", None)])]
    task._aggregation_list, task._higher_is_better = {"acc": mean}, {"acc": True}


def _as_leaderboard_examples(task: Any, documents: Sequence[int]) -> None:
    """Hands the examples that the leaderboard drew to `documents`, in their order."""
    shots = task.get_config("num_fewshot")
    if not shots or task.fewshot_cfg.sampler == "first_n":
        return
    same = not task.has_training_docs()
    pool = list(task.eval_docs if same else task.training_docs())
    drawn = protocols.drawn_examples(len(task.eval_docs), len(pool), shots, same=same)
    task.sampler = protocols.DrawnSampler(pool, [drawn[document] for document in documents])


def documents(task: Any, protocol: Protocol, limit: int) -> list[int]:
    """Which documents of a task are asked, in rising order; `limit=0`: all.

    `current` takes the first ones, the leaderboard the first of those it has shuffled.
    """
    number = len(task.eval_docs)
    order = list(range(number))
    if protocol is Protocol.LEADERBOARD_V1:
        random.Random(42).shuffle(order)
    return sorted(order[: limit or number])


# ---- The run


def num_requests(loaded: Loaded, protocol: Protocol, limit: int) -> int:
    """About how many requests a benchmark makes: for a progress bar."""
    total = 0
    for task in loaded.tasks.values():
        asked = len(documents(task, protocol, limit))
        choices = 1
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = len(task.doc_to_choice(task.eval_docs[0]))
        total += asked * (2 if task.OUTPUT_TYPE == "generate_until" else choices)
    return total


def evaluate(lm: Any, loaded: Loaded, protocol: Protocol, limit: int = 0) -> dict[str, Any]:
    """lm-eval's results: {"results": {task or group: {"acc,none": ...}}, "samples": {...}, ...}.

    Where a task generates, each sample also gets "gold_response": the log-likelihood of its target.
    """
    from lm_eval import evaluator

    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    samples: dict[str, list[int]] = {}
    for name, task in loaded.tasks.items():
        samples[name] = documents(task, protocol, limit)
        task.set_fewshot_seed(seed=SEEDS["fewshot"])  # asked again, the examples are the same
        if protocol is Protocol.LEADERBOARD_V1:
            _as_leaderboard_examples(task, samples[name])
    results = evaluator.evaluate(
        lm=lm,
        task_dict={"tasks": loaded.tasks, "groups": loaded.groups},
        samples=samples,
        bootstrap_iters=0,
        log_samples=True,
    )
    for name, task in loaded.tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            _score_targets(lm, task, results["samples"][name])
    return results


def _score_targets(lm: Any, task: Any, samples: Sequence[dict[str, Any]]) -> None:
    delimiter = task.config.target_delimiter

    def target(sample: dict[str, Any]) -> str:
        value = sample["target"]
        return delimiter + str(value[0] if isinstance(value, list) else value)

    pairs = [(sample["arguments"][0][0], target(sample)) for sample in samples]
    once = list(dict.fromkeys(pairs))  # an item has a sample for each filter
    encoded = [(pair, *lm._encode_pair(*pair)) for pair in once]
    answers = dict(zip(once, lm._loglikelihood_tokens(encoded), strict=True))
    for sample, pair in zip(samples, pairs, strict=True):
        sample["gold_response"] = [pair[1], answers[pair][0]]


def gold(task: Any, sample: dict[str, Any]) -> tuple[str, float] | None:
    """The right answer of a sample as it was scored, and its log-likelihood; None where a task has
    no single one."""
    if "gold_response" in sample:
        text, log_likelihood = sample["gold_response"]
        return text, log_likelihood
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return sample["arguments"][0][0], sample["resps"][0][0]
    if task.OUTPUT_TYPE == "loglikelihood":
        return sample["arguments"][0][1], sample["resps"][0][0][0]
    index = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    index = index[0] if isinstance(index, list) else index
    if isinstance(index, str):
        choices = task.doc_to_choice(sample["doc"])
        if index not in choices:
            return None
        index = choices.index(index)
    return sample["arguments"][index][1], sample["resps"][index][0][0]

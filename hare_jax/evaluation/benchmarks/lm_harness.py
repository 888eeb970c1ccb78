"""The tasks of lm-evaluation-harness (extra `eval`): prompts, few-shot examples, filters, metrics.

Tasks are loaded from its own files; the model side is engine_lm.py. lm_eval is imported when a
function of this module needs it; torch and transformers never are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import random
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hare_jax.config import BenchmarkOptions, Protocol
from hare_jax.evaluation.benchmarks import protocols
from hare_jax.evaluation.benchmarks.registry import BENCHMARKS, BenchmarkTask
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import Tokenizer

SEEDS = {"random": 0, "numpy": 1234, "fewshot": 1234}  # defaults of lm-eval's command line
HUB_TIMEOUT = 5.0  # seconds
# What a task's file gets in place of its own fields, so that it reads no examples.
NO_EXAMPLES: dict[str, Any] = {"fewshot_split": None, "fewshot_config": {"samples": []}}


@dataclass(slots=True)
class LoadedBenchmark:
    """A benchmark with its documents.

    Attributes:
      name: as it was requested.
      benchmark: its entry in the registry.
      tasks: name -> task of lm-eval.
      groups: name -> group of lm-eval.
    """

    name: str
    benchmark: BenchmarkTask
    tasks: dict[str, Any]
    groups: dict[str, Any]


def version() -> str:
    """Returns the version of lm-eval; raises ValueError if it is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            "lm-evaluation-harness is not installed: pip install -e '.[eval]'"
        ) from None


def model(
    engine: InferenceEngine,
    tokenizer: Tokenizer,
    protocol: Protocol,
    responses: ResponseCache,
    advance: Callable[[int], None] = lambda finished: None,
) -> Any:
    """Returns an `EngineLM`, see there for the arguments."""
    from hare_jax.evaluation.benchmarks.engine_lm import EngineLM

    return EngineLM(engine, tokenizer, protocol, responses, advance)


# ---- Checks before anything is loaded


def check(names: Sequence[str], options: BenchmarkOptions, max_length: int) -> None:
    """Checks in seconds, before a checkpoint is read, what would otherwise fail much later.

    Args:
      names: of the benchmarks.
      options: where their data is.
      max_length: tokens that the model reads.

    Raises:
      FileNotFoundError: the folder of the data, or of one of the benchmarks, is missing.
      ValueError: lm-eval is not installed; the hub cannot be reached; or completions would be
        longer than the model reads.
    """
    version()
    benchmarks = [_lookup(name) for name in names]
    if options.data:
        _check_folder(Path(options.data).absolute(), benchmarks)
    elif any(benchmark.dataset for benchmark in benchmarks) and not hub_is_reachable():
        for benchmark in benchmarks:
            if benchmark.dataset and not _is_cached(benchmark.dataset):
                raise ValueError(_no_hub(benchmark))
    for name, benchmark in zip(names, benchmarks, strict=True):
        if benchmark.max_new_tokens >= max_length:
            others = ",".join(other for other in names if other != name)
            raise ValueError(_no_room(benchmark, benchmark.max_new_tokens, max_length, others))


@functools.cache
def hub_is_reachable() -> bool:
    """Returns whether the Hugging Face hub answers; asks once per process, and not if offline."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True  # it answers, if only with a refusal
    except OSError:
        return False
    return True


def _lookup(name: str) -> BenchmarkTask:
    """Returns the benchmark `name`, or a task of lm-eval with its own examples and first score."""
    return BENCHMARKS.get(name) or BenchmarkTask(name, name, "", -1, "", "")


def _no_room(benchmark: BenchmarkTask, new_tokens: int, max_length: int, others: str) -> str:
    without = f" (configs/evaluate.py:{others})" if others else ""
    return (
        f"{benchmark.title} generates completions of up to {new_tokens} tokens, but the model "
        f"reads at most {max_length} (max_length, else the length of its training rows). Give "
        f"--config.max_length={4 * new_tokens} (in training: "
        f"--config.training.in_loop.max_length), or leave {benchmark.task} out{without}"
    )


def _no_hub(benchmark: BenchmarkTask) -> str:
    return (
        f"the data of {benchmark.title} is not on this machine, and the Hugging Face hub does not "
        "answer: write benchmark files with configs/benchmarks.py, and name their folder by "
        "--config.data=DIR (in training: --config.training.in_loop.data=DIR)"
    )


def _check_folder(data: Path, benchmarks: Sequence[BenchmarkTask]) -> None:
    if not data.is_dir():
        raise FileNotFoundError(
            f"{data}: no such folder; write it with configs/benchmarks.py, or leave --config.data "
            "empty to read from the Hugging Face hub"
        )
    for benchmark in benchmarks:
        if benchmark.dataset and not (data / benchmark.dataset).is_dir():
            raise FileNotFoundError(
                f"{data / benchmark.dataset}: no such folder; write {benchmark.title} with "
                "configs/benchmarks.py, or leave --config.data empty to read from the Hugging Face "
                "hub"
            )


def _is_cached(dataset: str) -> bool:
    """Returns whether the `datasets` library has a copy of a dataset of the hub."""
    import datasets

    return (Path(datasets.config.HF_DATASETS_CACHE) / dataset.replace("/", "___")).is_dir()


# ---- The tasks


def load(names: Sequence[str], options: BenchmarkOptions) -> list[LoadedBenchmark]:
    """Loads benchmarks with their documents.

    Args:
      names: of the registry, or tasks of lm-eval.
      options: protocol, data, further task files, examples, and the tokens that the model reads
        (`max_length`; 0: not checked).

    Raises:
      FileNotFoundError: the data is not in its folder.
      ValueError: a name is unknown, data cannot be read or lacks a split, or `max_length` leaves no
        room for a completion.
    """
    version()
    os.environ.setdefault("TQDM_DISABLE", "1")  # one progress bar shows all requests
    import datasets
    from lm_eval.api import task as lm_eval_task

    # tqdm reads the variable when it is imported, which may have happened before.
    lm_eval_task.tqdm = functools.partial(lm_eval_task.tqdm, disable=True)
    datasets.disable_progress_bars()
    _cache_templates()
    benchmarks = {name: _lookup(name) for name in names}
    data = Path(options.data).absolute() if options.data else None
    if data is not None:
        _check_folder(data, list(benchmarks.values()))
    loaded = []
    with _dataset_source(data):
        manager = _task_manager(list(benchmarks.values()), options.task_folders)
        for name, benchmark in benchmarks.items():
            use_own = options.shots < 0 or benchmark.shots == 0
            shots = benchmark.shots if use_own else options.shots
            found = _load(manager, benchmark, shots, data)
            for task in found["tasks"].values():
                _prepare(task, benchmark, shots, options.protocol)
                if options.max_length:
                    _check_room(task, benchmark, options.max_length)
            loaded.append(LoadedBenchmark(name, benchmark, found["tasks"], found["groups"]))
    return loaded


@functools.cache
def _cache_templates() -> None:
    """Makes lm-eval compile each question template once.

    It compiles the template again for each item, which takes half of the time of writing prompts.
    """
    from lm_eval import utils

    utils.env.from_string = functools.lru_cache(utils.env.from_string)


def _task_manager(benchmarks: Sequence[BenchmarkTask], task_folders: Sequence[str]) -> Any:
    """Returns a TaskManager that knows the tasks of `benchmarks`.

    The index of all of lm-eval's tasks takes seconds, and is built only if a task is in no folder.
    """
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    own_folders = [str(Path(folder).absolute()) for folder in task_folders]
    folders = [str(root / b.folder) for b in benchmarks if b.folder] + own_folders
    manager = tasks.TaskManager(include_defaults=False, include_path=folders)
    if any(benchmark.task not in manager.all_tasks for benchmark in benchmarks):
        manager = tasks.TaskManager(include_path=own_folders or None)
    return manager


def _load(manager: Any, benchmark: BenchmarkTask, shots: int, data: Path | None) -> dict[str, Any]:
    """Loads the tasks of a benchmark; returns {"tasks": {...}, "groups": {...}}.

    Without examples (`shots` is 0) their split need not exist: the task is told to read none.
    """
    if benchmark.task not in manager.all_tasks:
        raise ValueError(
            f"unknown benchmark {benchmark.task!r}: expected one of {', '.join(BENCHMARKS)}, a task"
            " of lm-evaluation-harness, or one whose file is in task_folders"
        )
    index = manager.task_index
    overrides = NO_EXAMPLES if shots == 0 else None
    try:
        built = manager._factory.build(index[benchmark.task], overrides=overrides, registry=index)
        return manager.load(built if isinstance(built, list) else [built])
    except KeyError as error:
        raise ValueError(
            f"the data of {benchmark.title} has no split or field {error}, which its task in "
            "lm-evaluation-harness reads: put the file of the split into the source, and write the "
            "folder again with configs/benchmarks.py; if only the examples are missing, give "
            "--config.shots=0"
        ) from error
    except (ConnectionError, OSError, IndexError, TypeError, ValueError) as error:
        # An IndexError or TypeError: the first item has no text or no choice where lm-eval looks.
        if data is None and not hub_is_reachable():
            raise ValueError(_no_hub(benchmark)) from error
        raise ValueError(f"the data of {benchmark.title} cannot be read: {error}") from error


@contextlib.contextmanager
def _dataset_source(data: Path | None) -> Iterator[None]:
    """Decides where the `datasets` library looks for datasets of the hub.

    With a folder `data`, their names are paths below it, and the network is not used. Without a
    folder they come from the hub, or, if that does not answer, from the library's cache.
    """
    import datasets
    import huggingface_hub

    if data is None and hub_is_reachable():
        yield
        return
    # The libraries read the variables when they are imported, which may have happened before; and
    # requests to a hub that does not answer are repeated for a minute.
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    cache = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    if data is not None:
        # The library's cache is keyed by relative paths, which are the same in another folder.
        datasets.config.HF_DATASETS_CACHE = Path(cache) / f"laid-out-{_stamp(data)}"
    try:
        with contextlib.chdir(data or Path()):
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before
        datasets.config.HF_DATASETS_CACHE = cache


def _stamp(folder: Path) -> str:
    """Returns a hash of a folder's path and of the sizes and times of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    return hashlib.sha256(json.dumps([str(folder.resolve()), state]).encode()).hexdigest()[:12]


def _prepare(task: Any, benchmark: BenchmarkTask, shots: int, protocol: Protocol) -> None:
    """Sets the number of examples (-1: the task's own), and what the protocol changes."""
    if shots >= 0:
        task.set_config(key="num_fewshot", value=shots)
    elif task.get_config("num_fewshot") is None:
        task.set_config(key="num_fewshot", value=0)
    if protocol is Protocol.LEADERBOARD_V1 and benchmark.task == "gsm8k":
        _use_leaderboard_gsm8k(task)


def _check_room(task: Any, benchmark: BenchmarkTask, max_length: int) -> None:
    """Raises ValueError if completions of a task would be longer than the model reads."""
    if task.OUTPUT_TYPE != "generate_until":
        return
    from hare_jax.evaluation.benchmarks.engine_lm import DEFAULT_NEW_TOKENS

    kwargs = task.config.generation_kwargs or {}
    new_tokens = int(kwargs.get("max_gen_toks", DEFAULT_NEW_TOKENS))
    if new_tokens >= max_length:
        raise ValueError(_no_room(benchmark, new_tokens, max_length, ""))


def _use_leaderboard_gsm8k(task: Any) -> None:
    """Gives a GSM8K task the stop strings and the metric of the leaderboard."""
    from lm_eval.api.metrics import mean
    from lm_eval.filters import build_filter_ensemble

    until = {"until": protocols.GSM8K_STOPS, "do_sample": False, "temperature": 0.0}
    task.set_config(key="generation_kwargs", value=until)
    task.config.process_results = protocols.gsm8k_results
    task._filters = [build_filter_ensemble("none", [("take_first", None)])]
    task._aggregation_list, task._higher_is_better = {"acc": mean}, {"acc": True}


def _use_leaderboard_examples(task: Any, chosen: Sequence[int]) -> None:
    """Gives a task the examples that the leaderboard drew for the documents `chosen`, in order."""
    shots = task.get_config("num_fewshot")
    if not shots or task.fewshot_cfg.sampler == "first_n":
        return
    same = not task.has_training_docs()
    pool = list(task.eval_docs if same else task.training_docs())
    drawn = protocols.drawn_examples(len(task.eval_docs), len(pool), shots, same=same)
    task.sampler = protocols.DrawnSampler(pool, [drawn[document] for document in chosen])


def documents(task: Any, options: BenchmarkOptions) -> list[int]:
    """Returns the indices of the documents of a task that are evaluated, in rising order.

    With a limit, `current` takes the first ones, the leaderboard the first after its shuffle.
    """
    count = len(task.eval_docs)
    order = list(range(count))
    if options.protocol is Protocol.LEADERBOARD_V1:
        random.Random(42).shuffle(order)
    return sorted(order[: options.limit or count])


# ---- The evaluation


def num_requests(loaded: LoadedBenchmark, options: BenchmarkOptions) -> int:
    """Returns about how many requests a benchmark makes, for a progress bar."""
    total = 0
    for task in loaded.tasks.values():
        num_documents = len(documents(task, options))
        requests_per_document = 1
        if task.OUTPUT_TYPE == "multiple_choice":
            requests_per_document = len(task.doc_to_choice(task.eval_docs[0]))
        elif task.OUTPUT_TYPE == "generate_until":
            requests_per_document = 2  # the completion, and the log-likelihood of the target
        total += num_documents * requests_per_document
    return total


def evaluate(lm: Any, loaded: LoadedBenchmark, options: BenchmarkOptions) -> dict[str, Any]:
    """Evaluates a benchmark.

    Args:
      lm: what `model` returns.
      loaded: the benchmark.
      options: protocol and limit.

    Returns:
      lm-eval's results: {"results": {task or group: {"acc,none": ...}}, "samples": {...}, ...}.
      Samples of tasks that generate also have "gold_response": the log-likelihood of their target.
      "failed" has the items that cannot be scored, {task: {item: reason}}; they are in neither of
      the others.
    """
    from lm_eval import evaluator

    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    chosen: dict[str, list[int]] = {}
    for name, task in loaded.tasks.items():
        chosen[name] = documents(task, options)
        task.set_fewshot_seed(seed=SEEDS["fewshot"])  # the same examples in each evaluation
        if options.protocol is Protocol.LEADERBOARD_V1:
            _use_leaderboard_examples(task, chosen[name])
    with contextlib.ExitStack() as stack:
        failed = {
            name: stack.enter_context(_items_may_fail(task)) for name, task in loaded.tasks.items()
        }
        results = evaluator.evaluate(
            lm=lm,
            task_dict={"tasks": loaded.tasks, "groups": loaded.groups},
            samples=chosen,
            bootstrap_iters=0,
            log_samples=True,
        )
    results["failed"] = {}
    for name, samples in results["samples"].items():
        reasons = iter(failed.get(name, ()))
        ids = [sample["doc_id"] for sample in samples if not sample["metrics"]]
        lost = results["failed"][name] = {i: next(reasons, "it has no metric") for i in ids}
        results["samples"][name] = [s for s in samples if s["doc_id"] not in lost]
    for name, task in loaded.tasks.items():
        if task.OUTPUT_TYPE == "generate_until":
            _score_targets(lm, task, results["samples"][name])
    return results


@contextlib.contextmanager
def _items_may_fail(task: Any) -> Iterator[list[str]]:
    """Yields a list that gets why each failing item of a task has no scores, in their order."""
    reasons: list[str] = []
    process_results = task.process_results

    def process(doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        if any(_is_nan(result) for result in results):
            reasons.append("a text to score has no token, or more than the model reads")
            return {}
        try:
            return process_results(doc, results)
        except Exception as error:  # of a metric, which may be anyone's code
            reasons.append(f"{type(error).__name__}: {error}")
            return {}

    task.process_results = process
    try:
        yield reasons
    finally:
        task.process_results = process_results


def _is_nan(result: Any) -> bool:
    value = result[0] if isinstance(result, list | tuple) and result else result
    return isinstance(value, float) and math.isnan(value)


def _score_targets(lm: Any, task: Any, samples: Sequence[dict[str, Any]]) -> None:
    """Adds "gold_response" to the samples of a task that generates, if they have a target."""
    delimiter = task.config.target_delimiter

    def target(sample: dict[str, Any]) -> str | None:
        value = sample["target"]
        if isinstance(value, list):
            return delimiter + str(value[0]) if value else None
        return delimiter + str(value)

    pairs = [(sample["arguments"][0][0], target(sample)) for sample in samples]
    # An item has one sample per filter.
    distinct = list(dict.fromkeys((c, text) for c, text in pairs if text is not None))
    encoded = [(pair, *lm._encode_pair(*pair)) for pair in distinct]
    scores = dict(zip(distinct, lm._loglikelihood_tokens(encoded), strict=True))
    for sample, (context, text) in zip(samples, pairs, strict=True):
        if text is not None and not math.isnan(scores[context, text][0]):
            sample["gold_response"] = [text, scores[context, text][0]]


def gold(task: Any, sample: dict[str, Any]) -> tuple[str, float] | None:
    """Returns the right answer of a sample, as it was scored, and its log-likelihood in nats.

    Returns None if the task has no single right answer, or the item none that can be scored.
    """
    if "gold_response" in sample:
        text, log_likelihood = sample["gold_response"]
        return text, log_likelihood
    if task.OUTPUT_TYPE == "generate_until":
        return None
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return sample["arguments"][0][0], sample["resps"][0][0]
    if task.OUTPUT_TYPE == "loglikelihood":
        return sample["arguments"][0][1], sample["resps"][0][0][0]
    index = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    if isinstance(index, list):
        if not index:
            return None
        index = index[0]
    if isinstance(index, str):
        choices = task.doc_to_choice(sample["doc"])
        if index not in choices:
            return None
        index = choices.index(index)
    if not 0 <= index < len(sample["arguments"]):
        return None
    return sample["arguments"][index][1], sample["resps"][index][0][0]

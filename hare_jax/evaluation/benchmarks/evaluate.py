"""The job of configs/evaluate.py: scores of a checkpoint on benchmarks.

Files written to the workdir; ID changes with whatever changes a score:

    scores-ID.json        see `run`
    scores-ID.md          the same as tables, beside the paper's
    scores-ID.svg         the same as a chart
    samples-ID/TASK.jsonl one line per item: its document, log-likelihoods or completion, its scores
    responses-ID.jsonl    the model's responses; an evaluation that was killed continues from it

The fingerprint of responses covers the weights, the tokenizer and the code. That of scores also
covers the protocol, the benchmarks and the version of lm-evaluation-harness.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import (
    BenchmarkEvaluation,
    BenchmarkOptions,
    HuggingFaceImport,
    Model,
    plain,
)
from hare_jax.evaluation.benchmarks import (
    clean_subset,
    compare,
    decontamination_status,
    lm_harness,
    offline_data,
    statistics,
)
from hare_jax.evaluation.benchmarks.clean_subset import ContaminatedItems
from hare_jax.evaluation.benchmarks.decontamination_status import DecontaminationStatus
from hare_jax.evaluation.benchmarks.lm_harness import LoadedBenchmark
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.evaluation.benchmarks.tables import clean_unknown
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_json, digest_of_params
from hare_jax.evaluation.resumable import read_finished, read_json_or_none
from hare_jax.files import write_json
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import SETTINGS_FILES, Tokenizer, open_fitting
from hare_jax.model import decoder
from hare_jax.progress import progress
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import Run, open_run

SCHEMA = 3
DEFAULT_MAX_LENGTH = 2048  # tokens, for a checkpoint that names no sequence length


class NoScoresError(ValueError):
    """Not one item of a benchmark can be scored."""


@dataclass(slots=True)
class Subject:
    """The model that is evaluated.

    Attributes:
      name: the checkpoint as the config names it.
      model: its architecture.
      params: its parameters.
      step: of the checkpoint.
      tokenizer: of the model.
      mixture: "mixture" of the run's config.json, see training/run_dir.py.
    """

    name: str
    model: Model
    params: decoder.Params
    step: int
    tokenizer: Tokenizer
    mixture: Mapping[str, Any]


def run(config: BenchmarkEvaluation, workdir: Path) -> dict[str, Path]:
    """Evaluates `config.checkpoint`; returns what was written.

    The JSON: {"schema", "fingerprint", "inputs": {"protocol", "lm_eval", "weights", "tokenizer",
    "mixture", ...}, "average": of the six, as the leaderboard computes it, "benchmarks": {name:
    {"title", "score": {"value", "stderr", "interval", "items"}, "bits_per_byte",
    "gold_log_likelihood", "metrics": {task: {metric: score}}, "shots", "clean", "decontamination",
    "data"}}}. For "clean" see clean_subset.of_benchmark, for "decontamination" see
    decontamination_status.status_by_benchmark.

    Raises:
      FileNotFoundError: checkpoint, tokenizer or data are missing.
      ValueError: checkpoint, benchmarks and settings do not fit together.
    """
    if not config.benchmarks:
        raise ValueError("benchmarks: got none, expected names as configs/evaluate.py lists them")
    lm_harness.version()
    source = _open_checkpoint(config.checkpoint, workdir)
    max_length = config.max_length or source.mixture.get("sequence_length") or DEFAULT_MAX_LENGTH
    lm_harness.check(config.benchmarks, config, max_length)
    options = dataclasses.replace(config, max_length=max_length)
    subject = _load_subject(source, config)

    # ---------------------------------------------------------------- what decides the scores
    mixture = subject.mixture.get("directory")
    status = decontamination_status.read_status(Path(mixture) if mixture else None)
    layout = offline_data.read_layout(Path(config.data).absolute() if config.data else None)
    response_inputs = _response_inputs(subject, max_length)
    inputs = _inputs(options, subject, status, layout) | response_inputs
    fingerprint = digest_of_json(inputs)
    path = workdir / f"scores-{fingerprint[:12]}.json"
    known = read_finished(path, fingerprint)
    if known is not None:
        print(f"evaluation: served from cache, {path}", flush=True)
        return {"scores": path, **compare.write([known], path)}

    # ---------------------------------------------------------------- the work, by benchmark
    responses = ResponseCache(workdir / f"responses-{digest_of_json(response_inputs)[:12]}.jsonl")
    if responses.num_loaded:
        print(f"evaluation: {responses.num_loaded:,} responses are cached", flush=True)
    loaded = lm_harness.load(config.benchmarks, options)
    items = clean_subset.load_contaminated_items(status, layout)
    samples = workdir / f"samples-{fingerprint[:12]}"
    rows, failed = _evaluate(options, subject, loaded, responses, items, samples)
    names = {one.name: one.benchmark.decontaminated_as for one in loaded}
    states = decontamination_status.status_by_benchmark(status, names)
    for name, row in rows.items():
        row["decontamination"] = states[name]
        row["data"] = layout.get(name, {"dataset": "hub"})

    # ---------------------------------------------------------------- results
    result = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "average": statistics.six_average({name: row["score"] for name, row in rows.items()}),
        "benchmarks": rows,
    }
    if failed:
        result["failed"] = failed
    write_json(path, result)
    return {"scores": path, **compare.write([result], path)}


def open_subject(config: BenchmarkEvaluation, workdir: Path) -> Subject:
    """Loads a checkpoint of this project, or a Hugging Face one, which is imported first.

    An import is kept in `workdir`. Raises FileNotFoundError or ValueError if it cannot be read.
    """
    return _load_subject(_open_checkpoint(config.checkpoint, workdir), config)


def _open_checkpoint(checkpoint_path: str, workdir: Path) -> Run:
    folder = Path(checkpoint_path).absolute()
    if checkpoint_path and _is_hugging_face(folder):
        folder = _import(folder, workdir)
    return open_run(folder if checkpoint_path else "")


def _load_subject(source: Run, config: BenchmarkEvaluation) -> Subject:
    model = dataclasses.replace(
        source.model, compute_dtype=config.compute_dtype, matmul=Model().matmul
    )
    tokenizer = open_fitting(source.directory, model.vocab_size)
    params, step = checkpoint.restore_params(source.checkpoints, model, step=source.step)
    return Subject(config.checkpoint, model, params, step, tokenizer, source.mixture)


def _is_hugging_face(folder: Path) -> bool:
    config = read_json_or_none(folder / "config.json")
    return config is not None and "model_type" in config


def _import(folder: Path, workdir: Path) -> Path:
    """Imports a Hugging Face checkpoint into `workdir`, if it is not there; returns its folder."""
    from hare_jax.interop import import_hf

    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"]
    deciding = ("tokenizer.json", "tokenizer.model", *SETTINGS_FILES)
    files += [folder / name for name in deciding if (folder / name).is_file()]
    stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    out = workdir / f"imported-{digest_of_json([str(folder), stamps])[:12]}"
    if not out.is_dir():
        import_hf.run(HuggingFaceImport(str(folder), str(out)), workdir)
    return out


def _response_inputs(subject: Subject, max_length: int) -> dict[str, Any]:
    """Returns all that decides the response to a request."""
    return {
        "weights": digest_of_params(subject.params),
        "tokenizer": subject.tokenizer.sha256,
        "model": plain(subject.model),
        "max_length": max_length,
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }


def _inputs(
    options: BenchmarkEvaluation,
    subject: Subject,
    status: DecontaminationStatus | None,
    layout: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns all else that decides the scores, or that their reader must know."""
    return {
        "checkpoint": subject.name,
        "step": subject.step,
        "protocol": options.protocol.value,
        "lm_eval": lm_harness.version(),
        "benchmarks": list(options.benchmarks),
        "shots": options.shots,
        "limit": options.limit,
        "mixture": subject.mixture.get("fingerprint"),
        "checked_by": None if status is None else [stage.name for stage in status.stages],
        "data": digest_of_json(layout) if options.data else "hub",
    }


def _evaluate(
    options: BenchmarkOptions,
    subject: Subject,
    loaded: Sequence[LoadedBenchmark],
    responses: ResponseCache,
    items: ContaminatedItems,
    samples: Path,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Evaluates the benchmarks one after another.

    Args:
      options: how benchmarks are run.
      subject: the model.
      loaded: the benchmarks.
      responses: of the model.
      items: which items are contaminated.
      samples: the folder for one file per task with one line per item.

    Returns:
      (name -> row of the results, name -> why a benchmark has none)
    """
    engine = InferenceEngine(
        subject.model,
        subject.params,
        max_length=options.max_length,
        batch_tokens=options.batch_tokens,
    )
    rows, failed = {}, {}
    for benchmark in loaded:
        total = lm_harness.num_requests(benchmark, options)
        with progress(f"{benchmark.benchmark.title:<13}", total, "requests") as advance:
            lm = lm_harness.model(engine, subject.tokenizer, options.protocol, responses, advance)
            try:
                row = benchmark_row(lm, benchmark, options, samples=samples, items=items)
            except NoScoresError as error:
                failed[benchmark.name] = str(error)
                continue
        rows[benchmark.name] = row
        print(f"  {_line(row)}", flush=True)
    for line in clean_unknown(list(rows.values())):
        print(f"  {line}", flush=True)
    for name, reason in failed.items():
        print(f"  {name}: no score: {reason}", flush=True)
    if not rows:
        raise NoScoresError(f"no benchmark has a score: {failed}")
    return rows, failed


def benchmark_row(
    lm: Any,
    loaded: LoadedBenchmark,
    options: BenchmarkOptions,
    *,
    samples: Path | None = None,
    items: ContaminatedItems | None = None,
) -> dict[str, Any]:
    """Evaluates a benchmark; returns its row of the results.

    Args:
      lm: what `lm_harness.model` returns.
      loaded: the benchmark.
      options: protocol and limit.
      samples: a folder for one file per task with one line per item, or None.
      items: which items are contaminated; None: the row has no "clean".
    """
    evaluated = lm_harness.evaluate(lm, loaded, options)
    metrics, golds = {}, []
    for name, task in loaded.tasks.items():
        of_task = evaluated["samples"][name]
        if not of_task:
            continue
        golds_of_task = [lm_harness.gold(task, sample) for sample in of_task]
        golds += _one_per_item(of_task, golds_of_task)
        metrics[name] = _metrics(of_task, evaluated["results"][name])
        if samples is not None:
            _write_samples(samples / f"{name}.jsonl", task, of_task, golds_of_task)
    failed = evaluated["failed"]
    num_failed = sum(map(len, failed.values()))
    if not metrics:
        raise NoScoresError(
            f"none of the {num_failed} items can be scored: {_first_reason(failed)}"
        )
    metric = _main_metric(loaded, metrics)
    scores = [by_name[metric] for by_name in metrics.values()]
    by_items = statistics.weighs_by_items(options.protocol, loaded.benchmark.task)
    first = next(iter(loaded.tasks.values()))
    row = {
        "title": loaded.benchmark.title,
        "metric": metric,
        "score": scores[0] if len(scores) == 1 else statistics.combine(scores, by_items=by_items),
        "bits_per_byte": statistics.bits_per_byte(golds) if golds else None,
        "gold_log_likelihood": statistics.estimate([g for _, g in golds]) if golds else None,
        "shots": first.get_config("num_fewshot"),
        "metrics": metrics,
    }
    if num_failed:
        row["failed"] = {"items": num_failed, "first": _first_reason(failed)}
    if items is not None:
        row["clean"] = clean_subset.of_benchmark(
            items,
            loaded.benchmark.decontaminated_as,
            metric,
            evaluated["samples"],
            by_items=by_items,
        )
    return row


def _first_reason(failed: Mapping[str, Mapping[int, str]]) -> str:
    """Returns a description of the first item that cannot be scored."""
    return next(
        f"{task}, item {item}: {reason}"
        for task, of_task in failed.items()
        for item, reason in of_task.items()
    )


def _main_metric(loaded: LoadedBenchmark, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the benchmark's metric, or the one that the protocol has instead, or the first."""
    of_first_task = next(iter(metrics.values()))
    metric = loaded.benchmark.metric
    for name in (metric, f"{metric},none"):
        if name in of_first_task:
            return name
    return next(iter(of_first_task))


def _metrics(
    samples: Sequence[Mapping[str, Any]], aggregated: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns "METRIC,FILTER" -> score.

    Metrics that are not means of numbers are those that lm-eval has `aggregated`, without errors.
    """
    by_name: dict[str, list[Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            by_name.setdefault(f"{metric},{sample['filter']}", []).append(sample[metric])
    scores = {}
    for name, values in by_name.items():
        value = aggregated.get(name)
        if all(isinstance(v, int | float) or hasattr(v, "item") for v in values):
            scores[name] = statistics.estimate([float(v) for v in values])
            if value is None or abs(scores[name]["value"] - float(value)) < 1e-9:
                continue
        if isinstance(value, int | float):
            no_interval = {"stderr": None, "interval": [None, None]}
            scores[name] = {"value": float(value), **no_interval, "items": len(values)}
    return scores


def _one_per_item(
    samples: Sequence[Mapping[str, Any]], golds: Sequence[tuple[str, float] | None]
) -> list[tuple[str, float]]:
    """Returns the right answers that exist; of an item, which has a sample per filter, only one."""
    first_filter = samples[0]["filter"]
    return [
        gold
        for sample, gold in zip(samples, golds, strict=True)
        if gold is not None and sample["filter"] == first_filter
    ]


def _write_samples(
    path: Path,
    task: Any,
    samples: Sequence[dict[str, Any]],
    golds: Sequence[tuple[str, float] | None],
) -> None:
    """Writes one line per sample; `golds` are their right answers, from `lm_harness.gold`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generates = task.OUTPUT_TYPE == "generate_until"
    with path.open("w", encoding="utf-8") as file:
        for sample, gold in zip(samples, golds, strict=True):
            line = {
                "id": sample["doc_id"],
                "filter": sample["filter"],
                "doc": sample["doc"],
                "target": sample["target"],
                "prompt_sha256": sample["prompt_hash"],
                "answers": [response[0] for response in sample["resps"]],
                **({"extracted": sample["filtered_resps"]} if generates else {}),
                "gold_log_likelihood": gold[1] if gold else None,
                "gold_bytes": len(gold[0].encode()) if gold else None,
                **{metric: sample[metric] for metric in sample["metrics"]},
            }
            file.write(json.dumps(line, ensure_ascii=False, default=_to_json) + "\n")


def _line(row: Mapping[str, Any]) -> str:
    """Returns the console line of a benchmark."""
    bits = row["bits_per_byte"]
    text = f"{row['title']}: {row['metric']} {_number(row['score'])}"
    if bits is not None:
        text += f", {bits['value']:.3f} bits per byte of the right answer"
    if "failed" in row:
        failed = row["failed"]
        text += f"; left out {failed['items']:,} items that cannot be scored ({failed['first']})"
    return text + _clean_text(row["clean"])


def _clean_text(split: Mapping[str, Any]) -> str:
    """Returns the end of the console line: the contaminated items, and the score of the others."""
    if split["state"] == "unknown":
        return ""
    contaminated = split["contaminated"]["items"] if split["contaminated"] else 0
    text = f"; {contaminated:,} of {split['all']['items']:,} items contaminated"
    if contaminated and split["clean"]:
        text += f", clean items {_number(split['clean'])}"
    return text


def _number(score: Mapping[str, Any]) -> str:
    error = "" if score["stderr"] is None else f" ± {score['stderr']:.4f}"
    return f"{score['value']:.4f}{error}"


def _to_json(value: Any) -> Any:
    """Converts NumPy numbers and arrays in a sample."""
    return value.tolist() if hasattr(value, "tolist") else str(value)

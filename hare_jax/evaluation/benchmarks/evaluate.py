"""The job behind configs/evaluate.py: a checkpoint on benchmarks, with all that a reader must know.

What is written to the workdir; ID changes with whatever changes a number:

    scores-ID.json        see `run`
    scores-ID.md          the same as tables, beside the paper's
    scores-ID.svg         the same as a chart
    samples-ID/TASK.jsonl a line an item: its document, log-likelihoods or completion, its scores
    responses-ID.jsonl    what the model answered; an evaluation that was killed goes on from it

Fingerprints of a model's answers (responses) hold the weights, the tokenizer and the code; those of
scores also the protocol, the benchmarks and lm-evaluation-harness.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import BenchmarkEvaluation, HuggingFaceImport, Model, Protocol, plain
from hare_jax.evaluation.benchmarks import (
    clean_subset,
    compare,
    decontamination_status,
    lm_harness,
    offline_data,
    statistics,
)
from hare_jax.evaluation.benchmarks.lm_harness import Loaded
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache
from hare_jax.evaluation.benchmarks.tables import clean_unknown
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_params
from hare_jax.files import write_json
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import Tokenizer, open_texts
from hare_jax.model import decoder
from hare_jax.progress import progress
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import open_run

OpenTokenizer = Callable[[Path], Any]  # a SentencePiece model -> see SentencePieceTexts
SCHEMA = 2


@dataclass(slots=True)
class Subject:
    """What is evaluated. `mixture`: what config.json says of the data it was trained on."""

    name: str
    model: Model
    params: decoder.Params
    step: int
    texts: Tokenizer
    mixture: Mapping[str, Any]


def run(
    config: BenchmarkEvaluation,
    workdir: Path,
    open_tokenizer: OpenTokenizer,
    read_evidence: clean_subset.ReadEvidence | None = None,
) -> dict[str, Path]:
    """Evaluates `config.checkpoint`; returns what was written.

    `read_evidence`: without it no benchmark's clean items are known.

    The JSON: {"schema", "fingerprint", "inputs": {"protocol", "lm_eval", "weights", "tokenizer",
    "mixture", ...}, "average": the six as the leaderboard has it, "benchmarks": {name: {"title",
    "score": {"value", "stderr", "interval", "items"}, "bits_per_byte", "gold_log_likelihood",
    "metrics": {task: {metric: score}}, "shots", "clean", "decontamination", "data"}}}; "clean" as
    clean_subset.of_benchmark has it.

    Raises ValueError or OSError where checkpoint, benchmarks or settings do not fit.
    """
    if not config.benchmarks:
        raise ValueError("benchmarks: got none, expected names as configs/evaluate.py lists them")
    lm_eval = lm_harness.version()
    data = Path(config.data).absolute() if config.data else None
    subject = open_subject(config, workdir, open_tokenizer)

    # ---------------------------------------------------------------- what decides the numbers
    max_length = config.max_length or subject.mixture.get("sequence_length") or 2048
    answers_by = {
        "weights": digest_of_params(subject.params),
        "tokenizer": subject.texts.sha256,
        "model": plain(subject.model),
        "max_length": max_length,
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }
    mixture = subject.mixture.get("directory")
    checked = decontamination_status.read_status(Path(mixture) if mixture else None)
    inputs = {
        "checkpoint": subject.name,
        "step": subject.step,
        **answers_by,
        "protocol": config.protocol.value,
        "lm_eval": lm_eval,
        "benchmarks": list(config.benchmarks),
        "shots": config.shots,
        "limit": config.limit,
        "mixture": subject.mixture.get("fingerprint"),
        "checked_by": None if checked is None else [stage.name for stage in checked.stages],
        "data": _sha256(offline_data.layout_of(data)) if data else "hub",
    }
    fingerprint = _sha256(inputs)
    path = workdir / f"scores-{fingerprint[:12]}.json"
    if (known := _read(path)) is not None and known["fingerprint"] == fingerprint:
        print(f"evaluation: served from cache, {path}", flush=True)
        return {"scores": path, **compare.write([known], path)}

    # ---------------------------------------------------------------- the work, a benchmark a time
    engine = InferenceEngine(
        subject.model, subject.params, max_length=max_length, batch_tokens=config.batch_tokens
    )
    responses = ResponseCache(workdir / f"responses-{_sha256(answers_by)[:12]}.jsonl")
    if responses.found:
        print(f"evaluation: {responses.found:,} answers are there already", flush=True)
    shots = None if config.shots < 0 else config.shots
    folders = [Path(folder).absolute() for folder in config.task_folders]
    loaded = lm_harness.load(
        config.benchmarks,
        config.protocol,
        data=data,
        task_folders=folders,
        shots=shots,
        max_length=max_length,
    )
    layout = offline_data.layout_of(data)
    found = clean_subset.load_contaminated_items(checked, read_evidence, layout)
    names = {one.name: one.benchmark.protected_as for one in loaded}
    states = decontamination_status.status_by_benchmark(checked, names)
    rows = {}
    for benchmark in loaded:
        name = benchmark.name
        total = lm_harness.num_requests(benchmark, config.protocol, config.limit)
        with progress(f"{benchmark.benchmark.title:<13}", total, "requests") as advance:
            lm = lm_harness.model(engine, subject.texts, config.protocol, responses, advance)
            row = benchmark_row(
                lm,
                benchmark,
                config.protocol,
                config.limit,
                samples=path.parent / f"samples-{path.stem[7:]}",
                found=found,
            )
        row["decontamination"] = states[name]
        row["data"] = layout.get(name, {"dataset": "hub"})
        rows[name] = row
        print(f"  {_line(row)}", flush=True)
    for line in clean_unknown(list(rows.values())):
        print(f"  {line}", flush=True)

    # ---------------------------------------------------------------- what came out
    scores = {name: row["score"] for name, row in rows.items()}
    result = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "average": statistics.six_average(scores),
        "benchmarks": rows,
    }
    write_json(path, result)
    return {"scores": path, **compare.write([result], path)}


def open_subject(
    config: BenchmarkEvaluation, workdir: Path, open_tokenizer: OpenTokenizer
) -> Subject:
    """A checkpoint of ours, or one of Hugging Face, which is imported into the workdir first.

    Raises ValueError or OSError where it cannot be read.
    """
    folder = Path(config.checkpoint).absolute()
    if config.checkpoint and _is_hugging_face(folder):
        folder = _imported(folder, workdir)
    opened = open_run(folder if config.checkpoint else "")
    model = dataclasses.replace(
        opened.model, compute_dtype=config.compute_dtype, matmul=Model().matmul
    )
    params, step = checkpoint.restore_params(opened.checkpoints, model, step=opened.step)
    texts = open_texts(opened, open_tokenizer)
    return Subject(config.checkpoint, model, params, step, texts, opened.mixture)


def _is_hugging_face(folder: Path) -> bool:
    described = _read(folder / "config.json")
    return described is not None and "model_type" in described


def _imported(folder: Path, workdir: Path) -> Path:
    from hare_jax.interop import huggingface

    files = [*sorted(folder.glob("*.safetensors")), folder / "config.json"]
    stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    out = workdir / f"imported-{_sha256([str(folder), stamps])[:12]}"
    if not out.is_dir():
        huggingface.import_(HuggingFaceImport(str(folder), str(out)))
    return out


def benchmark_row(
    lm: Any,
    loaded: Loaded,
    protocol: Protocol,
    limit: int,
    *,
    samples: Path | None = None,
    found: clean_subset.ContaminatedItems | None = None,
) -> dict[str, Any]:
    """A benchmark's row in the results, of what `lm_harness.model` answers.

    `samples`: a folder for a line an item, in a file a task. `found`: which items are touched;
    without it the row has no "clean".
    """
    answered = lm_harness.evaluate(lm, loaded, protocol, limit)
    metrics, golds = {}, []
    for name, task in loaded.tasks.items():
        of_task = answered["samples"][name]
        golds += _gold(task, of_task)
        metrics[name] = _metrics(of_task, answered["results"][name])
        if samples is not None:
            _write_samples(samples / f"{name}.jsonl", task, of_task)
    metric = _main_metric(loaded, metrics)
    parts = [by_name[metric] for by_name in metrics.values()]
    by_items = statistics.in_groups(protocol, loaded.benchmark.task)
    first = next(iter(loaded.tasks.values()))
    row = {
        "title": loaded.benchmark.title,
        "metric": metric,
        "score": parts[0] if len(parts) == 1 else statistics.combined(parts, by_items=by_items),
        "bits_per_byte": statistics.bits_per_byte(golds) if golds else None,
        "gold_log_likelihood": statistics.estimate([g for _, g in golds]) if golds else None,
        "shots": first.get_config("num_fewshot"),
        "metrics": metrics,
    }
    if found is not None:
        row["clean"] = clean_subset.of_benchmark(
            found, loaded.benchmark.protected_as, metric, answered["samples"], by_items=by_items
        )
    return row


def _main_metric(loaded: Loaded, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The benchmark's own, or the one that the protocol has in its place, or the first."""
    known = next(iter(metrics.values()))
    wanted = loaded.benchmark.metric
    for name in (wanted, f"{wanted},none"):
        if name in known:
            return name
    return next(iter(known))


def _metrics(
    samples: Sequence[Mapping[str, Any]], aggregated: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """ "metric,filter" -> score. What is no mean of numbers is as lm-eval has put it together."""
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


def _gold(task: Any, samples: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """The right answers of a task's items, each item once."""
    first = samples[0]["filter"]
    found = [lm_harness.gold(task, sample) for sample in samples if sample["filter"] == first]
    return [pair for pair in found if pair is not None]


def _write_samples(path: Path, task: Any, samples: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generates = task.OUTPUT_TYPE == "generate_until"
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            right = lm_harness.gold(task, sample)
            line = {
                "id": sample["doc_id"],
                "filter": sample["filter"],
                "doc": sample["doc"],
                "target": sample["target"],
                "prompt_sha256": sample["prompt_hash"],
                "answers": [response[0] for response in sample["resps"]],
                **({"extracted": sample["filtered_resps"]} if generates else {}),
                "gold_log_likelihood": right[1] if right else None,
                "gold_bytes": len(right[0].encode()) if right else None,
                **{metric: sample[metric] for metric in sample["metrics"]},
            }
            file.write(json.dumps(line, ensure_ascii=False, default=_plain) + "\n")


def _line(row: Mapping[str, Any]) -> str:
    bits = row["bits_per_byte"]
    beside = "" if bits is None else f", {bits['value']:.3f} bits a byte of the right answer"
    return f"{row['title']}: {row['metric']} {_number(row['score'])}{beside}{_clean(row)}"


def _clean(row: Mapping[str, Any]) -> str:
    parts = row["clean"]
    if parts["state"] == "unknown":
        return ""
    touched = parts["touched"]["items"] if parts["touched"] else 0
    said = f"; {touched:,} of {parts['all']['items']:,} items touched"
    return f"{said}, {_number(parts['clean'])} without" if touched and parts["clean"] else said


def _number(score: Mapping[str, Any]) -> str:
    error = "" if score["stderr"] is None else f" ± {score['stderr']:.4f}"
    return f"{score['value']:.4f}{error}"


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, in a sample."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

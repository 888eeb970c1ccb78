"""Evaluation of a trained model on held-out data, beside two models that know less.

    untrained   the initial parameters of the run
    unigram     the frequencies of tokens in the training data, see unigram.py
    trained     the last checkpoint

Files written to the run's folder, evaluation.json last:

    items_scored.jsonl   one line per item: the trained model's log-likelihood of each choice
    samples.json         [{"source", "prompt", "completion"}]
    evaluation.json      {"fingerprint", "inputs", "step", "models", "truncated_requests",
                          "failed_items", "heldout", "tasks", "item_sources"}

The fingerprint covers all that decides the numbers: weights, data, configs and code. If
evaluation.json has the same one, nothing is computed again. An evaluation that was killed continues
after its last finished part.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import Evaluation, Model, Training, plain
from hare_jax.data import packed_dataset
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_json, digest_of_params
from hare_jax.evaluation.held_out import loss, multiple_choice, samples, unigram
from hare_jax.evaluation.held_out.loss import DocumentLoss
from hare_jax.evaluation.held_out.multiple_choice import ScoredItem
from hare_jax.evaluation.held_out.unigram import Unigram
from hare_jax.evaluation.resumable import FinishedParts, read_finished
from hare_jax.files import write_json, write_jsonl
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Score, Scorer, ScoreRequest, truncate
from hare_jax.inference.tokenizers import Tokenizer
from hare_jax.model import decoder
from hare_jax.progress import progress
from hare_jax.training import checkpoint

MODELS = ("untrained", "unigram", "trained")


@dataclass(slots=True)
class HeldOutData:
    """The data of an evaluation.

    Attributes:
      mixture: folder of the baked training data.
      held_out: folder of the baked held-out documents.
      items: JSON Lines file of multiple-choice items, see multiple_choice.py.
      prompts: [{"source", "text"}]; the first tokens of each text are completed.
      tokenizer: of both folders.
    """

    mixture: Path
    held_out: Path
    items: Path
    prompts: Sequence[Mapping[str, str]]
    tokenizer: Tokenizer


def run(
    model: Model, training: Training, evaluation: Evaluation, run_dir: Path, data: HeldOutData
) -> Path:
    """Evaluates the last checkpoint of `run_dir`; returns the path of evaluation.json.

    Args:
      model: the architecture of the run.
      training: the training config of the run.
      evaluation: batch size and sampling.
      run_dir: the run's folder.
      data: what it is evaluated on.

    Raises:
      FileNotFoundError: there is no checkpoint, or a file of the data is missing.
      ValueError: data, items and model do not fit together, or a file is damaged.
    """
    path = run_dir / "evaluation.json"
    params, step = checkpoint.restore_params(run_dir / "checkpoints", model)
    inputs = _inputs(model, training, evaluation, data) | {
        "step": step,
        "weights": digest_of_params(params),
    }
    fingerprint = digest_of_json(inputs)
    others = [run_dir / "items_scored.jsonl", run_dir / "samples.json"]
    if read_finished(path, fingerprint, others) is not None:
        print(f"evaluation: served from cache, {path} is of step {step}", flush=True)
        return path

    # ---------------------------------------------------------------- data, checked
    mixture, held_out = _open_data(model, data, run_dir.parent)
    max_length = held_out.sequence_length
    items = multiple_choice.read_items(data.items)
    items, requests, failed = multiple_choice.requests(
        items, data.tokenizer.encode, held_out.tokenizer["bos_id"], max_length
    )
    if failed:
        print(f"evaluation: left out {len(failed):,} items; {failed[0]}", flush=True)

    # ---------------------------------------------------------------- the work, part by part
    print(f"evaluation of step {step}: {', '.join(MODELS)}", flush=True)
    scorers = _scorers(model, training, evaluation, params, mixture, max_length)
    parts = FinishedParts(run_dir / "evaluation.parts.json", fingerprint)
    losses: dict[str, list[DocumentLoss]] = {}
    scored: dict[str, list[ScoredItem]] = {}
    for name, scorer in scorers.items():
        compute_losses = functools.partial(score_documents, name, scorer, held_out)
        losses[name] = [DocumentLoss(*v) for v in parts.get(f"{name} held-out", compute_losses)]
        compute_scores = functools.partial(score_items, name, scorer, requests)
        scores = [Score(*values) for values in parts.get(f"{name} items", compute_scores)]
        scored[name] = multiple_choice.assign(items, scores)
    weights = decoder.Weights.of(decoder.for_inference(model), params)
    completions = parts.get(
        "samples",
        lambda: samples.complete(weights, evaluation, data.prompts, data.tokenizer),
    )

    # ---------------------------------------------------------------- results
    results = {
        "fingerprint": fingerprint,
        "inputs": inputs,
        "step": step,
        "models": list(MODELS),
        "truncated_requests": sum(truncate(r, max_length)[1] for r in requests),
        "failed_items": len(failed),
        "heldout": loss.table(losses),
        "tasks": multiple_choice.table(scored, by="task"),
        "item_sources": multiple_choice.table(scored, by="source"),
    }
    write_jsonl(run_dir / "items_scored.jsonl", map(multiple_choice.log_line, scored["trained"]))
    write_json(run_dir / "samples.json", completions)
    write_json(path, results)
    parts.remove()
    print(summary(results), flush=True)
    return path


def _scorers(
    model: Model,
    training: Training,
    evaluation: Evaluation,
    params: decoder.Params,
    mixture: PackedDataset,
    max_length: int,
) -> dict[str, Callable[[], Scorer]]:
    """Returns name -> function that builds the model on its first call, in the order of MODELS."""

    def engine(params: decoder.Params) -> Scorer:
        size = evaluation.batch_tokens
        return InferenceEngine(model, params, max_length=max_length, batch_tokens=size)

    def untrained() -> Scorer:
        return engine(jax.jit(lambda: decoder.init(model, training.seed))())

    def trained() -> Scorer:
        return engine(params)

    def unigrams() -> Scorer:
        return unigram_baseline(mixture, training, evaluation.baseline_records)

    builders = (untrained, unigrams, trained)
    return {name: functools.cache(build) for name, build in zip(MODELS, builders, strict=True)}


def _inputs(
    model: Model, training: Training, evaluation: Evaluation, data: HeldOutData
) -> dict[str, Any]:
    """Returns all that decides the numbers, besides the checkpoint."""
    training_fields = plain(training)
    return {
        "mixture": packed_dataset.fingerprint_of(data.mixture),
        "held_out": packed_dataset.fingerprint_of(data.held_out),
        "items": hashlib.sha256(data.items.read_bytes()).hexdigest(),
        "prompts": digest_of_json([dict(prompt) for prompt in data.prompts]),
        "model": plain(model),
        "training": {name: training_fields[name] for name in ("seed", "batch_size", "stages")},
        "evaluation": plain(evaluation),
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }


def _open_data(
    model: Model, data: HeldOutData, verified_in: Path
) -> tuple[PackedDataset, PackedDataset]:
    """Opens training and held-out data and checks that they fit to the model and to each other.

    `verified_in`: the folder that records which files training has hashed already.
    """
    mixture = PackedDataset(data.mixture, verified_in)
    held_out = PackedDataset(data.held_out, verified_in)
    mixture.check_model(model)
    held_out.check_model(model)
    if mixture.tokenizer != held_out.tokenizer:
        raise ValueError(
            f"{data.held_out} was baked with another tokenizer than {data.mixture}:"
            f" {held_out.tokenizer} and {mixture.tokenizer}; bake both with the same"
        )
    return mixture, held_out


def score_documents(
    name: str, scorer: Callable[[], Scorer], held_out: PackedDataset
) -> list[list[Any]]:
    """Returns the document losses of the model `name`, as JSON values."""
    tokens = loss.num_tokens(held_out)
    with progress(f"{name:<9} held-out text", tokens, "tokens") as advance:
        losses = loss.document_losses(held_out, scorer(), advance)
    return [list(document_loss) for document_loss in losses]


def score_items(
    name: str, scorer: Callable[[], Scorer], requests: Sequence[ScoreRequest]
) -> list[list[Any]]:
    """Returns the scores of the model `name`, one per request, as JSON values."""
    with progress(f"{name:<9} multiple choice", len(requests), "requests") as advance:
        scores = scorer().scores(requests, lambda known: advance(len(known)))
    return [list(score) for score in scores]


def unigram_baseline(mixture: PackedDataset, training: Training, records: int) -> Unigram:
    """Returns the unigram model of the tokens that all stages together draw from each source.

    `records`: how many records of each source are counted at most.
    """
    rows = packed_dataset.make_order(mixture, training).rows_drawn_in_total()
    shares = {
        source.name: drawn * source.tokens / source.records
        for source, drawn in zip(mixture.sources, rows, strict=True)
        if drawn
    }
    return Unigram(unigram.count(mixture, records), shares)


def summary(results: Mapping[str, Any]) -> str:
    """Returns two lines for the console: held-out loss and accuracy of each model."""
    all_text, all_items = results["heldout"][-1], results["tasks"][-1]

    def by_model(key: str, row: Mapping[str, Any], format_: str) -> str:
        return ", ".join(f"{name} {row[key][name]:{format_}}" for name in results["models"])

    return (
        f"  held-out loss, nats per token: {by_model('loss', all_text, '.3f')}\n"
        f"  accuracy by mutual information on {all_items['items']:,} items (chance"
        f" {all_items['chance']:.1%}): {by_model('accuracy_mutual_info', all_items, '.1%')}"
    )

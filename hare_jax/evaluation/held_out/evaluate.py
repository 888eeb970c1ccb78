"""Evaluates a trained model beside two that know less: held-out loss, multiple choice, samples.

    untrained   the parameters as training found them
    unigram     the frequencies of tokens in the training data, see unigram.py
    trained     the last checkpoint

What is written to the run directory, evaluation.json last:

    items_scored.jsonl   a line an item: the trained model's log-likelihood of each choice
    samples.json         [{"source", "prompt", "completion"}]
    evaluation.json      {"fingerprint", "inputs", "step", "models", "truncated_requests",
                          "heldout", "tasks", "item_sources"}

The fingerprint is of all that decides the numbers: weights, data, configs, code. Where
evaluation.json has it already, nothing is done again; an evaluation that was killed continues after
its last finished part.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import Evaluation, Model, Training, plain
from hare_jax.data import packed_dataset
from hare_jax.data.packed_dataset import PackedDataset
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_json, digest_of_params
from hare_jax.evaluation.held_out import loss as heldout
from hare_jax.evaluation.held_out import multiple_choice, samples, unigram
from hare_jax.evaluation.held_out.loss import DocumentLoss
from hare_jax.evaluation.held_out.multiple_choice import Scored
from hare_jax.evaluation.held_out.unigram import Unigram
from hare_jax.evaluation.resumable import FinishedParts, read_json_or_none
from hare_jax.files import write_json, write_jsonl
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Score, Scorer, ScoreRequest, truncated
from hare_jax.inference.tokenizers import Decode, Encode
from hare_jax.model import decoder
from hare_jax.progress import progress
from hare_jax.training import checkpoint

MODELS = ("untrained", "unigram", "trained")


def run(
    model: Model,
    training: Training,
    evaluation: Evaluation,
    *,
    run_dir: Path,
    mixture_dir: Path,
    held_out_dir: Path,
    items_path: Path,
    encode: Encode,
    decode: Decode,
    prompts: Sequence[Mapping[str, str]],
) -> Path:
    """Evaluates the last checkpoint of `run_dir`; returns the path of evaluation.json.

    `mixture_dir`, `held_out_dir`: baked directories, of what was trained on and of what was not.
    `encode` (text -> ids, without BOS) and `decode` (ids -> text) are their tokenizer.
    `prompts`: [{"source", "text"}], whose first `evaluation.prompt_tokens` tokens are completed.

    Raises:
      FileNotFoundError: no checkpoint, or a file of the data is missing.
      ValueError: data, items and model do not fit together, or a file is damaged.
    """
    path = run_dir / "evaluation.json"

    # ---------------------------------------------------------------- what decides the numbers
    trained_by = plain(training)
    params, step = checkpoint.restore_params(run_dir / "checkpoints", model)
    inputs = {
        "step": step,
        "weights": digest_of_params(params),
        "mixture": claimed_fingerprint(mixture_dir),
        "held_out": claimed_fingerprint(held_out_dir),
        "items": hashlib.sha256(items_path.read_bytes()).hexdigest(),
        "prompts": digest_of_json([dict(prompt) for prompt in prompts]),
        "model": plain(model),
        "training": {name: trained_by[name] for name in ("seed", "batch_size", "stages")},
        "evaluation": plain(evaluation),
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }
    fingerprint = digest_of_json(inputs)
    if is_complete(run_dir, fingerprint):
        print(f"evaluation: served from cache, {path} is of step {step}", flush=True)
        return path

    # ---------------------------------------------------------------- data and questions, checked
    memory = run_dir.parent  # what training has verified is not hashed again
    mixture, held_out = PackedDataset(mixture_dir, memory), PackedDataset(held_out_dir, memory)
    mixture.check_model(model)
    held_out.check_model(model)
    if mixture.tokenizer != held_out.tokenizer:
        raise ValueError(
            f"{held_out_dir} was baked with another tokenizer than {mixture_dir}:"
            f" {held_out.tokenizer} and {mixture.tokenizer}; bake both with the same"
        )
    bos_id, max_length = held_out.tokenizer["bos_id"], held_out.sequence_length
    items = multiple_choice.read_items(items_path)
    requests = multiple_choice.requests(items, encode, bos_id)

    # ---------------------------------------------------------------- who is evaluated
    def with_params(params: decoder.Params) -> Scorer:
        size = evaluation.batch_tokens
        return InferenceEngine(model, params, max_length=max_length, batch_tokens=size)

    scorers: dict[str, Callable[[], Scorer]] = {
        "untrained": lambda: with_params(jax.jit(lambda: decoder.init(model, training.seed))()),
        "unigram": lambda: baseline(mixture, training, evaluation.baseline_records),
        "trained": lambda: with_params(params),
    }

    # ---------------------------------------------------------------- the work, part by part
    print(f"evaluation of step {step}: {', '.join(MODELS)}", flush=True)
    parts = FinishedParts(run_dir / "evaluation.parts.json", fingerprint)
    losses: dict[str, list[DocumentLoss]] = {}
    answers: dict[str, list[Scored]] = {}
    for name in MODELS:
        scorer = functools.cache(scorers[name])  # made when a part of it is still to be done
        rows = parts.get(f"{name} held-out", functools.partial(read, name, scorer, held_out))
        losses[name] = [DocumentLoss(*row) for row in rows]
        rows = parts.get(f"{name} items", functools.partial(answer, name, scorer, requests))
        answers[name] = multiple_choice.scored(items, [Score(*row) for row in rows])
    written = parts.get(
        "samples",
        lambda: samples.complete(
            model, params, evaluation, prompts, encode, decode, held_out.tokenizer
        ),
    )

    # ---------------------------------------------------------------- what came out
    results = {
        "fingerprint": fingerprint,
        "inputs": inputs,
        "step": step,
        "models": list(MODELS),
        "truncated_requests": sum(truncated(r, max_length)[1] for r in requests),
        "heldout": heldout.table(losses),
        "tasks": multiple_choice.table(answers, by="task"),
        "item_sources": multiple_choice.table(answers, by="source"),
    }
    write_jsonl(run_dir / "items_scored.jsonl", map(multiple_choice.log_line, answers["trained"]))
    write_json(run_dir / "samples.json", written)
    write_json(path, results)
    parts.remove()
    print(summary(results), flush=True)
    return path


def read(name: str, scorer: Callable[[], Scorer], held_out: PackedDataset) -> list[list[Any]]:
    """The model's document losses, as JSON has them."""
    tokens = heldout.num_tokens(held_out)
    with progress(f"{name:<9} held-out text", tokens, "tokens") as advance:
        losses = heldout.document_losses(held_out, scorer(), advance)
    return [list(loss) for loss in losses]


def answer(
    name: str, scorer: Callable[[], Scorer], requests: Sequence[ScoreRequest]
) -> list[list[Any]]:
    """The model's scores, as JSON has them."""
    with progress(f"{name:<9} multiple choice", len(requests), "requests") as advance:
        scores = scorer().scores(requests, lambda known: advance(len(known)))
    return [list(score) for score in scores]


def baseline(mixture: PackedDataset, training: Training, records: int) -> Unigram:
    """The unigram model of the tokens that all stages together draw from each source."""
    rows = packed_dataset.make_order(mixture, training).rows_drawn_in_total()
    shares = {
        source.name: drawn * source.tokens / source.records
        for source, drawn in zip(mixture.sources, rows, strict=True)
        if drawn
    }
    return Unigram(unigram.count(mixture, records), shares)


def is_complete(run_dir: Path, fingerprint: str) -> bool:
    """Whether the results in `run_dir` are of this fingerprint, and all there."""
    results = read_json_or_none(run_dir / "evaluation.json")
    beside = [run_dir / "items_scored.jsonl", run_dir / "samples.json"]
    return (
        results is not None
        and results.get("fingerprint") == fingerprint
        and all(path.is_file() for path in beside)
    )


def summary(results: Mapping[str, Any]) -> str:
    loss, tasks = results["heldout"][-1], results["tasks"][-1]

    def each(key: str, row: Mapping[str, Any], format: str) -> str:
        return ", ".join(f"{name} {row[key][name]:{format}}" for name in results["models"])

    return (
        f"  held-out loss, nats a token: {each('loss', loss, '.3f')}\n"
        f"  accuracy by mutual information on {tasks['items']:,} items (chance"
        f" {tasks['chance']:.1%}): {each('accuracy_mutual_info', tasks, '.1%')}"
    )


def claimed_fingerprint(baked_dir: Path) -> str:
    """What mixture.json says of itself; it is verified when the data is read."""
    manifest = read_json_or_none(baked_dir / "mixture.json")
    if not isinstance(manifest, dict) or "fingerprint" not in manifest:
        raise FileNotFoundError(
            f"{baked_dir / 'mixture.json'}: missing or damaged; expected a directory of baked data"
        )
    return manifest["fingerprint"]

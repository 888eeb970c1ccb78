"""Audits a checkpoint: which benchmarks has it seen? (paper, Appendix B; arXiv 2404.18824)

What is written, leakage.json last; without `config.out`, to leakage/NAME beside the checkpoints:

    leakage.json              {"fingerprint", "inputs", "checkpoint", "step", "sets"}: compare.py
    leakage_items.jsonl       {"set", "key", "original", "rewritten", "original_loss",
                               "rewritten_loss"} of each item: accuracies, and nats a token
    leakage.svg               the sets' excess with intervals
    rewritten/NAME.jsonl      of a set that was rewritten by rules

The fingerprint is of all that decides the numbers: weights, files, config, code. Where leakage.json
has it already, nothing is done again; an audit that was killed goes on after its last finished set.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import LeakageAudit, plain
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_json, digest_of_params
from hare_jax.evaluation.leakage import chart, compare, items, ngrams, paraphrase_by_rules
from hare_jax.evaluation.leakage.items import Files, Pair
from hare_jax.evaluation.leakage.ngrams import Definition, NgramAccuracy
from hare_jax.evaluation.resumable import FinishedParts
from hare_jax.files import write_json, write_jsonl, write_text
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Tokenizer, open_texts
from hare_jax.progress import progress
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import open_run

Values = dict[str, Any]  # JSON


def run(config: LeakageAudit, open_tokenizer: Callable[[Path], Any]) -> dict[str, Path]:
    """Audits each set, prints a table, and returns what was written, by what it is.

    Raises ValueError or OSError where the checkpoint, a file or a setting is not what it must be.
    """
    check(config)
    ran = open_run(config.checkpoint)
    sets, control = items.files_of(config), items.control_of(config)
    named = [*sets, control] if control is not None else sets
    pairs = [drawn(read(files, config), config) for files in named]

    # ---------------------------------------------------------------- what decides the numbers
    texts = open_texts(ran, open_tokenizer)
    params, step = checkpoint.restore_params(ran.checkpoints, ran.model, step=ran.step)
    max_length = config.max_length or ran.mixture["sequence_length"]
    inputs = {
        "weights": digest_of_params(params),
        "model": plain(ran.model),
        "tokenizer": texts.sha256,
        "files": [files.sha256() for files in named],
        "config": {k: v for k, v in plain(config).items() if k not in ("checkpoint", "out")},
        "max_length": max_length,
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }
    fingerprint = digest_of_json(inputs)
    name = Path(config.folder).resolve().name if config.folder else sets[0].name
    out = Path(config.out) if config.out else ran.directory / "leakage" / name
    out.mkdir(parents=True, exist_ok=True)
    written = {
        "audit": out / "leakage.json",
        "items": out / "leakage_items.jsonl",
        "chart": out / "leakage.svg",
    }
    if (kept := _finished(written, fingerprint)) is not None:
        print(f"leakage audit: served from cache, {written['audit']} is of step {kept['step']}")
        print(compare.table(kept), flush=True)
        return written

    # ---------------------------------------------------------------- the work, set by set
    definition = Definition(config.definition, config.ngram, config.num_prefixes, max_length)
    print(f"leakage audit of step {step}: {len(pairs)} sets", flush=True)

    @functools.cache
    def engine() -> InferenceEngine:  # compiled when a set is still to be measured
        return InferenceEngine(
            ran.model,
            params,
            max_length=max_length,
            batch_tokens=config.batch_tokens,
        )

    parts = FinishedParts(out / "leakage.parts.json", fingerprint)
    measured = [
        parts.get(f"set {k}", functools.partial(measure, pair, engine, texts, definition))
        for k, pair in enumerate(pairs)
    ]

    # ---------------------------------------------------------------- what came out
    results = {
        "fingerprint": fingerprint,
        "inputs": inputs,
        "checkpoint": str(ran.directory),
        "step": step,
        "sets": compare.judged(pairs, measured, config, has_control=control is not None),
    }
    for files, pair in zip(named, pairs, strict=True):
        if not pair.by_hand:
            rows = items.rows_by_key(files.original, config)
            path = out / "rewritten" / f"{pair.name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            told = (rows[item.key] | items.rewritten_fields(item) for item in pair.rewritten[0])
            write_jsonl(path, told)
    write_jsonl(written["items"], compare.log(pairs, measured))
    write_text(written["chart"], chart.of_results(results))
    write_json(written["audit"], results)
    parts.remove()
    print(compare.table(results), flush=True)
    return written


def check(config: LeakageAudit) -> None:
    """Raises ValueError for a number out of range."""
    for name, least in (("ngram", 1), ("num_prefixes", 1), ("resamples", 100), ("batch_tokens", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"{name}: got {getattr(config, name)}, expected at least {least}")
    if not 0 < config.confidence < 1:
        raise ValueError(f"confidence: got {config.confidence}, expected a share such as 0.95")
    if not -1 < config.threshold < 1:
        raise ValueError(
            f"threshold: got {config.threshold}, expected a difference of shares such as 0.05"
        )


def read(files: Files, config: LeakageAudit) -> Pair:
    """The set's items and rewritings; by rules where there is no file of these."""
    pair = items.pair(files, config)
    if pair.rewritten:
        return pair
    rewritten = paraphrase_by_rules.paraphrased(pair.original, config.seed)
    if not rewritten:
        raise ValueError(
            f"{files.original}: got no item on which a rule of rewriting works, expected some; "
            "give rewritten items by --config.rewritten=FILE"
            + ("" if config.choices else ", or the field of the options by --config.choices=NAME")
        )
    made_by = f"rules, seed {config.seed}"
    return dataclasses.replace(pair, rewritten=[rewritten], made_by=made_by, by_hand=False)


def drawn(pair: Pair, config: LeakageAudit) -> Pair:
    """At most `config.max_items` items, and their rewritings; or as many of both, unpaired."""
    if not config.max_items:
        return pair

    original = items.drawn(pair.original, config.max_items, config.seed)
    keys = {item.key for item in original}
    rewritten = [
        items.drawn(version, config.max_items, config.seed)
        if pair.unpaired
        else [item for item in version if item.key in keys]
        for version in pair.rewritten
    ]
    return dataclasses.replace(pair, original=original, rewritten=rewritten)


def measure(
    pair: Pair, engine: Callable[[], InferenceEngine], texts: Tokenizer, definition: Definition
) -> list[list[NgramAccuracy | None]]:
    """What the model does with the original items, then with each version of the rewritten ones."""

    def scores(requests: Sequence[ScoreRequest]) -> list[Score]:
        with progress(pair.name, len(requests), "requests") as advance:
            return engine().scores(requests, lambda known: advance(len(known)))

    together = [*pair.original, *(item for version in pair.rewritten for item in version)]
    answers = iter(
        ngrams.measure(together, scores, texts.encode, texts.decode, texts.bos_id, definition)
    )
    return [[next(answers) for _ in side] for side in (pair.original, *pair.rewritten)]


def _finished(written: dict[str, Path], fingerprint: str) -> Values | None:
    """The results that are there already; None where they are of something else, or not whole."""
    try:
        results: Values = json.loads(written["audit"].read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = all(path.is_file() for path in written.values())
    return results if whole and results.get("fingerprint") == fingerprint else None

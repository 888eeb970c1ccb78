"""The job of configs/audit.py: were benchmarks in the training data of a checkpoint?

The method is that of the paper (Appendix B) and of arXiv 2404.18824. Files written, leakage.json
last, to `config.out` or else to leakage/NAME in the run's folder:

    leakage.json              {"fingerprint", "inputs", "checkpoint", "step", "sets"}: compare.py
    leakage_items.jsonl       {"set", "key", "original", "paraphrased", "original_loss",
                               "paraphrased_loss"} of each item: accuracies, and nats per token
    leakage.svg               the excess of each set with its interval
    paraphrased/NAME.jsonl    the paraphrases of a set that were made by rules

The fingerprint covers all that decides the numbers: weights, files, config and code. If
leakage.json has the same one, nothing is computed again. An audit that was killed continues after
its last finished set.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from hare_jax.config import LeakageAudit, plain
from hare_jax.evaluation.fingerprint import digest_of_code, digest_of_json, digest_of_params
from hare_jax.evaluation.leakage import chart, compare, items, ngrams, paraphrase_by_rules
from hare_jax.evaluation.leakage.items import Files, Pair
from hare_jax.evaluation.leakage.ngrams import Definition, NgramAccuracy
from hare_jax.evaluation.resumable import FinishedParts, read_finished
from hare_jax.files import write_json, write_jsonl, write_text
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.tokenizers import Tokenizer, open_fitting
from hare_jax.progress import progress
from hare_jax.training import checkpoint
from hare_jax.training.run_dir import Run, open_run

Values = dict[str, Any]  # JSON


def run(config: LeakageAudit, workdir: Path) -> dict[str, Path]:
    """Audits each set, prints a table, and returns what was written, by what it is.

    Args:
      config: checkpoint, files and settings.
      workdir: not used.

    Raises:
      FileNotFoundError: there is no such checkpoint or file.
      ValueError: a file or a setting is invalid.
    """
    del workdir
    check(config)
    source = open_run(config.checkpoint)
    sets, control = items.files_of(config), items.control_of(config)
    files = [*sets, control] if control is not None else sets
    pairs = [draw(read(of_set, config), config) for of_set in files]

    # ---------------------------------------------------------------- what decides the numbers
    tokenizer = open_fitting(source.directory, source.model.vocab_size)
    params, step = checkpoint.restore_params(source.checkpoints, source.model, step=source.step)
    max_length = config.max_length or source.mixture["sequence_length"]
    inputs = _inputs(config, source, files) | {
        "weights": digest_of_params(params),
        "tokenizer": tokenizer.sha256,
        "max_length": max_length,
    }
    fingerprint = digest_of_json(inputs)
    name = Path(config.folder).resolve().name if config.folder else sets[0].name
    out = Path(config.out) if config.out else source.directory / "leakage" / name
    out.mkdir(parents=True, exist_ok=True)
    written = {
        "audit": out / "leakage.json",
        "items": out / "leakage_items.jsonl",
        "chart": out / "leakage.svg",
    }
    finished = read_finished(written["audit"], fingerprint, written.values())
    if finished is not None:
        print(f"leakage audit: served from cache, {written['audit']} is of step {finished['step']}")
        print(compare.table(finished), flush=True)
        return written

    # ---------------------------------------------------------------- the work, set by set
    definition = Definition(config.definition, config.ngram, config.num_prefixes, max_length)
    print(f"leakage audit of step {step}: {len(pairs)} sets", flush=True)

    @functools.cache
    def engine() -> InferenceEngine:  # built only if a set is not yet measured
        return InferenceEngine(
            source.model, params, max_length=max_length, batch_tokens=config.batch_tokens
        )

    parts = FinishedParts(out / "leakage.parts.json", fingerprint)
    measured = [
        parts.get(f"set {k}", functools.partial(measure, pair, engine, tokenizer, definition))
        for k, pair in enumerate(pairs)
    ]

    # ---------------------------------------------------------------- results
    results = {
        "fingerprint": fingerprint,
        "inputs": inputs,
        "checkpoint": str(source.directory),
        "step": step,
        "sets": compare.judge_sets(pairs, measured, config, has_control=control is not None),
    }
    _write_paraphrases(out / "paraphrased", files, pairs, config)
    write_jsonl(written["items"], compare.log(pairs, measured))
    write_text(written["chart"], chart.svg(results))
    write_json(written["audit"], results)
    parts.remove()
    print(compare.table(results), flush=True)
    return written


def _inputs(config: LeakageAudit, source: Run, files: Sequence[Files]) -> Values:
    """Returns all that decides the numbers, besides the checkpoint."""
    return {
        "model": plain(source.model),
        "files": [of_set.sha256() for of_set in files],
        "config": {k: v for k, v in plain(config).items() if k not in ("checkpoint", "out")},
        "code": digest_of_code(__name__),
        "jax": jax.__version__,
    }


def check(config: LeakageAudit) -> None:
    """Raises ValueError if a number of the config is out of range."""
    minimums = {"ngram": 1, "num_prefixes": 1, "resamples": 100, "batch_tokens": 1}
    for name, minimum in minimums.items():
        if getattr(config, name) < minimum:
            raise ValueError(f"{name}: got {getattr(config, name)}, expected at least {minimum}")
    if not 0 < config.confidence < 1:
        raise ValueError(f"confidence: got {config.confidence}, expected a share such as 0.95")
    if not -1 < config.threshold < 1:
        raise ValueError(
            f"threshold: got {config.threshold}, expected a difference of shares such as 0.05"
        )


def read(files: Files, config: LeakageAudit) -> Pair:
    """Reads the items of a set and their paraphrases, which are made by rules if there is no file.

    Raises ValueError if a file is invalid, or no rule applies to any item.
    """
    pair = items.pair(files, config)
    if pair.paraphrased:
        return pair
    paraphrased = paraphrase_by_rules.paraphrase(pair.original, config.seed)
    if not paraphrased:
        raise ValueError(
            f"{files.original}: got no item that the rules can paraphrase, expected some; "
            "give paraphrased items by --config.paraphrased=FILE"
            + ("" if config.choices else ", or the field of the choices by --config.choices=NAME")
        )
    return dataclasses.replace(
        pair,
        paraphrased=[paraphrased],
        paraphrased_by=f"rules, seed {config.seed}",
        from_files=False,
    )


def draw(pair: Pair, config: LeakageAudit) -> Pair:
    """Returns at most `config.max_items` items with their paraphrases.

    If the set is not paired, as many paraphrases are drawn as items.
    """
    if not config.max_items:
        return pair

    original = items.draw(pair.original, config.max_items, config.seed)
    keys = {item.key for item in original}
    paraphrased = [
        items.draw(version, config.max_items, config.seed)
        if pair.unpaired_because
        else [item for item in version if item.key in keys]
        for version in pair.paraphrased
    ]
    return dataclasses.replace(pair, original=original, paraphrased=paraphrased)


def measure(
    pair: Pair, engine: Callable[[], InferenceEngine], tokenizer: Tokenizer, definition: Definition
) -> list[list[NgramAccuracy | None]]:
    """Measures the original items, then each version of the paraphrases.

    Args:
      pair: the set.
      engine: returns the engine.
      tokenizer: of the model.
      definition: what is measured.

    Returns:
      One list per version, with one result per item; None if its text is too short.
    """

    def scores(requests: Sequence[ScoreRequest]) -> list[Score]:
        with progress(pair.name, len(requests), "requests") as advance:
            return engine().scores(requests, lambda known: advance(len(known)))

    versions = [pair.original, *pair.paraphrased]
    all_items = [item for version in versions for item in version]
    results = iter(ngrams.measure(all_items, scores, tokenizer, definition))
    return [[next(results) for _ in version] for version in versions]


def _write_paraphrases(
    folder: Path, files: Sequence[Files], pairs: Sequence[Pair], config: LeakageAudit
) -> None:
    """Writes the paraphrases that were made by rules, each with the line of its original."""
    for of_set, pair in zip(files, pairs, strict=True):
        if not pair.from_files:
            rows = items.rows_by_key(of_set.original, config)
            folder.mkdir(exist_ok=True)
            (paraphrased,) = pair.paraphrased
            lines = (rows[item.key] | items.paraphrased_fields(item) for item in paraphrased)
            write_jsonl(folder / f"{pair.name}.jsonl", lines)

"""Comparison of original and paraphrased items: the contents of leakage.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hare_jax.config import LeakageAudit
from hare_jax.evaluation.leakage import ngrams, paraphrase_by_rules, verdict
from hare_jax.evaluation.leakage.items import Pair
from hare_jax.evaluation.leakage.ngrams import NgramAccuracy
from hare_jax.evaluation.leakage.verdict import Resampled

Values = dict[str, Any]  # JSON
# Results of the original items, then of each version of the paraphrases; None: text too short.
Measured = Sequence[Sequence[Sequence[Any] | None]]


@dataclass(slots=True)
class Sides:
    """The results that are compared.

    Attributes:
      keys: of the original items; if they are paired, both lists are in this order.
      original: one result per item.
      paraphrased: one result per item, the mean over its versions; if the items are not paired,
        one per paraphrase.
    """

    keys: list[str]
    original: list[NgramAccuracy]
    paraphrased: list[NgramAccuracy]


def sides(pair: Pair, measured: Measured) -> Sides:
    """Pairs the results of items with those of their paraphrases, if the set is paired.

    Raises ValueError if no item is left to compare.
    """
    original = {
        item.key: NgramAccuracy(*result)
        for item, result in zip(pair.original, measured[0], strict=True)
        if result is not None
    }
    paraphrased = [
        (item.key, NgramAccuracy(*result))
        for version, results in zip(pair.paraphrased, measured[1:], strict=True)
        for item, result in zip(version, results, strict=True)
        if result is not None
    ]
    if pair.unpaired_because:
        compared = Sides(list(original), list(original.values()), [r for _, r in paraphrased])
    else:
        versions: dict[str, list[NgramAccuracy]] = {}
        for key, result in paraphrased:
            versions.setdefault(key, []).append(result)
        keys = [key for key in original if key in versions]
        compared = Sides(
            keys, [original[key] for key in keys], [_mean(versions[key]) for key in keys]
        )
    if not compared.original or not compared.paraphrased:
        raise ValueError(
            f"{pair.name}: got no item to compare, expected texts of at least ngram + 2 tokens in "
            "both files, the same items in both"
        )
    return compared


def _mean(versions: list[NgramAccuracy]) -> NgramAccuracy:
    accuracy = float(np.mean([m.accuracy for m in versions]))
    return NgramAccuracy(accuracy, float(np.mean([m.loss for m in versions])), [])


def judge_sets(
    pairs: Sequence[Pair],
    measured: Sequence[Measured],
    config: LeakageAudit,
    *,
    has_control: bool,
) -> list[Values]:
    """Returns the result of each set, as in leakage.json.

        {"name": "gsm8k", "verdict": "contaminated", "items": 1319, "left_out": 0, "paired": true,
         "unpaired_because": "", "paraphrased_by": "gsm8k_rewritten.jsonl", "overlap": 0.23,
         "original": {"accuracy": 0.31, "perplexity": 4.2},
         "paraphrased": {"accuracy": 0.12, "perplexity": 7.9},
         "delta": {"value": 0.19, "low": 0.17, "high": 0.21}, "excess": {...},
         "loss_delta": {"value": 0.63, ...}, "loss_excess": {...}}

    "overlap": share of the paraphrases' word 5-grams that also occur in their originals, see
    verdict.py. "loss_delta": nats per token that a paraphrase costs more than its original; this is
    the logarithm of the ratio of their perplexities. The verdict does not depend on it.

    Args:
      pairs: the sets; a control is the last one.
      measured: the results of each set.
      config: threshold, confidence, resamples and seed.
      has_control: whether the last set is a control.
    """
    compared = [sides(pair, results) for pair, results in zip(pairs, measured, strict=True)]
    deltas = _resample(pairs, compared, "accuracy", config)
    losses = [loss.negated() for loss in _resample(pairs, compared, "loss", config)]
    results = []
    for k, (pair, side) in enumerate(zip(pairs, compared, strict=True)):
        is_control = has_control and k == len(pairs) - 1
        control = -1 if has_control and not is_control else None
        excess = _excess(deltas, k, control).interval(config.confidence)
        items = min(
            len(results_of_side)
            for c in (side, compared[-1 if has_control else k])
            for results_of_side in (c.original, c.paraphrased)
        )
        share = mean_overlap(pair)
        set_verdict = verdict.judge(excess, config.threshold, items, share).value
        loss_excess = _excess(losses, k, control)
        results.append(
            {
                "name": pair.name,
                "verdict": "control" if is_control else set_verdict,
                "items": len(side.original),
                "left_out": len(pair.original) - len(side.original),
                "paired": not pair.unpaired_because,
                "unpaired_because": pair.unpaired_because,
                "paraphrased_by": pair.paraphrased_by,
                "overlap": share,
                "original": _summary(side.original),
                "paraphrased": _summary(side.paraphrased),
                "delta": deltas[k].interval(config.confidence)._asdict(),
                "excess": excess._asdict(),
                "loss_delta": losses[k].interval(config.confidence)._asdict(),
                "loss_excess": loss_excess.interval(config.confidence)._asdict(),
            }
        )
    return results


def mean_overlap(pair: Pair) -> float:
    """Returns the mean overlap of paraphrases with their originals; 0 if the set is not paired."""
    originals = {item.key: item.text for item in pair.original}
    shares = [
        paraphrase_by_rules.overlap(item.text, originals[item.key])
        for version in pair.paraphrased
        for item in version
        if item.key in originals
    ]
    return 0.0 if pair.unpaired_because else float(np.mean(shares))


def _resample(
    pairs: Sequence[Pair], compared: Sequence[Sides], field: str, config: LeakageAudit
) -> list[Resampled]:
    """Resamples the difference of a field of NgramAccuracy, in each set."""
    resampled = []
    for number, (pair, side) in enumerate(zip(pairs, compared, strict=True)):
        difference = verdict.unpaired if pair.unpaired_because else verdict.paired
        original = [getattr(m, field) for m in side.original]
        paraphrased = [getattr(m, field) for m in side.paraphrased]
        seed = (config.seed, number)
        resampled.append(difference(original, paraphrased, config.resamples, seed))
    return resampled


def _excess(deltas: Sequence[Resampled], k: int, control: int | None) -> Resampled:
    return deltas[k] if control is None else deltas[k].minus(deltas[control])


def _summary(side: Sequence[NgramAccuracy]) -> dict[str, float]:
    return {
        "accuracy": float(np.mean([m.accuracy for m in side])),
        "perplexity": ngrams.perplexity([m.loss for m in side]),
    }


def log(pairs: Sequence[Pair], measured: Sequence[Measured]) -> list[Values]:
    """Returns one line per compared item; of sets that are not paired, only the original side."""
    lines = []
    for pair, results in zip(pairs, measured, strict=True):
        side = sides(pair, results)
        for k, (key, original) in enumerate(zip(side.keys, side.original, strict=True)):
            line = {"set": pair.name, "key": key, "original": original.accuracy}
            line |= {"original_loss": original.loss}
            if not pair.unpaired_because:
                paraphrased = side.paraphrased[k]
                line |= {"paraphrased": paraphrased.accuracy, "paraphrased_loss": paraphrased.loss}
            lines.append(line)
    return lines


def table(results: Values) -> str:
    """Returns the sets as a table for the console; accuracies in percent, loss in nats per token.

    The excess of the control, and of every set without a control, is its delta.
    """
    head = ["set", "items", "original", "paraphrased", "delta", "excess"]
    head += ["perplexity", "loss delta", "loss excess", "overlap", "verdict"]
    rows = [head]
    for one in results["sets"]:
        both = (one["original"], one["paraphrased"])
        rows.append(
            [
                one["name"] + ("" if one["paired"] else " (unpaired)"),
                f"{one['items']:,}",
                *(f"{100 * side['accuracy']:.2f}" for side in both),
                f"{100 * one['delta']['value']:+.2f}",
                _interval_text(one["excess"], 100),
                " / ".join(f"{side['perplexity']:.1f}" for side in both),
                f"{one['loss_delta']['value']:+.2f}",
                _interval_text(one["loss_excess"], 1),
                f"{one['overlap']:.0%}",
                one["verdict"],
            ]
        )
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    left_aligned = (0, len(head) - 1)
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if c in left_aligned else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _interval_text(interval: dict[str, float], unit: float) -> str:
    value, low, high = (unit * interval[name] for name in ("value", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"

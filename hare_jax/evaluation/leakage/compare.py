"""Original items against rewritten ones: what leakage.json says of each set."""

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
# Of the original items, then of each version of the rewritten ones; None where a text is too short.
Answers = Sequence[Sequence[Sequence[Any] | None]]


@dataclass(slots=True)
class Sides:
    """What is compared. `keys`: of the original items; where paired, lists go in their order."""

    keys: list[str]
    original: list[NgramAccuracy]
    rewritten: list[NgramAccuracy]  # of an item with several versions their mean


def sides(pair: Pair, measured: Answers) -> Sides:
    """Raises ValueError where no item is left to compare."""
    original = {
        item.key: NgramAccuracy(*answer)
        for item, answer in zip(pair.original, measured[0], strict=True)
        if answer is not None
    }
    rewritten = [
        (item.key, NgramAccuracy(*answer))
        for version, answers in zip(pair.rewritten, measured[1:], strict=True)
        for item, answer in zip(version, answers, strict=True)
        if answer is not None
    ]
    if pair.unpaired:
        kept = Sides(list(original), list(original.values()), [m for _, m in rewritten])
    else:
        told: dict[str, list[NgramAccuracy]] = {}
        for key, answer in rewritten:
            told.setdefault(key, []).append(answer)
        keys = [key for key in original if key in told]
        kept = Sides(keys, [original[key] for key in keys], [_mean(told[key]) for key in keys])
    if not kept.original or not kept.rewritten:
        raise ValueError(
            f"{pair.name}: got no item to compare, expected texts of at least ngram + 2 tokens in "
            "both files, the same items in both"
        )
    return kept


def _mean(versions: list[NgramAccuracy]) -> NgramAccuracy:
    accuracy = float(np.mean([m.accuracy for m in versions]))
    return NgramAccuracy(accuracy, float(np.mean([m.loss for m in versions])), [])


def judged(
    pairs: Sequence[Pair],
    measured: Sequence[Answers],
    config: LeakageAudit,
    *,
    has_control: bool,
) -> list[Values]:
    """The result of each set; the control, where there is one, comes last.

        {"name": "gsm8k", "verdict": "contaminated", "items": 1319, "left_out": 0, "paired": true,
         "unpaired_because": "", "rewritten_by": "gsm8k_rewritten.jsonl", "copied": 0.23,
         "original": {"accuracy": 0.31, "perplexity": 4.2},
         "rewritten": {"accuracy": 0.12, "perplexity": 7.9},
         "delta": {"value": 0.19, "low": 0.17, "high": 0.21}, "excess": {...},
         "loss_delta": {"value": 0.63, ...}, "loss_excess": {...}}

    `copied`: share of the rewritings' word 5-grams that their originals have, too; see verdict.py.
    `loss_delta`: nats a token that the rewritten text costs more than the original, which is the
    logarithm of the ratio of their perplexities. The verdict does not depend on it.
    """
    compared = [sides(pair, answers) for pair, answers in zip(pairs, measured, strict=True)]
    together = list(zip(pairs, compared, strict=True))
    deltas = [_resampled(p, side, "accuracy", config, k) for k, (p, side) in enumerate(together)]
    losses = [
        _resampled(p, side, "loss", config, k).negated() for k, (p, side) in enumerate(together)
    ]
    results = []
    for k, (pair, side) in enumerate(together):
        is_control = has_control and k == len(pairs) - 1
        against = -1 if has_control and not is_control else None
        interval = _excess(deltas, k, against).interval(config.confidence)
        count = min(
            len(s)
            for c in (side, compared[-1 if has_control else k])
            for s in (c.original, c.rewritten)
        )
        share = copied(pair)
        said = verdict.judge(interval, config.threshold, count, share).value
        results.append(
            {
                "name": pair.name,
                "verdict": "control" if is_control else said,
                "items": len(side.original),
                "left_out": len(pair.original) - len(side.original),
                "paired": not pair.unpaired,
                "unpaired_because": pair.unpaired,
                "rewritten_by": pair.made_by,
                "copied": share,
                "original": _summary(side.original),
                "rewritten": _summary(side.rewritten),
                "delta": deltas[k].interval(config.confidence)._asdict(),
                "excess": interval._asdict(),
                "loss_delta": losses[k].interval(config.confidence)._asdict(),
                "loss_excess": _excess(losses, k, against).interval(config.confidence)._asdict(),
            }
        )
    return results


def copied(pair: Pair) -> float:
    """The mean over rewritings; 0 where it is not known what they are rewritings of."""
    originals = {item.key: item.text for item in pair.original}
    shares = [
        paraphrase_by_rules.copied(item.text, originals[item.key])
        for version in pair.rewritten
        for item in version
        if item.key in originals
    ]
    return 0.0 if pair.unpaired else float(np.mean(shares))


def _excess(deltas: Sequence[Resampled], k: int, against: int | None) -> Resampled:
    return deltas[k] if against is None else deltas[k].minus(deltas[against])


def _resampled(pair: Pair, side: Sides, value: str, config: LeakageAudit, number: int) -> Resampled:
    difference = verdict.unpaired if pair.unpaired else verdict.paired
    return difference(
        [getattr(m, value) for m in side.original],
        [getattr(m, value) for m in side.rewritten],
        config.resamples,
        (config.seed, number),
    )


def _summary(side: Sequence[NgramAccuracy]) -> dict[str, float]:
    return {
        "accuracy": float(np.mean([m.accuracy for m in side])),
        "perplexity": ngrams.perplexity([m.loss for m in side]),
    }


def log(pairs: Sequence[Pair], measured: Sequence[Answers]) -> list[Values]:
    """A line an item that was compared; of sets that are not paired, of the original items."""
    lines = []
    for pair, answers in zip(pairs, measured, strict=True):
        side = sides(pair, answers)
        for k, (key, original) in enumerate(zip(side.keys, side.original, strict=True)):
            line = {"set": pair.name, "key": key, "original": original.accuracy}
            line |= {"original_loss": original.loss}
            if not pair.unpaired:
                told = side.rewritten[k]
                line |= {"rewritten": told.accuracy, "rewritten_loss": told.loss}
            lines.append(line)
    return lines


def table(results: Values) -> str:
    """The sets as lines to be read; accuracies in percent, loss in nats a token.

    Of the control, and without one, excess is delta.
    """
    head = ["set", "items", "original", "rewritten", "delta", "excess"]
    head += ["perplexity", "loss delta", "loss excess", "copied", "verdict"]
    rows = [head]
    for one in results["sets"]:
        both = (one["original"], one["rewritten"])
        rows.append(
            [
                one["name"] + ("" if one["paired"] else " (unpaired)"),
                f"{one['items']:,}",
                *(f"{100 * side['accuracy']:.2f}" for side in both),
                f"{100 * one['delta']['value']:+.2f}",
                _shown(one["excess"], 100),
                " / ".join(f"{side['perplexity']:.1f}" for side in both),
                f"{one['loss_delta']['value']:+.2f}",
                _shown(one["loss_excess"], 1),
                f"{one['copied']:.0%}",
                one["verdict"],
            ]
        )
    widths = [max(len(row[c]) for row in rows) for c in range(len(head))]
    left = (0, len(head) - 1)
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(w) if c in left else cell.rjust(w)
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _shown(interval: dict[str, float], unit: float) -> str:
    value, low, high = (unit * interval[name] for name in ("value", "low", "high"))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"

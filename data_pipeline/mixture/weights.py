"""Weights of mixtures: checks, the division of a tier's weight among its sources, and epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipeline.config_problems import Problems, check_known

Weights = dict[str, float]


def check_weights(
    mixtures: Mapping[str, Mapping[str, float]],
    tier_of: Mapping[str, str] | None,
    problems: Problems,
) -> None:
    """Checks that weights are finite numbers >= 0, and that they are of known sources.

    Args:
      mixtures: name -> {source or tier: weight}.
      tier_of: the tier of each of the recipe's sources; None if they are not known yet.
      problems: of the mixtures.
    """
    for mixture, weights in mixtures.items():
        for name, weight in weights.items():
            is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not is_number or not (math.isfinite(weight) and weight >= 0):
                problems.add(f"[{mixture!r}][{name!r}]", weight, "a weight >= 0")
        if not any(weights.values()):
            problems.add(f"[{mixture!r}]", dict(weights), "at least one weight above 0")
        if tier_of is not None:
            _check_names(mixture, weights, tier_of, problems)


def _check_names(
    mixture: str, weights: Mapping[str, float], tier_of: Mapping[str, str], problems: Problems
) -> None:
    """Checks that the names of a mixture are sources, or tiers with sources of their own."""
    tiers = sorted(set(tier_of.values()))
    check_known(
        problems,
        f"[{mixture!r}]",
        weights,
        [*tier_of, *tiers],
        "source or tier of the recipe",
        "--config.data.allow_missing=True drops such names and gives their weight to the others",
    )
    for tier in tiers:
        sources = [name for name, its_tier in tier_of.items() if its_tier == tier]
        if tier in weights and set(sources) <= set(weights):
            expected = f"a tier or each of its sources ({', '.join(sources)}), not both"
            problems.add(f"[{mixture!r}]", tier, expected)


def resolve_weights(
    mixtures: Mapping[str, Mapping[str, float]],
    sources: Sequence[Mapping[str, Any]],
    *,
    allow_missing: bool = False,
    note: Callable[[str], object] = print,
) -> dict[str, Weights]:
    """Returns the weight of each source in each mixture; those of a mixture sum to 1.

    A tier's weight is divided, in proportion to their tokens, among those of its sources that the
    mixture does not name. A source without tokens gets no share of its tier's weight. The weight of
    a tier without any tokens is given to the others.

    >>> web, code = ({"name": n, "tier": "D1", "tokens": t} for n, t in [("web", 30), ("code", 10)])
    >>> qa = {"name": "qa", "tier": "D3", "tokens": 5}
    >>> resolve_weights({"stage2": {"D1": 8, "qa": 2}}, [web, code, qa])
    {'stage2': {'web': 0.6, 'code': 0.2, 'qa': 0.2}}

    Args:
      mixtures: name -> {source or tier: weight}.
      sources: {"name", "tier", "tokens"} for each source.
      allow_missing: also gives the weight of sources without tokens, and of unknown names, to the
        others.
      note: called with a line for each weight that was moved.

    Raises:
      ValueError: a source has a weight but no tokens; a name is neither a source nor the tier of
        one; a mixture names a tier and each of its sources; nothing is left of it; a weight is
        not a finite number >= 0.
    """
    problems = Problems("mixtures")
    check_weights(mixtures, None, problems)
    problems.raise_if_any()
    tokens = {source["name"]: source["tokens"] for source in sources}
    tiers: dict[str, list[str]] = {}
    for source in sources:
        tiers.setdefault(source["tier"], []).append(source["name"])
    resolved = {}
    for mixture, wanted in mixtures.items():
        weights = dict.fromkeys(tokens, 0.0)
        left_out = {}
        for name, weight in wanted.items():
            sharing = _sharing(mixture, name, wanted, tokens, tiers, allow_missing)
            total = sum(tokens[member] for member in sharing)
            if weight and not total:
                if name in tokens and not allow_missing:
                    raise ValueError(
                        f"mixture {mixture!r} gives {name!r} weight {weight:g}, but none of its "
                        "documents was kept: the report shows why they were dropped. Remove it "
                        "from the mixture, or give its weight to the others by "
                        "--config.data.allow_missing=True"
                    )
                left_out[name] = weight
                continue
            if weight and (empty := [member for member in sharing if not tokens[member]]):
                note(
                    f"mixture {mixture!r}: no document of {', '.join(empty)} was kept; the other "
                    f"sources of {name} take over their share"
                )
            for member in sharing:
                weights[member] += weight * tokens[member] / max(total, 1)
        total_weight = math.fsum(weights.values())
        if not total_weight:
            raise ValueError(
                f"mixture {mixture!r} is empty: none of {sorted(wanted)} has both tokens and a "
                "weight above 0"
            )
        if left_out:
            note(_renormalized(mixture, left_out, total_weight))
        resolved[mixture] = {s: w / total_weight for s, w in weights.items() if w}
    return resolved


def _sharing(
    mixture: str,
    name: str,
    wanted: Mapping[str, float],
    tokens: Mapping[str, int],
    tiers: Mapping[str, list[str]],
    allow_missing: bool,
) -> list[str]:
    """Returns the sources that a name of a mixture refers to."""
    if name in tokens:
        return [name]
    if name not in tiers:
        if allow_missing:
            return []
        raise ValueError(
            f"mixture {mixture!r} names {name!r}; expected one of the sources {sorted(tokens)} "
            f"or the tiers {sorted(tiers)}"
        )
    sharing = [member for member in tiers[name] if member not in wanted]
    if not sharing:
        raise ValueError(
            f"mixture {mixture!r} names tier {name!r} and also each of its sources "
            f"{tiers[name]}: remove one of the sources, or the tier"
        )
    return sharing


def _renormalized(mixture: str, left_out: Mapping[str, float], kept: float) -> str:
    """Returns a line about the weight of dropped names.

    >>> print(_renormalized("stage1", {"books": 3.0}, 9.0))
    mixture 'stage1': dropped books (3): no text; the other weights are multiplied by 1.333
    """
    names = ", ".join(f"{name} ({weight:g})" for name, weight in left_out.items())
    total = kept + math.fsum(left_out.values())
    return (
        f"mixture {mixture!r}: dropped {names}: no text; the other weights are multiplied by "
        f"{total / kept:.4g}"
    )


def table(
    mixtures: Mapping[str, Weights],
    sources: Sequence[Mapping[str, Any]],
    budgets: Mapping[str, float],
) -> list[str]:
    """Returns the lines of a table: tier, tokens, share and epochs of each source of each mixture.

    Args:
      mixtures: name -> {source: weight}; the weights of a mixture sum to 1.
      sources: {"name", "tier", "tokens"} for each source.
      budgets: mixture -> tokens taken from it; without a budget there is no column of epochs.

    >>> web = {"name": "web", "tier": "D1", "tokens": 2_000_000}
    >>> print(*table({"stage1": {"web": 1.0}}, [web], {"stage1": 5e6}), sep=chr(10))
    stage1, 5.00 M tokens    tier     tokens    share  epochs
      web                    D1       2.00 M  100.00%    2.50
    """
    by_name = {source["name"]: source for source in sources}
    lines = []
    for mixture, weights in mixtures.items():
        budget = budgets.get(mixture, 0.0)
        title = f"{mixture}, {amount(budget)} tokens" if budget else mixture
        heads = f"{'tier':<4} {'tokens':>10} {'share':>8}" + (f" {'epochs':>7}" if budget else "")
        lines.append(f"{title:<24} {heads}")
        for name, share in sorted(weights.items(), key=lambda pair: -pair[1]):
            source = by_name[name]
            line = f"  {name:<22} {source['tier']:<4} {amount(source['tokens']):>10} {share:>8.2%}"
            if budget:
                line += f" {share * budget / source['tokens']:>7.2f}"
            lines.append(line)
    return lines


def amount(count: float) -> str:
    """Returns a count in short form.

    >>> amount(52e9), amount(1234)
    ('52.00 B', '1.23 k')
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f}"

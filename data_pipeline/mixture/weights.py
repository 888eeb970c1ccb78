"""The weights of a mixture: checked, shared out from tiers to sources, shown with the epochs."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from data_pipeline.config import Tier

Weights = dict[str, float]


def check_weights(
    mixtures: Mapping[str, Mapping[str, float]], known: Collection[str] | None = None
) -> None:
    """What can be known to be wrong before any work: raises ValueError with all of it.

    A weight that is not a finite number >= 0; a mixture without a weight above 0; a name that is
    neither a tier nor in `known` (None: nothing is known of the names).
    """
    wrong, unknown = [], []
    for mixture, wanted in mixtures.items():
        for name, weight in wanted.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                wrong.append(f"mixture {mixture!r} weighs {name!r} by {weight!r}; expected >= 0")
            elif not (math.isfinite(weight) and weight >= 0):
                wrong.append(f"mixture {mixture!r} weighs {name!r} by {weight}; expected >= 0")
            if known is not None and name not in known and name not in {t.value for t in Tier}:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
                unknown.append(
                    f"mixture {mixture!r} names {name!r}, which no source of the recipe is{hint}"
                )
        if not any(wanted.values()):
            wrong.append(f"mixture {mixture!r} is empty: none of {sorted(wanted)} has a weight")
    if unknown:
        unknown.append(
            "such names are left out, and the others take their weight over, by "
            "--config.data.allow_missing=True"
        )
    if wrong or unknown:
        raise ValueError("\n  ".join([*wrong, *unknown]))


def resolve_weights(
    mixtures: Mapping[str, Mapping[str, float]],
    sources: Sequence[Mapping[str, Any]],
    *,
    allow_missing: bool = False,
    note: Callable[[str], object] = print,
) -> dict[str, Weights]:
    """Weights of sources out of weights of sources and tiers; those of a mixture sum to 1.

    A tier's weight is shared, in proportion to their tokens, by those of its sources that the
    mixture does not name. `sources`: {"name", "tier", "tokens"} each.

    >>> web, code = ({"name": n, "tier": "D1", "tokens": t} for n, t in [("web", 30), ("code", 10)])
    >>> qa = {"name": "qa", "tier": "D3", "tokens": 5}
    >>> resolve_weights({"stage2": {"D1": 8, "qa": 2}}, [web, code, qa])
    {'stage2': {'web': 0.6, 'code': 0.2, 'qa': 0.2}}

    A source that lost its tokens has no share in its tier's weight. A tier all of whose sources did
    is left out, and the others take its weight over;
    with `allow_missing` also a source without tokens, and a name that is not there at all. `note`
    is told what was left out and what became of the weights.

    Raises ValueError for what else has a weight and no tokens, a name that is neither a source nor
    the tier of one, a tier all of whose sources the mixture names itself, a mixture of which
    nothing is left, and as `check_weights`.
    """
    check_weights(mixtures)
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
                        f"mixture {mixture!r} weighs {name!r} by {weight:g}, but no document of it "
                        "is left: see in the report where they went, take it out of the mixture, "
                        "or let the others take its weight over by --config.data.allow_missing=True"
                    )
                left_out[name] = weight
                continue
            if weight and (empty := [member for member in sharing if not tokens[member]]):
                note(
                    f"mixture {mixture!r}: no document of {', '.join(empty)} is left, the other "
                    f"sources of {name} take their share over"
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
    """The sources that a name of a mixture stands for."""
    if name in tokens:
        return [name]
    if name not in tiers:
        if allow_missing:
            return []
        raise ValueError(
            f"mixture {mixture!r} names {name!r}; there are the sources {sorted(tokens)} "
            f"and the tiers {sorted(tiers)}"
        )
    sharing = [member for member in tiers[name] if member not in wanted]
    if not sharing:
        raise ValueError(
            f"mixture {mixture!r} weighs tier {name!r}, but names each of its sources "
            f"{tiers[name]} too: leave one of them out, or the tier"
        )
    return sharing


def _renormalized(mixture: str, left_out: Mapping[str, float], kept: float) -> str:
    """
    >>> _renormalized("stage1", {"books": 3.0}, 9.0)
    "mixture 'stage1' goes without books (3), no text of them is there: 9 of 12 are left, \
and the weights of the others are multiplied by 1.333"
    """
    names = ", ".join(f"{name} ({weight:g})" for name, weight in left_out.items())
    total = kept + math.fsum(left_out.values())
    return (
        f"mixture {mixture!r} goes without {names}, no text of them is there: {kept:g} of "
        f"{total:g} are left, and the weights of the others are multiplied by {total / kept:.4g}"
    )


def table(
    mixtures: Mapping[str, Weights],
    sources: Sequence[Mapping[str, Any]],
    budgets: Mapping[str, float],
) -> list[str]:
    """Lines to print: of each mixture the sources with tier, tokens, share and, where the mixture
    has a budget in tokens, how often each source is repeated for it.

    >>> web = {"name": "web", "tier": "D1", "tokens": 2_000_000}
    >>> print(*table({"stage1": {"web": 1.0}}, [web], {"stage1": 5e6}), sep="\\n")
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
    """
    >>> amount(52e9), amount(1234)
    ('52.00 B', '1.23 k')
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f}"

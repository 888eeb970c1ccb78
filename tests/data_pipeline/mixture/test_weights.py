"""Weights: what is wrong with them is said, what tiers hold is shared, what is missing is told."""

from __future__ import annotations

import doctest
import math
from typing import Any

import pytest

from data_pipeline.config_problems import Problems
from data_pipeline.mixture import weights
from data_pipeline.mixture.weights import check_weights, resolve_weights, table


def rows(**tokens: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": n, "tier": tier, "tokens": count} for n, (tier, count) in tokens.items()]


ROWS = rows(web=("D1", 300), code=("D1", 100), qa=("D3", 50))
WITH_EMPTY = [*ROWS, *rows(news=("D1", 0), synthetic=("D2", 0))]


def test_a_tier_is_shared_by_tokens() -> None:
    got = resolve_weights({"m": {"D1": 4, "D3": 1}}, ROWS)
    assert got == {"m": pytest.approx({"web": 0.6, "code": 0.2, "qa": 0.2})}


def test_a_tier_leaves_out_the_sources_that_are_named() -> None:
    got = resolve_weights({"m": {"D1": 1, "web": 2, "qa": 1}}, ROWS)
    assert got == {"m": pytest.approx({"web": 0.5, "code": 0.25, "qa": 0.25})}


def test_a_tier_without_tokens_is_dropped_and_reported() -> None:
    told: list[str] = []
    got = resolve_weights({"m": {"D1": 4, "D2": 9, "qa": 0}}, WITH_EMPTY, note=told.append)
    assert got == {"m": pytest.approx({"web": 0.75, "code": 0.25})}
    assert told == [
        "mixture 'm': no document of news was kept; the other sources of D1 take over their share",
        "mixture 'm': dropped D2 (9): no text; the other weights are multiplied by 3.25",
    ]


def test_a_source_that_lost_all_its_documents_is_an_error_unless_allowed() -> None:
    mixtures = {"m": {"web": 1, "news": 3}}
    with pytest.raises(
        ValueError, match="gives 'news' weight 3, but none of its documents was kept"
    ):
        resolve_weights(mixtures, WITH_EMPTY)
    told: list[str] = []
    got = resolve_weights(mixtures, WITH_EMPTY, allow_missing=True, note=told.append)
    assert got == {"m": {"web": 1.0}}
    assert "dropped news (3)" in told[0] and "multiplied by 4" in told[0]


def test_a_weight_of_zero_asks_for_nothing() -> None:
    assert resolve_weights({"m": {"web": 1, "news": 0}}, WITH_EMPTY) == {"m": {"web": 1.0}}


def test_missing_sources_leave_the_proportions_of_the_others() -> None:
    whole = {"web": 46.5, "code": 13.63, "books": 20.0, "D2": 19.87}
    told: list[str] = []
    got = resolve_weights({"m": whole}, ROWS, allow_missing=True, note=told.append)["m"]
    assert got["web"] / got["code"] == pytest.approx(46.5 / 13.63)
    assert math.fsum(got.values()) == pytest.approx(1)
    factor = float(told[0].rsplit(" ", 1)[1])
    assert got["web"] == pytest.approx(whole["web"] / 100 * factor, rel=1e-3)
    assert "books (20), D2 (19.87)" in told[0]


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (
            {"wiki": 1},
            r"mixture 'm' names 'wiki'; expected one of the sources \['code', 'qa', 'web'\]",
        ),
        ({"D2": 1}, "mixture 'm' names 'D2'"),
        ({"D3": 1, "qa": 1}, r"mixture 'm' names tier 'D3' and also each of its sources \['qa'\]"),
        ({"web": -1}, r"mixtures\['m'\]\['web'\]: got -1, expected a weight >= 0"),
        ({"web": float("nan")}, r"\['web'\]: got nan"),
        ({"web": float("inf")}, r"\['web'\]: got inf"),
        ({"web": "1"}, r"\['web'\]: got '1'"),
        ({"web": True}, r"\['web'\]: got True"),
        ({"web": 0}, r"mixtures\['m'\]: got {'web': 0}, expected at least one weight above 0"),
        ({}, r"mixtures\['m'\]: got {}, expected at least one weight above 0"),
    ],
)
def test_refuses_wrong_weights(mixture: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_weights({"m": mixture}, ROWS)


def test_nothing_left_is_an_error_even_where_missing_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"'m' is empty: none of \['books'\]"):
        resolve_weights({"m": {"books": 1}}, ROWS, allow_missing=True)


def test_all_errors_are_listed_at_once() -> None:
    mixtures = {"a": {"wbe": 1, "D1": 1}, "b": {"code": -1}}
    problems = Problems("mixtures")
    check_weights(mixtures, {"web": "D1", "code": "D1"}, problems)
    unknown, negative = problems.messages
    assert unknown.startswith("mixtures['a']: got 'wbe', expected a source or tier of the recipe")
    assert "Did you mean 'web'?" in unknown
    assert negative == "mixtures['b']['code']: got -1, expected a weight >= 0"
    known_later = Problems("mixtures")
    check_weights({"a": {"anything": 1}}, None, known_later)
    assert not known_later


def test_a_tier_without_sources_of_its_own_is_refused() -> None:
    problems = Problems("mixtures")
    check_weights({"a": {"web": 1, "D1": 1}, "b": {"D2": 1}}, {"web": "D1"}, problems)
    both, missing = problems.messages
    assert both == "mixtures['a']: got 'D1', expected a tier or each of its sources (web), not both"
    assert missing.startswith("mixtures['b']: got 'D2', expected a source or tier of the recipe")


def test_the_table_shows_shares_and_epochs() -> None:
    resolved = resolve_weights({"m": {"D1": 3, "qa": 1}}, ROWS)
    lines = table(resolved, ROWS, {"m": 1000})
    assert lines[0].startswith("m, 1.00 k tokens")
    by_name = {line.split()[0]: line.split() for line in lines[1:]}
    # 1000 tokens, a quarter of them from 50: five times over.
    assert by_name["qa"] == ["qa", "D3", "50", "25.00%", "5.00"]
    assert by_name["web"][-1] == "1.88"
    assert "epochs" not in "".join(table(resolved, ROWS, {}))


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(weights).failed == 0

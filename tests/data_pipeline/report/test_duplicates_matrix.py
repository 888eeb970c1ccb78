"""The sources of the matrix of duplicates."""

from __future__ import annotations

from collections import Counter

from data_pipeline.report import drops

SOURCES = [f"s{k:02}" for k in range(30)]


def test_sources_with_copies_in_others_are_preferred() -> None:
    number = Counter({(source, source): 1000 + k for k, source in enumerate(SOURCES)})
    number["s03", "s07"] = 1
    shown = drops._matrix_sources(number, SOURCES)
    assert len(shown) == drops.MAX_MATRIX_SOURCES
    assert {"s03", "s07"} < set(shown)
    assert {"s29", "s28", "s27"} < set(shown)
    assert shown == sorted(shown), "in the order of the legend"


def test_a_few_sources_are_all_shown() -> None:
    number = Counter({("s01", "s01"): 1, ("s02", "s00"): 1})
    assert drops._matrix_sources(number, SOURCES) == ["s00", "s01", "s02"]

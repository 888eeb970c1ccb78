"""The report's second half: what was mixed, how training went, what the model can do.

Everything comes from JSON files that bake, training and evaluation wrote; none needs to be there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.report import charts
from data_pipeline.report.charts import Dot, DotRow, Line

MANY_EPOCHS = 4.0  # from here on repeated text is worth less than new text (arXiv 2305.16264)
CONFIDENT = 1.96  # standard errors on each side hold the true value in 95 of 100 cases
ALL = "all"  # the row of evaluation.json over everything
TRAINED, UNTRAINED = "trained", "untrained"


class Scoring(NamedTuple):
    """A way to choose among the choices of an item, and its keys in evaluation.json."""

    name: str
    accuracy: str
    stderr: str


# The first is the one that tells small models apart: it goes into the headline and the picture.
SCORINGS = (
    Scoring("mutual information", "accuracy_mutual_info", "stderr_mutual_info"),
    Scoring("log-likelihood", "accuracy", "stderr"),
    Scoring("log-likelihood a byte", "accuracy_norm", "stderr_norm"),
)


def read_json(path: Path) -> Any:
    """The value of a JSON file, or None if it is not there. ValueError names a damaged one."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Delete it and run again.") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows by step. A run that was killed and continued has logged some steps twice, and may have
    left a line unfinished, whose step it then logged again: the last row of a step counts."""
    rows: dict[int, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
                rows[row["step"]] = row
            except (ValueError, KeyError, TypeError):
                continue
    return [rows[step] for step in sorted(rows)]


def probe(directory: Path) -> dict[str, Any] | None:
    """Recall on planted leaks as a table: kinds by benchmarks."""
    value = read_json(directory / "probe.json")
    if value is None:
        return None
    results = value["results"]
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in results))
    kinds = list(dict.fromkeys(row["kind"] for row in results))
    cells = {(row["kind"], row["benchmark"]): row for row in results}
    return {
        "benchmarks": benchmarks,
        "rows": [{"kind": k, "cells": [cells.get((k, b)) for b in benchmarks]} for k in kinds],
        "planted": sum(row["planted"] for row in results),
        "found": sum(row["found"] for row in results),
        "generic": sum(row.get("generic", 0) for row in results),
        "false_positives": value["false_positives"],
    }


@dataclass(slots=True)
class Results:
    """The files as they are; None or empty where there is none."""

    mixture: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        mixture: Path | None,
        held_out: Path | None,
        training: Path | None,
        evaluation: Path | None,
    ) -> Results:
        results = cls()
        if mixture:
            results.mixture = read_json(mixture)
        if held_out:
            results.held_out = read_json(held_out)
        if training:
            results.plan = read_json(training / "plan.json")
            results.config = read_json(training / "config.json")
            results.metrics = read_metrics(training / "metrics.jsonl")
        if evaluation:
            results.evaluation = read_json(evaluation / "evaluation.json")
            results.samples = read_json(evaluation / "samples.json") or []
        return results

    @property
    def fingerprints(self) -> list[tuple[str, str]]:
        """What names the data and the tokenizer, as far as they are there."""
        named = [
            ("mixture", (self.mixture or {}).get("fingerprint")),
            ("held-out documents", (self.held_out or {}).get("fingerprint")),
            ("tokenizer", (self.mixture or {}).get("tokenizer", {}).get("sha256")),
            ("evaluation", (self.evaluation or {}).get("fingerprint")),
        ]
        return [(name, value) for name, value in named if value]

    # ---- the mixture

    @property
    def sources(self) -> list[dict[str, Any]]:
        return self.mixture["sources"] if self.mixture else []

    def source(self, name: str) -> dict[str, Any] | None:
        return next((source for source in self.sources if source["name"] == name), None)

    @property
    def tokens(self) -> int:
        return sum(source["tokens"] for source in self.sources)

    @property
    def mixtures(self) -> list[dict[str, Any]]:
        """For each mixture the share, and with a plan the epochs, of each of its sources."""
        stages = {stage["mixture"]: stage for stage in (self.plan or {}).get("stages", [])}
        found = []
        for name, weights in (self.mixture or {}).get("mixtures", {}).items():
            stage = stages.get(name)
            planned = {row["name"]: row for row in stage["sources"]} if stage else {}
            whole = math.fsum(weights.values()) or 1.0
            rows = [
                {
                    "name": source["name"],
                    "tier": source["tier"],
                    "share": weights[source["name"]] / whole,
                    "available": source["tokens"],
                    "tokens": planned.get(source["name"], {}).get("tokens"),
                    "epochs": planned.get(source["name"], {}).get("epochs"),
                }
                for source in self.sources
                if weights.get(source["name"])
            ]
            most = max((row["share"] for row in rows), default=1.0)
            found.append({"name": name, "rows": rows, "stage": stage, "most": most})
        return found

    @property
    def many_epochs(self) -> list[tuple[str, str, float]]:
        """(stage, source, epochs) of text that is repeated too often."""
        return [
            (stage["name"], row["name"], row["epochs"])
            for stage in (self.plan or {}).get("stages", [])
            for row in stage["sources"]
            if row["epochs"] > MANY_EPOCHS
        ]

    # ---- training

    @property
    def seconds(self) -> float:
        """Of training itself, from the logged speeds; compilation and checkpoints not counted."""
        before, total = 0, 0.0
        for row in self.metrics:
            if row.get("tokens_per_second"):
                total += (row["tokens"] - before) / row["tokens_per_second"]
            before = row["tokens"]
        return total

    def loss_chart(self) -> str:
        points = _points(self.metrics, "loss")
        if not points:
            return ""
        return charts.lines(
            [Line("loss", points, "m2", faint=True)],
            title=f"Training loss by step, from {points[0][1]:.2f} to {points[-1][1]:.2f}",
            x_label="step",
            marks=self._stage_marks(),
            heading="nats a token",
        )

    def _stage_marks(self) -> list[tuple[float, str]]:
        first: dict[str, float] = {}
        for row in self.metrics:
            first.setdefault(row["stage"], row["step"])
        return [(step, name) for name, step in first.items()]

    def source_charts(self, colors: dict[str, str]) -> list[str]:
        """A small picture for each source, all on one scale."""
        points = {
            name: _points(
                [{"step": row["step"], **row.get("source_loss", {})} for row in self.metrics], name
            )
            for name in colors
        }
        points = {name: p for name, p in points.items() if p}
        if not points:
            return []
        values = sorted(y for p in points.values() for _, y in p)
        steps = (self.metrics[0]["step"], self.metrics[-1]["step"])
        return [
            charts.lines(
                [Line(name, p, colors[name], faint=True)],
                title=f"Loss on {name} by step, from {p[0][1]:.2f} to {p[-1][1]:.2f}",
                marks=[(step, "") for step, _ in self._stage_marks()[1:]],
                x_range=steps,
                y_range=(values[0], values[-1]),
                width=300,
                height=150,
                heading=name,
            )
            for name, p in points.items()
        ]

    def pace_charts(self) -> list[str]:
        return [
            charts.lines(
                [Line(key, points, "m1")],
                title=f"{title} by step",
                x_label="step",
                marks=self._stage_marks(),
                y_range=(0, 1.1 * max(y for _, y in points) or 1),
                width=460,
                height=190,
                heading=title,
            )
            for key, title in (
                ("learning_rate", "Learning rate"),
                ("tokens_per_second", "Tokens/s"),
            )
            if (points := _points(self.metrics, key))
        ]

    # ---- evaluation

    @property
    def models(self) -> list[str]:
        return list(self.evaluation["models"]) if self.evaluation else []

    def model_class(self, model: str) -> str:
        return f"m{self.models.index(model) % 3}"

    def row_over_all(self, table: str, key: str) -> dict[str, Any] | None:
        rows = (self.evaluation or {}).get(table, [])
        return next((row for row in rows if row[key] == ALL), None)

    @property
    def gained(self) -> dict[str, Any] | None:
        """The held-out row over everything, if it compares training with none."""
        row = self.row_over_all("heldout", "source")
        return row if row and {TRAINED, UNTRAINED} <= row["loss"].keys() else None

    @property
    def answered(self) -> dict[str, Any] | None:
        row = self.row_over_all("tasks", "task")
        return row if row and TRAINED in row[SCORINGS[0].accuracy] else None

    @property
    def scorings(self) -> Sequence[Scoring]:
        return SCORINGS

    def loss_dots(self) -> str:
        rows = (self.evaluation or {})["heldout"]
        return charts.dots(
            [
                DotRow(row["source"], self._dots(row, "loss", "stderr", "{:.2f} nats a token"))
                for row in rows
            ],
            title="Held-out loss by source and model, with 95 % intervals; lower is better",
            x_label="nats a token (less is better)",
            percent=False,
        )

    def accuracy_dots(self) -> str:
        rows = (self.evaluation or {})["tasks"]
        scoring = SCORINGS[0]
        return charts.dots(
            [
                DotRow(
                    row["task"].replace("_", " "),
                    self._dots(row, scoring.accuracy, scoring.stderr, "{:.1%}"),
                    mark=row.get("chance"),
                )
                for row in rows
            ],
            title="Accuracy by task and model, with 95 % intervals, and the accuracy of guessing",
            x_label="items answered right (more is better)",
            percent=True,
        )

    def _dots(self, row: dict[str, Any], key: str, stderr_key: str, said: str) -> Sequence[Dot]:
        dots = []
        for model in self.models:
            value, stderr = row[key].get(model), row[stderr_key].get(model) or 0.0
            if value is not None:
                label = f"{model}: {said.format(value)} ± {said.format(CONFIDENT * stderr)}"
                dots.append(Dot(value, CONFIDENT * stderr, self.model_class(model), label))
        return dots


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) where there is a number: a run that diverged logs NaN."""
    return [
        (row["step"], row[key])
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]

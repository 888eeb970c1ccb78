"""The mixture, training and evaluation of a run, read from their JSON files; any may be missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.report import charts
from data_pipeline.report.charts import Dot, DotRow, Frame, Line

# Up to four epochs, repeated text has nearly the value of new text (arXiv 2305.16264).
MAX_EPOCHS = 4.0
Z_95 = 1.96  # standard errors on each side of a 95 % confidence interval
ALL = "all"  # the row of evaluation.json over all sources or tasks
TRAINED, UNTRAINED = "trained", "untrained"


class Scoring(NamedTuple):
    """A rule that selects one choice of an item, and its keys in evaluation.json."""

    name: str
    accuracy: str
    stderr: str


# The first one separates small models best. The headline and the chart use it.
SCORINGS = (
    Scoring("mutual information", "accuracy_mutual_info", "stderr_mutual_info"),
    Scoring("log-likelihood", "accuracy", "stderr"),
    Scoring("log-likelihood per byte", "accuracy_norm", "stderr_norm"),
)


def read_json(path: Path) -> Any:
    """Returns the value of a JSON file, or None if it does not exist.

    Raises:
      ValueError: the file is not valid JSON; the message names it.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. Delete it and run the same command again."
        ) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, one per step, ordered by step; [] if it does not exist.

    A run that was killed and resumed may have logged a step twice, the first time with an
    incomplete line. The last complete row of a step is used.
    """
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
    """Returns recall on planted leaks by kind and benchmark, or None if there is no probe.json."""
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
    """The values of the JSON files; None or empty for a missing file."""

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
        mixture: Path | None = None,
        held_out: Path | None = None,
        training: Path | None = None,
        evaluation: Path | None = None,
    ) -> Results:
        """Reads the files of a run.

        Args:
          mixture: mixture.json of the baked training data.
          held_out: mixture.json of the baked held-out data.
          training: a run directory with plan.json, config.json and metrics.jsonl.
          evaluation: a directory with evaluation.json and samples.json.

        Raises:
          ValueError: a file is not valid JSON; the message names it.
        """
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
        """(name, hash) of the data, the tokenizer and the evaluation, as far as known."""
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
        """The sources of the mixture, as mixture.json lists them."""
        return self.mixture["sources"] if self.mixture else []

    def source(self, name: str) -> dict[str, Any] | None:
        """Returns the source of this name, or None if the mixture does not have it."""
        return next((source for source in self.sources if source["name"] == name), None)

    @property
    def tokens(self) -> int:
        """Number of tokens of all sources."""
        return sum(source["tokens"] for source in self.sources)

    @property
    def mixtures(self) -> list[dict[str, Any]]:
        """The share of each source in each mixture, and its epochs if there is a plan."""
        stages = {stage["mixture"]: stage for stage in (self.plan or {}).get("stages", [])}
        tables = []
        for name, weights in (self.mixture or {}).get("mixtures", {}).items():
            stage = stages.get(name)
            planned = {row["name"]: row for row in stage["sources"]} if stage else {}
            total = math.fsum(weights.values()) or 1.0
            rows = [
                {
                    "name": source["name"],
                    "tier": source["tier"],
                    "share": weights[source["name"]] / total,
                    "available": source["tokens"],
                    "tokens": planned.get(source["name"], {}).get("tokens"),
                    "epochs": planned.get(source["name"], {}).get("epochs"),
                }
                for source in self.sources
                if weights.get(source["name"])
            ]
            largest = max((row["share"] for row in rows), default=1.0)
            tables.append({"name": name, "rows": rows, "stage": stage, "max_share": largest})
        return tables

    @property
    def many_epochs(self) -> list[tuple[str, str, float]]:
        """(stage, source, epochs) of sources that are repeated more than MAX_EPOCHS times."""
        return [
            (stage["name"], row["name"], row["epochs"])
            for stage in (self.plan or {}).get("stages", [])
            for row in stage["sources"]
            if row["epochs"] > MAX_EPOCHS
        ]

    # ---- training

    @property
    def seconds(self) -> float:
        """Seconds of all training steps by their logged speed, without compilation and saving."""
        previous, total = 0, 0.0
        for row in self.metrics:
            if row.get("tokens_per_second"):
                total += (row["tokens"] - previous) / row["tokens_per_second"]
            previous = row["tokens"]
        return total

    def loss_chart(self) -> str:
        """Returns a chart of the training loss by step, or "" without a finite loss."""
        points = _points(self.metrics, "loss")
        if not points:
            return ""
        return charts.lines(
            [Line("loss", points, "m2", smoothed=True)],
            title=f"Training loss by step, from {points[0][1]:.2f} to {points[-1][1]:.2f}",
            marks=self._stage_marks(),
            frame=Frame(x_label="step", heading="nats per token"),
        )

    def _stage_marks(self) -> list[tuple[float, str]]:
        """Returns (first logged step, name) of each training stage."""
        first: dict[str, float] = {}
        for row in self.metrics:
            first.setdefault(row["stage"], row["step"])
        return [(step, name) for name, step in first.items()]

    def source_charts(self, colors: Mapping[str, str]) -> list[str]:
        """Returns a small chart of the training loss on each source, all with the same axes."""
        rows = [{"step": row["step"], **row.get("source_loss", {})} for row in self.metrics]
        points = {name: p for name in colors if (p := _points(rows, name))}
        if not points:
            return []
        losses = [loss for p in points.values() for _, loss in p]
        return [
            charts.lines(
                [Line(name, p, colors[name], smoothed=True)],
                title=f"Loss on {name} by step, from {p[0][1]:.2f} to {p[-1][1]:.2f}",
                marks=[(step, "") for step, _ in self._stage_marks()[1:]],
                x_range=(self.metrics[0]["step"], self.metrics[-1]["step"]),
                y_range=(min(losses), max(losses)),
                frame=Frame(width=300, height=150, heading=name),
            )
            for name, p in points.items()
        ]

    def speed_charts(self) -> list[str]:
        """Returns charts of the learning rate and of the tokens per second by step."""
        return [
            charts.lines(
                [Line(key, points, "m1")],
                title=f"{title} by step",
                marks=self._stage_marks(),
                y_range=(0, 1.1 * max(y for _, y in points) or 1),
                frame=Frame(width=460, height=190, x_label="step", heading=title),
            )
            for key, title in (
                ("learning_rate", "Learning rate"),
                ("tokens_per_second", "Tokens per second"),
            )
            if (points := _points(self.metrics, key))
        ]

    # ---- evaluation

    @property
    def models(self) -> list[str]:
        """Names of the evaluated models, such as "untrained" and "trained"."""
        return list(self.evaluation["models"]) if self.evaluation else []

    def model_class(self, model: str) -> str:
        """Returns the CSS class of a model's color."""
        return f"m{self.models.index(model) % 3}"

    def row_over_all(self, table: str, key: str) -> dict[str, Any] | None:
        """Returns the row of evaluation.json over all sources or tasks; None without one."""
        rows = (self.evaluation or {}).get(table, [])
        return next((row for row in rows if row[key] == ALL), None)

    @property
    def loss_gain(self) -> dict[str, Any] | None:
        """The held-out losses over all sources; None without an untrained or a trained model."""
        row = self.row_over_all("heldout", "source")
        return row if row and {TRAINED, UNTRAINED} <= row["loss"].keys() else None

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """The accuracies over all tasks; None without a trained model."""
        row = self.row_over_all("tasks", "task")
        return row if row and TRAINED in row[SCORINGS[0].accuracy] else None

    @property
    def scorings(self) -> Sequence[Scoring]:
        """The scoring rules of multiple choice, for the template."""
        return SCORINGS

    def loss_dots(self) -> str:
        """Returns a chart of the held-out loss by source and model."""
        rows = (self.evaluation or {})["heldout"]
        return charts.dots(
            [
                DotRow(row["source"], self._dots(row, "loss", "stderr", "{:.2f} nats per token"))
                for row in rows
            ],
            title="Held-out loss by source and model, with 95 % intervals; lower is better",
            x_label="nats per token (lower is better)",
            percent=False,
        )

    def accuracy_dots(self) -> str:
        """Returns a chart of the accuracy by task and model."""
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
            title="Accuracy by task and model, with 95 % intervals, and the accuracy of chance",
            x_label="items answered correctly (higher is better)",
            percent=True,
        )

    def _dots(
        self, row: Mapping[str, Any], key: str, stderr_key: str, template: str
    ) -> Sequence[Dot]:
        """Returns a dot per model with its 95 % interval; `template` formats a value."""
        dots = []
        for model in self.models:
            value, stderr = row[key].get(model), row[stderr_key].get(model) or 0.0
            if value is not None:
                spread = Z_95 * stderr
                tooltip = f"{model}: {template.format(value)} ± {template.format(spread)}"
                dots.append(Dot(value, spread, self.model_class(model), tooltip))
        return dots


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Returns (step, value) of the rows with a finite value; a run that diverged logs NaN."""
    return [
        (row["step"], row[key])
        for row in rows
        if isinstance(row.get(key), int | float) and math.isfinite(row[key])
    ]

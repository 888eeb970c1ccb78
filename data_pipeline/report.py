"""One HTML page: what came in, what went out, why, with examples; and what the model made of it.

    report.write(workdir / "report.html", directories=runner.directories, mixture=baked / "mixture.json",
                 held_out=None, training=workdir / "training", evaluation=workdir / "evaluation",
                 title="quickstart", command="python main.py --config=configs/quickstart.py")

Everything is read from files: manifests, side files of dropped documents, and what training and
evaluation wrote. A section whose files are missing is left out. The same files give the same bytes.
The page loads nothing, and its content security policy lets it run no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from data_pipeline import charts, excerpts, report_results
from data_pipeline.charts import FlowRow
from data_pipeline.document import Dropped
from data_pipeline.manifest import Counts, Directory, write_atomically
from data_pipeline.progress import human_bytes, human_time
from data_pipeline.shards import read_dropped

EXAMPLES = 3  # of each reason
PAIRS = 4  # of near duplicates, side by side
HITS = 12  # rows of the table of contamination's evidence
COLOURS = 9  # sources beyond these share a grey; nine can be told apart without seeing red or green

# Stage -> its title and what it does. A stage that is not here is shown under its own name.
STAGES = {
    "read": ("Read", "Files become documents. What cannot be read is set aside with its place."),
    "clean": ("Clean", "Links and personal data are replaced; what breaks a rule is dropped."),
    "signatures": ("Sign", "MinHash signatures of every document."),
    "duplicates": ("Compare", "Finds equal and nearly equal documents across all sources."),
    "deduplicate": ("Deduplicate", "Of each group of duplicates one document survives."),
    "candidates": ("Draw", "Draws documents that may be held out, by a hash of their id."),
    "held_out": ("Hold out", "Keeps some documents of each source for evaluation."),
    "decontaminate_index": ("Index", "Indexes the n-grams of all that will be evaluated."),
    "decontaminate": ("Decontaminate", "Drops documents that hold text of an evaluation item."),
    "nlp_tasks": ("Write tasks", "Makes exercises in natural language from the documents."),
    "decontaminate_tasks": ("Decontaminate tasks", "The same for the exercises, more strictly."),
    "bake": ("Bake", "Tokenises, and packs documents into records of one length."),
    "bake_held_out": ("Bake held-out", "The same for the documents kept for evaluation."),
    "probe": ("Probe", "Plants known leaks and counts those that decontamination finds."),
}

# Reason -> what it means. Any other reason is shown as its name in words.
REASONS = {
    "too_short": "fewer words than the least allowed",
    "too_long": "more words than allowed",
    "empty": "nothing left after cleaning",
    "language": "not written in the language asked for, or too uncertain",
    "cut_off": "ends, or begins, in the middle of a sentence",
    "symbols": "too many hash signs and ellipses for its words",
    "duplicate_lines": "too much of it repeats its own earlier lines",
    "not_words": "too few of its words hold a letter",
    "incomplete": "too little of it belongs to complete sentences: menus, lists, tables",
    "long_code_lines": "minified code or data: lines too long to have been written by hand",
    "data_not_code": "a table of numbers rather than code",
    "exact_duplicate": "equal to a document that was kept, up to white space",
    "near_duplicate": "shares most of its word n-grams with a document that was kept",
    "invalid_utf8": "bytes that are not UTF-8",
    "invalid_json": "a line that is not JSON",
    "not_an_object": "JSON, but not an object with fields",
    "nul_character": "NUL bytes: binary data or a damaged disk",
    "line_too_long": "longer than any document may be",
    "empty_file": "a file without a row",
    "no_main_text": "a web page without main text",
    "held_out": "kept for evaluation, so not trained on",
}


def write(
    path: Path,
    *,
    directories: list[Directory],
    mixture: Path | None,
    held_out: Path | None,
    training: Path | None,
    evaluation: Path | None,
    title: str,
    command: str,
) -> Path:
    """Writes the page to `path`, whole or not at all, and returns `path`.

    Args:
      directories: stage directories in the order in which a document meets them.
      mixture, held_out: a mixture.json of baked data each: to train on, to evaluate on.
      training: a run directory with plan.json and metrics.jsonl.
      evaluation: a directory with evaluation.json and samples.json.
      command: what made all this, as it would be typed.

    Raises:
      TruncatedShard, ValueError: a side file is damaged, or a file is not what its name says.
    """
    page = Page(
        directories,
        report_results.Results.read(mixture, held_out, training, evaluation),
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        n=lambda value: f"{value:,.0f}",
        percent=_percent,
        size=human_bytes,
        time=human_time,
        words=lambda name: str(name).replace("_", " "),
        safe_text=lambda value: excerpts.printable(str(value)),
        short=charts.short,
        json=lambda value: json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True),
    )
    template = environment.get_template("report.html.jinja")
    script = str(template.module.script())  # type: ignore[attr-defined]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = template.render(page=page, title=title, command=command, script_sha256=digest)
    write_atomically(path, html)
    return path


def _percent(share: float, digits: int = 1) -> str:
    """
    >>> _percent(0.5), _percent(0.00012), _percent(1.0)
    ('50.0%', '0.01%', '100%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{100 * share:.{digits if share >= 0.001 else max(2, digits)}f}%"


@dataclass(slots=True)
class Stage:
    """A stage's directory with its sums."""

    directory: Directory
    name: str
    title: str
    about: str
    total: Counts
    sources: dict[str, Counts]
    seconds: float | None  # when it was made, which may be long ago

    @classmethod
    def of(cls, directory: Directory) -> Stage:
        name = str(directory.manifest.get("stage") or directory.path.name.rpartition("-")[0])
        title, about = STAGES.get(name, (name.replace("_", " ").capitalize(), ""))
        total, sources = Counts(), directory.counts()
        for counts in sources.values():
            total.add(counts)
        timing = report_results.read_json(directory.path / "timing.json") or {}
        return cls(directory, name, title, about, total, sources, timing.get("seconds"))

    @property
    def loses(self) -> bool:
        return bool(self.total.dropped)

    @property
    def counts_documents(self) -> bool:
        return bool(self.total.documents_in or self.total.kept or self.total.bad)

    @property
    def made(self) -> list[str]:
        """Sources that this stage writes and does not read."""
        return [s for s, c in self.sources.items() if c.kept and not c.documents_in]


class Page:
    """What the template shows. Each section is a property, empty where there is nothing to show."""

    def __init__(self, directories: Sequence[Directory], results: report_results.Results) -> None:
        self.stages = [Stage.of(directory) for directory in directories]
        self.results = results
        self.colours = self._colours()
        self.duplicate_rows = list(self._dropped_by("deduplicate"))
        self.contaminated_rows = [
            row for row in self._dropped_by("decontaminate") if "benchmark" in row[1].evidence
        ]

    def _dropped_by(self, name: str) -> Iterator[tuple[Stage, Dropped]]:
        """All that the stages whose names begin so have dropped."""
        for stage in self.stages:
            if stage.name.startswith(name) and stage.loses:
                for file in stage.directory.files("dropped"):
                    for _, dropped in read_dropped(file.path):
                        yield stage, dropped

    # ---- sources and their colours

    def _colours(self) -> dict[str, str]:
        """Source -> class; by tier, then the largest first. Beyond COLOURS all have the last one."""
        size: Counter[str] = Counter()
        for stage in self.stages:
            for name, counts in stage.sources.items():
                size[name] = max(size[name], counts.bytes_kept, counts.bytes_in)
        for source in self.results.sources:
            size.setdefault(source["name"], 0)
        large = sorted(size, key=lambda s: (-size[s], s))[:COLOURS]
        order = sorted(size, key=lambda s: (s not in large, self.tier(s), -size[s], s))
        return {s: f"s{k if s in large else COLOURS}" for k, s in enumerate(order)}

    def tier(self, source: str) -> str:
        return next((s.sources[source].tier for s in self.stages if source in s.sources), "")

    def colour(self, source: str) -> str:
        return self.colours.get(source, f"s{COLOURS}")

    # ---- the way of a document

    @property
    def first(self) -> Stage | None:
        return next((stage for stage in self.stages if stage.counts_documents), None)

    @property
    def flows(self) -> list[dict[str, Any]]:
        """The flow picture, once in documents and once in bytes."""
        if self.first is None:
            return []
        return [
            {"unit": unit, "svg": charts.flow(rows, self.colours, title=f"{unit} by stage, {names}")}
            for unit, rows in (
                ("documents", self.flow_rows("documents_in", "kept")),
                ("bytes", self.flow_rows("bytes_in", "bytes_kept")),
            )
            for names in ["from top to bottom: " + ", ".join(row.name for row in rows)]
        ]

    def flow_rows(self, came: str, kept: str) -> list[FlowRow]:
        """A row for the first stage and for each that drops or makes documents.

        A source that a stage does not touch passes by. What was taken out between two stages
        without being dropped (for evaluation) is lost at the later one.
        """
        say = human_bytes if came == "bytes_in" else "{:,}".format
        state: dict[str, int] = {}
        rows = []
        for stage in self.stages:
            if not stage.counts_documents or not (
                stage is self.first or stage.loses or stage.made
            ):
                continue
            lost = 0
            for name in stage.made or stage.sources:
                counts = stage.sources[name]
                before = max(state.get(name, 0), getattr(counts, came))
                state[name] = getattr(counts, kept)
                lost += max(0, before - state[name]) if not stage.made else 0
            titles = {s: f"{stage.title}: {s}, {say(v)}" for s, v in state.items()}
            rows.append(
                FlowRow(
                    stage.title,
                    dict(state),
                    lost,
                    say(sum(state.values())),
                    f"−{say(lost)}" if lost else "",
                    titles,
                )
            )
        return rows

    @property
    def source_rows(self) -> list[dict[str, Any]]:
        """For each source: what came in, what is left after each stage that loses, why most went."""
        rows = []
        losing = [stage for stage in self.stages if stage.loses]
        for name in self.colours:
            having = [stage for stage in self.stages if name in stage.sources]
            if not having:
                continue
            dropped: Counter[str] = Counter()
            for stage in having:
                dropped.update(stage.sources[name].dropped)
            start = having[0].sources[name]
            came = start.documents_in or start.kept
            baked = self.results.source(name)
            left = (baked["documents"] if baked else
                    next((s.sources[name].kept for s in reversed(losing) if name in s.sources), came))
            rows.append(
                {
                    "name": name,
                    "tier": self.tier(name),
                    "came": came,
                    "bytes": start.bytes_in or start.bytes_kept,
                    "bad": sum(s.sources[name].bad.total() for s in having),
                    "dropped": dropped.total(),
                    "reasons": dropped.most_common(2),
                    "left": left,
                    "tokens": baked["tokens"] if baked else None,
                }
            )
        return rows

    # ---- why

    @property
    def losses(self) -> list[dict[str, Any]]:
        """For each stage that drops documents its reasons, the most frequent first."""
        return [
            {"stage": stage, "reasons": self._reasons(stage, "dropped")}
            for stage in self.stages
            if stage.loses
        ]

    @property
    def bad(self) -> list[dict[str, Any]]:
        return [
            {"stage": stage, "reasons": self._reasons(stage, "bad")}
            for stage in self.stages
            if stage.total.bad
        ]

    def _reasons(self, stage: Stage, kind: str) -> list[dict[str, Any]]:
        total: Counter[str] = getattr(stage.total, kind)
        chosen = excerpts.choose(stage.directory, EXAMPLES, lambda counts: getattr(counts, kind))
        most = max(total.values())
        reasons = []
        for reason, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
            by_source = {
                s: n for s in self.colours
                if s in stage.sources and (n := getattr(stage.sources[s], kind)[reason])
            }
            reasons.append(
                {
                    "name": reason,
                    "about": REASONS.get(reason, ""),
                    "count": count,
                    "share": count / max(1, stage.total.documents_in),
                    "bars": [
                        {"source": s, "count": n, "width": n / most} for s, n in by_source.items()
                    ],
                    "examples": [self._example(dropped) for dropped in chosen[reason]],
                }
            )
        return reasons

    def _example(self, dropped: Dropped) -> dict[str, Any]:
        document, evidence = dropped.document, dropped.evidence
        return {
            "id": document.id,
            "source": document.source,
            "characters": len(document.text),
            "evidence": excerpts.evidence_words(evidence),
            "segments": excerpts.excerpt(
                document.text, excerpts.evidence_spans(document.text, evidence)
            ),
        }

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What was replaced or mended inside documents that were kept."""
        return [
            {
                "stage": stage,
                "what": what,
                "count": count,
                "sources": [
                    (s, n) for s in self.colours
                    if s in stage.sources and (n := stage.sources[s].changed[what])
                ],
            }
            for stage in self.stages
            for what, count in sorted(stage.total.changed.items(), key=lambda i: (-i[1], i[0]))
        ]

    # ---- duplicates

    @property
    def duplicates(self) -> dict[str, Any] | None:
        if not self.duplicate_rows:
            return None
        reasons = Counter(dropped.reason for _, dropped in self.duplicate_rows)
        pairs = Counter(
            (dropped.document.source, dropped.evidence["kept_source"])
            for _, dropped in self.duplicate_rows
            if "kept_source" in dropped.evidence
        )
        names = [s for s in self.colours if any(s in pair for pair in pairs)]
        return {
            "reasons": sorted(reasons.items()),
            "names": names,
            "most": max(pairs.values(), default=0),
            "matrix": [
                {"name": a, "cells": [pairs[a, b] for b in names],
                 "total": sum(pairs[a, b] for b in names)}
                for a in names
            ],
            "across": sum(n for (a, b), n in pairs.items() if a != b),
            "pairs": self._pairs(),
        }

    def _pairs(self) -> list[dict[str, Any]]:
        """Near duplicates beside their survivors, from little to very similar."""
        near = sorted(
            (row for row in self.duplicate_rows if row[1].evidence.get("jaccard", 1) < 1),
            key=lambda row: (row[1].evidence["jaccard"], row[1].document.id),
        )
        step = max(1, len(near) // PAIRS)
        chosen = near[::step][:PAIRS]
        stages = {id(stage): stage for stage, _ in chosen}
        kept = {
            key: document
            for stage in stages.values()
            for key, document in excerpts.survivors(
                stage.directory, {d.evidence["kept"] for _, d in chosen}
            ).items()
        }
        pairs = []
        for _, dropped in chosen:
            if survivor := kept.get(dropped.evidence["kept"]):
                one, other = excerpts.compare(survivor.text, dropped.document.text)
                pairs.append(
                    {
                        "jaccard": dropped.evidence["jaccard"],
                        "sides": [("kept", survivor, one), ("dropped", dropped.document, other)],
                    }
                )
        return pairs

    # ---- contamination

    @property
    def contamination(self) -> dict[str, Any] | None:
        probe = next(
            (p for s in self.stages if (p := report_results.probe(s.directory.path))), None
        )
        ran = any(stage.name.startswith("decontaminate") for stage in self.stages)
        if not ran and probe is None:
            return None
        benchmarks: dict[str, dict[str, Any]] = {}
        for _, dropped in self.contaminated_rows:
            evidence = dropped.evidence
            row = benchmarks.setdefault(
                evidence["benchmark"], {"items": set(), "documents": 0, "rules": Counter()}
            )
            row["items"].add(evidence.get("item"))
            row["documents"] += 1
            row["rules"][evidence.get("rule", dropped.reason)] += 1
        return {
            "benchmarks": [
                {"name": name, "items": len(row["items"]), "documents": row["documents"],
                 "rules": sorted(row["rules"].items())}
                for name, row in sorted(benchmarks.items())
            ],
            "hits": [self._example(dropped) | {"evidence_of": dropped.evidence}
                     for dropped in self._hits()],
            "probe": probe,
        }

    def _hits(self) -> list[Dropped]:
        """Some hits of every benchmark, in turns."""
        by_benchmark: dict[str, list[Dropped]] = {}
        for _, dropped in self.contaminated_rows:
            by_benchmark.setdefault(dropped.evidence["benchmark"], []).append(dropped)
        queues = [
            sorted(rows, key=lambda d: (d.evidence.get("item", ""), d.document.id))
            for _, rows in sorted(by_benchmark.items())
        ]
        turns = [q[k] for k in range(HITS) for q in queues if k < len(q)]
        return turns[:HITS]

    # ---- reproduction

    @property
    def libraries(self) -> list[tuple[str, str]]:
        """Versions of the libraries behind any stage."""
        return sorted({
            (name, version)
            for stage in self.stages
            for name, version in stage.directory.manifest.get("code", {}).items()
            if not name.startswith("data_pipeline")
        })

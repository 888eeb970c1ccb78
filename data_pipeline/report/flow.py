"""The way of a document through the stages: what came in, what was left, by stage and by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.execution.manifest import Counts, Directory
from data_pipeline.execution.progress import human_bytes
from data_pipeline.report import charts
from data_pipeline.report.charts import FlowRow
from data_pipeline.report.results import Results, read_json

# Nine colors can be told apart without seeing red or green; the sources beyond share a grey.
COLOURS = 9
OTHER = f"s{COLOURS}"

# Stage -> its title and what it does. A stage that is not here is shown under its own name.
STAGES = {
    "read": ("Read", "Files become documents. What cannot be read is set aside with its place."),
    "clean": ("Clean", "Links and personal data are replaced; what breaks a rule is dropped."),
    "lines": ("Count lines", "Counts in how many documents of a source each line is."),
    "repeated_lines": ("Find boilerplate", "Finds lines that many documents of one source have."),
    "signatures": ("Sign", "MinHash signatures of every document."),
    "links": ("Link", "Finds documents that share a part of their signatures."),
    "groups": ("Group", "Joins what is linked into groups of candidates."),
    "members": ("Gather", "Brings the candidates of a group together."),
    "duplicates": ("Compare", "Finds equal and nearly equal documents across all sources."),
    "deduplicate": ("Deduplicate", "Of each group of duplicates one document survives."),
    "paragraphs": ("List paragraphs", "Hashes the paragraphs of every document."),
    "repeated": ("Compare paragraphs", "Finds those that several documents have."),
    "repeated_paragraphs": ("Remove paragraphs", "Leaves each in one document only."),
    "candidates": ("Draw", "Draws documents that may be held out, by a hash of their id."),
    "held_out": ("Hold out", "Keeps some documents of each source for evaluation."),
    "items": ("Make questions", "Makes multiple-choice items from the held-out documents."),
    "index": ("Index", "Indexes the n-grams of all that will be evaluated."),
    "probe": ("Probe", "Plants known leaks and counts those that decontamination finds."),
    "decontaminate": ("Decontaminate", "Drops what is held out or holds evaluation data."),
    "topic_sample": ("Sample", "Draws the documents in which topics are looked for."),
    "topic_model": ("Find topics", "Clusters the sample, and names the clusters."),
    "topics": ("Assign topics", "Gives every document the nearest topic."),
    "choose_seeds": ("Choose seeds", "Draws documents evenly over topics, for each category."),
    "seeds": ("Cut seeds", "Cuts whole paragraphs or sentences out of them."),
    "prompts": ("Write prompts", "Puts each passage into a prompt of its category."),
    "synthesise": ("Synthesise", "A teacher answers; what gets no answer is dropped."),
    "gates": ("Judge", "Drops refusals, loops, copies of the passage; replaces private data."),
    "signatures_synthetic": ("Sign synthetic", "MinHash signatures of the synthetic texts."),
    "links_synthetic": ("Link synthetic", "The same for the synthetic texts."),
    "groups_synthetic": ("Group synthetic", "The same for the synthetic texts."),
    "members_synthetic": ("Gather synthetic", "The same for the synthetic texts."),
    "duplicates_synthetic": ("Compare synthetic", "Finds equal and nearly equal ones."),
    "deduplicate_synthetic": ("Deduplicate synthetic", "One of each group survives."),
    "decontaminate_synthetic": ("Decontaminate synthetic", "The same for synthetic texts."),
    "nlp_tasks": ("Write tasks", "Makes exercises in natural language from the documents."),
    "decontaminate_tasks": ("Decontaminate tasks", "The same for the exercises."),
    "restructuring_requests": ("Ask for tasks", "Cuts passages and asks for exercises on them."),
    "restructure": ("Restructure", "A teacher answers; what gets no answer is dropped."),
    "restructured_tasks": ("Check tasks", "Drops what fits no schema or is no sound exercise."),
    "decontaminate_restructured": ("Decontaminate restructured", "The same for these exercises."),
    "bake": ("Bake", "Tokenizes, and packs documents into records of one length."),
    "bake_held_out": ("Bake held-out", "The same for the documents kept for evaluation."),
}

HELD_OUT = "held_out"  # the one reason that is no fault of the document
# Reasons that are told apart from their stage's in the first paragraph.
APART = {
    HELD_OUT: "were held out for evaluation",
    "too_many_tokens": "were longer than their tier allows",
}

# Stage -> what became of those that it dropped, in the first paragraph.
PHRASES = {
    "clean": "broke a rule of cleaning",
    "deduplicate": "were duplicates",
    "repeated_paragraphs": "said what other documents say",
    "decontaminate": "held text of what is evaluated",
}


@dataclass(frozen=True, slots=True)
class ReportStage:
    """A stage's directory with its sums.

    `made`: sources that it wrote and no stage before it had. `seconds`: of the run that made it.
    """

    directory: Directory
    name: str
    title: str
    about: str
    total: Counts
    sources: dict[str, Counts]
    made: list[str]
    seconds: float | None

    @classmethod
    def all_of(cls, directories: Sequence[Directory]) -> list[ReportStage]:
        stages: list[ReportStage] = []
        for directory in directories:
            counted = [stage for stage in stages if stage.counts_documents]
            known = {name for stage in counted for name in stage.sources}
            stages.append(cls._of(directory, known if counted else None))
        return stages

    @classmethod
    def _of(cls, directory: Directory, known: set[str] | None) -> ReportStage:
        name = str(directory.manifest["stage"])
        title, about = STAGES.get(name, (name.replace("_", " ").capitalize(), ""))
        total, sources = Counts(), directory.counts()
        for counts in sources.values():
            total.add(counts)
        timing = read_json(directory.path / "timing.json") or {}
        made = [] if known is None else [s for s in sources if s not in known]
        return cls(directory, name, title, about, total, sources, made, timing.get("seconds"))

    @property
    def loses(self) -> bool:
        return self.total.dropped.total() > 0

    @property
    def counts_documents(self) -> bool:
        return bool(self.total.documents_in or self.total.kept or self.total.bad)

    @property
    def settings(self) -> dict[str, Any]:
        """What made it, apart from its inputs."""
        return {key: self.directory.manifest.get(key) for key in ("schema", "config", "code")}

    @property
    def files(self) -> int:
        return sum(len(ledger.files) for ledger in self.directory.ledgers())


def colors(stages: Sequence[ReportStage], results: Results) -> dict[str, str]:
    """Source -> class of its color: by tier, in it the largest first, and those in grey last."""
    size: Counter[str] = Counter()
    tiers: dict[str, str] = {}
    for stage in stages:
        for name, counts in stage.sources.items():
            size[name] = max(size[name], counts.bytes_kept, counts.bytes_in)
            tiers[name] = tiers.get(name) or counts.tier
    for source in results.sources:
        size.setdefault(source["name"], 0)
        tiers[source["name"]] = source["tier"]
    large = sorted(size, key=lambda s: (-size[s], s))[:COLOURS]
    order = sorted(size, key=lambda s: (s not in large, tiers[s], -size[s], s))
    return {s: f"s{k}" if s in large else OTHER for k, s in enumerate(order)}


def first(stages: Sequence[ReportStage]) -> ReportStage | None:
    """The stage in which documents come in."""
    return next((stage for stage in stages if stage.counts_documents), None)


def flows(stages: Sequence[ReportStage], colors: dict[str, str]) -> list[dict[str, Any]]:
    """The flow picture, once in documents and once in bytes."""
    found = []
    for unit, came, kept in (
        ("documents", "documents_in", "kept"),
        ("bytes", "bytes_in", "bytes_kept"),
    ):
        if rows := flow_rows(stages, came, kept):
            said = "; ".join(f"{row.name} {row.kept_label}" for row in rows)
            title = f"{unit.capitalize()} left after each stage: {said}"
            found.append({"unit": unit, "svg": charts.flow(rows, colors, title=title)})
    return found


def flow_rows(stages: Sequence[ReportStage], came: str, kept: str) -> list[FlowRow]:
    """A row for the first stage and for each that drops or makes documents.

    A source that a stage does not touch passes by.

    Args:
      came, kept: names of the two counts, in documents or in bytes.
    """
    say = human_bytes if came == "bytes_in" else "{:,}".format
    left: Counter[str] = Counter()
    rows = []
    for stage in stages:
        if not stage.counts_documents or not (stage is first(stages) or stage.loses or stage.made):
            continue
        lost = 0
        for name in stage.made or stage.sources:
            counts = stage.sources[name]
            lost += max(0, getattr(counts, came) - getattr(counts, kept))
            left[name] = getattr(counts, kept)
        rows.append(
            FlowRow(
                stage.title,
                dict(left),
                lost,
                say(left.total()),
                f"−{say(lost)}" if lost else "",
                {source: f"{stage.title}: {source}, {say(n)}" for source, n in left.items()},
            )
        )
    return rows


def by_source(
    stages: Sequence[ReportStage], colors: dict[str, str], results: Results
) -> list[dict[str, Any]]:
    """For each source: what came in, what is left at the end, why most went."""
    rows = []
    for name in colors:
        counted = [stage.sources[name] for stage in stages if name in stage.sources]
        if not counted:
            continue
        total = Counts()
        for counts in counted:
            total.add(counts)
        came = counted[0].documents_in or counted[0].kept
        left = next(
            (s.sources[name].kept for s in reversed(stages) if s.loses and name in s.sources), came
        )
        baked = results.source(name)
        rows.append(
            {
                "name": name,
                "tier": total.tier,
                "came": came,
                "bytes": counted[0].bytes_in or counted[0].bytes_kept,
                "bad": total.bad.total(),
                "dropped": total.dropped.total(),
                "reasons": sorted(total.dropped.items(), key=lambda i: (-i[1], i[0]))[:2],
                "left": baked["documents"] if baked else left,
                "tokens": baked["tokens"] if baked else None,
            }
        )
    return rows


def summary(
    stages: Sequence[ReportStage], colors: dict[str, str], results: Results
) -> dict[str, Any] | None:
    """What the first paragraph says of the documents; None where no stage has any."""
    start = first(stages)
    if start is None:
        return None
    phrases: list[tuple[int, str]] = []
    apart: Counter[str] = Counter()
    for stage in stages:
        dropped: Counter[str] = Counter()
        for name in start.sources.keys() & stage.sources.keys():
            dropped.update(stage.sources[name].dropped)
        for reason in APART.keys() & dropped.keys():
            apart[reason] += dropped.pop(reason)
        if dropped:
            otherwise = f"were dropped by “{stage.title.lower()}”"
            phrases.append((dropped.total(), PHRASES.get(stage.name, otherwise)))
    phrases += [(apart[reason], said) for reason, said in APART.items() if apart[reason]]
    rows = by_source(stages, colors, results)
    read = [row for row in rows if row["name"] in start.sources]
    made = [row for row in rows if row["name"] not in start.sources]
    came, left = sum(row["came"] for row in read), sum(row["left"] for row in read)
    if elsewhere := came - left - sum(number for number, _ in phrases):
        phrases.append((elsewhere, "are in no mixture"))
    return {
        "came": came,
        "bytes": start.total.bytes_in or start.total.bytes_kept,
        "left": left,
        "phrases": phrases,
        "written": sum(row["came"] for row in made),
        "made": sum(row["left"] for row in made),
        "bad": sum(stage.total.bad.total() for stage in stages),
    }


def libraries(stages: Sequence[ReportStage]) -> list[tuple[str, str]]:
    """Versions of the libraries behind any stage."""
    return sorted(
        {
            (name, version)
            for stage in stages
            for name, version in stage.directory.manifest.get("code", {}).items()
            if not name.startswith("data_pipeline")
        }
    )

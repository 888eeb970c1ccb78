"""Documents and bytes of text at each stage, by stage and by source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.execution.manifest import Counts, Directory
from data_pipeline.execution.progress import human_bytes
from data_pipeline.report import charts
from data_pipeline.report.charts import FlowRow
from data_pipeline.report.results import Results, read_json

# Nine colors that remain distinct with red-green color blindness. Further sources share one grey.
NUM_COLORS = 9
OTHER_COLOR = f"s{NUM_COLORS}"

# Stage name, with which its folder begins -> (title, description). One that is missing here is
# shown under that name.
STAGES = {
    "read": ("Read", "Parses files into documents; records unreadable input."),
    "clean": ("Clean", "Replaces links and personal data; applies the rules."),
    "lines": ("Count lines", "Counts the documents of each source that contain a line."),
    "repeated_lines": ("Find boilerplate", "Selects lines that many documents of a source share."),
    "signatures": ("Compute signatures", "Computes a MinHash signature of every document."),
    "links": ("Match signatures", "Finds documents whose signatures agree in part."),
    "groups": ("Group candidates", "Joins matching documents into groups of candidates."),
    "members": ("Collect groups", "Collects the texts of each group in one place."),
    "duplicates": ("Compare candidates", "Finds exact and near duplicates across all sources."),
    "deduplicate": ("Deduplicate", "Keeps one document of each group of duplicates."),
    "paragraphs": ("Hash paragraphs", "Hashes the paragraphs of every document."),
    "repeated": ("Match paragraphs", "Finds paragraphs that occur in several documents."),
    "repeated_paragraphs": ("Remove paragraphs", "Keeps a repeated paragraph in one document."),
    "candidates": ("Sample candidates", "Selects held-out candidates by a hash of their id."),
    "held_out": ("Hold out", "Sets aside some documents of each source for evaluation."),
    "items": ("Write items", "Writes multiple-choice items from the held-out documents."),
    "index": ("Index evaluation data", "Indexes the n-grams of all evaluation data."),
    "probe": (
        "Measure recall",
        "Counts the planted leaks that decontamination detects.",
    ),
    "decontaminate": ("Decontaminate", "Drops held-out documents and those with evaluation data."),
    "topic_sample": ("Sample for topics", "Samples documents to fit the topic model."),
    "topic_model": ("Fit topics", "Clusters the sample and describes each cluster by terms."),
    "topics": ("Assign topics", "Assigns every document to the nearest topic."),
    "choose_seeds": ("Choose seeds", "Samples documents of each category evenly over topics."),
    "seeds": ("Cut seeds", "Cuts passages of whole paragraphs or sentences from these documents."),
    "prompts": ("Write prompts", "Inserts each passage into a prompt of its category."),
    "synthesise": ("Synthesize", "Sends the prompts to a teacher; drops requests that fail."),
    "gates": ("Filter outputs", "Drops refusals, loops and copies; replaces personal data."),
    "signatures_synthetic": ("Compute signatures (synthetic)", "The same for synthetic texts."),
    "links_synthetic": ("Match signatures (synthetic)", "The same for synthetic texts."),
    "groups_synthetic": ("Group candidates (synthetic)", "The same for synthetic texts."),
    "members_synthetic": ("Collect groups (synthetic)", "The same for synthetic texts."),
    "duplicates_synthetic": ("Compare candidates (synthetic)", "The same for synthetic texts."),
    "deduplicate_synthetic": ("Deduplicate synthetic texts", "Keeps one text of each group."),
    "decontaminate_synthetic": (
        "Decontaminate synthetic texts",
        "Drops those with evaluation data.",
    ),
    "nlp_tasks": ("Write tasks", "Writes natural-language tasks from documents by rules."),
    "decontaminate_tasks": ("Decontaminate tasks", "Drops tasks that contain evaluation data."),
    "restructuring_requests": (
        "Write task prompts",
        "Cuts passages and inserts each into a prompt that requests a task.",
    ),
    "restructure": ("Request tasks", "Sends the prompts to a teacher; drops requests that fail."),
    "restructured_tasks": ("Check tasks", "Drops replies that violate the schema or fail a check."),
    "decontaminate_restructured": (
        "Decontaminate teacher tasks",
        "Drops tasks that contain evaluation data.",
    ),
    "bake": ("Bake", "Packs tokenized documents into records of one length."),
    "bake_held_out": ("Bake held-out", "The same for the held-out documents."),
}

HELD_OUT = "held_out"  # the only drop reason that is not a quality failure

# Stage -> predicate of its dropped documents in the summary, for one document and for several.
PREDICATES = {
    "clean": ("broke a cleaning rule",) * 2,
    "deduplicate": ("was a duplicate", "were duplicates"),
    "repeated_paragraphs": ("repeated other documents",) * 2,
    "decontaminate": ("contained evaluation data",) * 2,
}
# Drop reasons that the summary counts separately from their stage.
SEPARATE_REASONS = {
    HELD_OUT: ("was held out for evaluation", "were held out for evaluation"),
    "too_many_tokens": ("exceeded the token limit",) * 2,
}
UNUSED = ("is in no mixture", "are in no mixture")


@dataclass(frozen=True, slots=True)
class ReportStage:
    """A stage's directory with its counts summed over shards.

    Attributes:
      directory: the finished directory.
      name: the stage's name on disk.
      title, description: its texts on the page.
      total: counts of all sources together.
      sources: counts by source.
      new_sources: sources that the stage wrote and no earlier stage had.
      seconds: run time of the stage, from the run that produced it; None if unknown.
    """

    directory: Directory
    name: str
    title: str
    description: str
    total: Counts
    sources: dict[str, Counts]
    new_sources: list[str]
    seconds: float | None

    @classmethod
    def all_of(cls, directories: Sequence[Directory]) -> list[ReportStage]:
        """Returns the stages of directories that are in pipeline order."""
        stages: list[ReportStage] = []
        for directory in directories:
            counted = [stage for stage in stages if stage.counts_documents]
            known = {name for stage in counted for name in stage.sources}
            stages.append(cls._of(directory, known if counted else None))
        return stages

    @classmethod
    def _of(cls, directory: Directory, known: set[str] | None) -> ReportStage:
        """Returns one stage; `known`: sources of earlier stages, None for the first stage."""
        name = str(directory.manifest["stage"])
        title, description = STAGES.get(name, (name.replace("_", " ").capitalize(), ""))
        total, sources = Counts(), directory.counts()
        for counts in sources.values():
            total.add(counts)
        timing = read_json(directory.path / "timing.json") or {}
        return cls(
            directory,
            name,
            title,
            description,
            total,
            sources,
            new_sources=[] if known is None else [s for s in sources if s not in known],
            seconds=timing.get("seconds"),
        )

    @property
    def drops_documents(self) -> bool:
        """True if the stage dropped at least one document."""
        return self.total.dropped.total() > 0

    @property
    def counts_documents(self) -> bool:
        """True if the ledgers of the stage count documents; those of an index do not."""
        return bool(self.total.documents_in or self.total.kept or self.total.bad)

    @property
    def settings(self) -> dict[str, Any]:
        """The manifest's schema, configuration and code versions."""
        return {key: self.directory.manifest.get(key) for key in ("schema", "config", "code")}

    @property
    def num_files(self) -> int:
        """Number of files that the ledgers list."""
        return sum(len(ledger.files) for ledger in self.directory.ledgers())


def colors(stages: Sequence[ReportStage], results: Results) -> dict[str, str]:
    """Returns the CSS class of each source's color, in the order of the legend.

    Sources are ordered by tier, then by size. Those that share the grey color come last.
    """
    size: Counter[str] = Counter()
    tiers: dict[str, str] = {}
    for stage in stages:
        for name, counts in stage.sources.items():
            size[name] = max(size[name], counts.bytes_kept, counts.bytes_in)
            tiers[name] = tiers.get(name) or counts.tier
    for source in results.sources:
        size.setdefault(source["name"], 0)
        tiers[source["name"]] = source["tier"]
    largest = [name for name, _ in most_frequent(size)[:NUM_COLORS]]
    order = sorted(size, key=lambda s: (s not in largest, tiers[s], -size[s], s))
    return {s: f"s{k}" if s in largest else OTHER_COLOR for k, s in enumerate(order)}


def most_frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Returns (name, count) pairs, the largest count first, of equal counts by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def first_stage(stages: Sequence[ReportStage]) -> ReportStage | None:
    """Returns the stage that reads the documents, or None if no stage counts any."""
    return next((stage for stage in stages if stage.counts_documents), None)


def flows(stages: Sequence[ReportStage], colors: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the flow chart in two units, documents and bytes: {"unit", "svg"}."""
    charts_by_unit = []
    for unit in ("documents", "bytes"):
        if rows := flow_rows(stages, unit):
            numbers = "; ".join(f"{row.name} {row.kept_label}" for row in rows)
            title = f"{unit.capitalize()} kept by each stage: {numbers}"
            charts_by_unit.append({"unit": unit, "svg": charts.flow(rows, colors, title=title)})
    return charts_by_unit


def flow_rows(stages: Sequence[ReportStage], unit: str) -> list[FlowRow]:
    """Returns a row for the first stage and for each stage that drops or writes documents.

    A source that a stage does not process keeps its count of the stage before. `unit` is
    "documents" or "bytes".
    """
    in_field, kept_field = {
        "documents": ("documents_in", "kept"),
        "bytes": ("bytes_in", "bytes_kept"),
    }[unit]
    format_count = human_bytes if unit == "bytes" else "{:,}".format
    kept: Counter[str] = Counter()
    rows = []
    for stage in stages:
        is_shown = stage is first_stage(stages) or stage.drops_documents or stage.new_sources
        if not stage.counts_documents or not is_shown:
            continue
        lost = 0
        for name in stage.new_sources or stage.sources:
            counts = stage.sources[name]
            lost += max(0, getattr(counts, in_field) - getattr(counts, kept_field))
            kept[name] = getattr(counts, kept_field)
        rows.append(
            FlowRow(
                stage.title,
                dict(kept),
                lost,
                format_count(kept.total()),
                f"−{format_count(lost)}" if lost else "",
                {
                    source: f"{stage.title}: {source}, {format_count(n)}"
                    for source, n in kept.items()
                },
            )
        )
    return rows


def by_source(
    stages: Sequence[ReportStage], colors: Mapping[str, str], results: Results
) -> list[dict[str, Any]]:
    """Returns a row per source: its input, its dropped documents and what the mixture holds."""
    rows = []
    for name in colors:
        counted = [stage.sources[name] for stage in stages if name in stage.sources]
        if not counted:
            continue
        total = Counts()
        for counts in counted:
            total.add(counts)
        documents_in = counted[0].documents_in or counted[0].kept
        last_kept = next(
            (
                stage.sources[name].kept
                for stage in reversed(stages)
                if stage.drops_documents and name in stage.sources
            ),
            documents_in,
        )
        baked = results.source(name)
        rows.append(
            {
                "name": name,
                "tier": total.tier,
                "documents_in": documents_in,
                "bytes": counted[0].bytes_in or counted[0].bytes_kept,
                "bad": total.bad.total(),
                "dropped": total.dropped.total(),
                "reasons": most_frequent(total.dropped)[:2],
                "kept": baked["documents"] if baked else last_kept,
                "tokens": baked["tokens"] if baked else None,
            }
        )
    return rows


def summary(
    stages: Sequence[ReportStage], colors: Mapping[str, str], results: Results
) -> dict[str, Any] | None:
    """Returns the numbers of the page's first paragraph, or None if no stage counts documents.

    `losses` lists (count, predicate) so that `documents_in` is `kept` plus all of these counts.
    `written` and `written_kept` count documents that a stage wrote rather than read.
    """
    start = first_stage(stages)
    if start is None:
        return None
    losses: list[tuple[int, tuple[str, str]]] = []  # count, predicate in singular and plural
    separate: Counter[str] = Counter()
    for stage in stages:
        dropped: Counter[str] = Counter()
        for name in start.sources.keys() & stage.sources.keys():
            dropped.update(stage.sources[name].dropped)
        for reason in SEPARATE_REASONS.keys() & dropped.keys():
            separate[reason] += dropped.pop(reason)
        if dropped:
            default = f"was dropped by “{stage.title}”", f"were dropped by “{stage.title}”"
            losses.append((dropped.total(), PREDICATES.get(stage.name, default)))
    losses += [
        (separate[reason], predicate)
        for reason, predicate in SEPARATE_REASONS.items()
        if separate[reason]
    ]
    rows = by_source(stages, colors, results)
    read = [row for row in rows if row["name"] in start.sources]
    written = [row for row in rows if row["name"] not in start.sources]
    documents_in = sum(row["documents_in"] for row in read)
    kept = sum(row["kept"] for row in read)
    if unused := documents_in - kept - sum(count for count, _ in losses):
        losses.append((unused, UNUSED))
    return {
        "documents_in": documents_in,
        "bytes": start.total.bytes_in or start.total.bytes_kept,
        "kept": kept,
        "losses": [(count, predicate[count != 1]) for count, predicate in losses],
        "written": sum(row["documents_in"] for row in written),
        "written_kept": sum(row["kept"] for row in written),
        "bad": sum(stage.total.bad.total() for stage in stages),
    }


def libraries(stages: Sequence[ReportStage]) -> list[tuple[str, str]]:
    """Returns (name, version) of the libraries that any stage's result depends on."""
    return sorted(
        {
            (name, version)
            for stage in stages
            for name, version in stage.directory.manifest.get("code", {}).items()
            if not name.startswith("data_pipeline")
        }
    )

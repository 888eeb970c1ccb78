"""Rendering of the page.

The page loads nothing: styles, charts and a short script are inline. The template engine escapes
all texts. As a second defense, the page's content security policy allows only the page's own
script, which it identifies by a hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from data_pipeline.execution.manifest import Directory
from data_pipeline.execution.progress import human_bytes, human_time
from data_pipeline.report import (
    boilerplate,
    charts,
    contamination,
    drops,
    excerpts,
    flow,
    synthesis,
    tasks,
    topics,
)
from data_pipeline.report.flow import OTHER_COLOR, ReportStage
from data_pipeline.report.results import Results
from data_pipeline.storage.atomic import write_text


def write(
    path: Path,
    *,
    directories: Sequence[Directory],
    title: str,
    command: str,
    results: Results | None = None,
) -> Path:
    """Writes the page to `path` atomically and returns `path`.

    Args:
      path: the HTML file.
      directories: finished stages in pipeline order.
      title: the heading of the page.
      command: the command line that reproduces the run.
      results: the mixture, training and evaluation; None: only curation is shown.

    Raises:
      TruncatedShardError: a file of dropped documents is damaged; the message names it.
      ValueError: a JSON file is damaged; the message names it.
    """
    stages = ReportStage.all_of(directories)
    results = results or Results()
    colors = flow.colors(stages, results)
    html = (
        _environment(colors)
        .get_template("report.html.jinja")
        .render(
            title=title,
            command=command,
            stages=stages,
            colors=colors,
            seconds=sum(stage.seconds or 0 for stage in stages),
            summary=flow.summary(stages, colors, results),
            flows=flow.flows(stages, colors),
            by_source=flow.by_source(stages, colors, results),
            dropped=drops.reasons(stages, colors, "dropped"),
            bad=drops.reasons(stages, colors, "bad"),
            changes=drops.changes(stages, colors),
            boilerplate=boilerplate.repeated_lines(stages, colors),
            duplicates=drops.duplicates(stages, colors),
            contamination=contamination.contamination(stages),
            topics=topics.section(stages, colors),
            synthesis=synthesis.section(stages, colors),
            tasks=tasks.section(stages),
            libraries=flow.libraries(stages),
            results=results,
        )
    )
    write_text(path, html)
    return path


def _environment(colors: Mapping[str, str]) -> jinja2.Environment:
    """Returns the template engine with the filters of the templates."""
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
        short=charts.short,
        words=lambda name: excerpts.printable(str(name).replace("_", " ")),
        safe_text=lambda value: excerpts.printable(str(value)),
        color=lambda source: colors.get(source, OTHER_COLOR),
        json=lambda value: json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True),
        sha256_base64=_sha256_base64,
    )
    return environment


def _percent(share: float, digits: int = 1) -> str:
    """Returns a share in percent; a very small one has at least two decimal places.

    >>> _percent(0.5), _percent(0.00012), _percent(1.0)
    ('50.0%', '0.01%', '100%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{100 * share:.{digits if share >= 0.001 else max(2, digits)}f}%"


def _sha256_base64(script: str) -> str:
    """Returns the hash by which a content security policy identifies an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

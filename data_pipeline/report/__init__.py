"""One HTML page about a run: documents kept and dropped with examples, training and evaluation.

    report.write(
        workdir / "report.html",
        directories=data.directories,
        results=report.Results.read(
            mixture=data.mixture / "mixture.json",
            held_out=data.held_out / "mixture.json",
            training=run_dir,
            evaluation=run_dir,
        ),
        title="quickstart",
        command="python main.py --config=configs/quickstart.py",
    )

The page is made from files only: manifests, dropped documents, and the JSON files of training and
evaluation. A section without files is left out. Equal files give an equal page, byte for byte.

    flow.py           documents and bytes by stage and by source
    drops.py          drop reasons with examples, duplicates with their survivors
    contamination.py  matches by benchmark with evidence, recall on planted leaks
    boilerplate.py, topics.py, synthesis.py, tasks.py, teachers.py   one section each
    results.py        mixture, training, evaluation
    excerpts.py       selects examples and the part of a text to show
    charts.py         SVG charts
    page.py           renders report.html.jinja
"""

from data_pipeline.report.page import write
from data_pipeline.report.results import Results

__all__ = ["Results", "write"]

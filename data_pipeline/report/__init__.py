"""One HTML page: what came in, what went out, why, with examples; and what the model made of it.

report.write(
    workdir / "report.html", directories=curated.directories, mixture=curated.mixture,
    held_out=curated.held_out, training=workdir / "training", evaluation=workdir / "evaluation",
    title="quickstart", command="python main.py --config=configs/quickstart.py",
)

Everything is read from files: manifests, side files of dropped documents, and what training and
evaluation wrote. A section whose files are missing is left out. The same files give the same bytes.
"""

from data_pipeline.report.page import write

__all__ = ["write"]

"""One HTML page: what came in, what went out, why, with examples; and what the model made of it.

    report.write(
        workdir / "report.html",
        directories=data.directories,
        mixture=data.mixture / "mixture.json",
        held_out=data.held_out / "mixture.json",
        training=run_dir,
        evaluation=run_dir,
        title="quickstart",
        command="python main.py --config=configs/quickstart.py",
    )

Everything is read from files: manifests, side files of dropped documents, and what training and
evaluation wrote. A section whose files are missing is left out. The same files give the same bytes.

    way.py       documents and bytes by stage and by source
    losses.py    why documents went: reasons, duplicates, contamination
    results.py   mixture, training, evaluation
    page.py      puts them into report.html.jinja; excerpts.py and charts.py give texts and pictures
"""

from data_pipeline.report.page import write

__all__ = ["write"]

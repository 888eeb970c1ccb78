"""The whole pipeline on a folder of text of your own: curation, training, evaluation, report.

    python main.py --config=configs/corpora.py:DIR --workdir=runs/mine

DIR contains .jsonl, .json, .parquet, .txt, .md or .html files, plain, .gz or .zst. Each file or
folder in DIR is a source, unless the rows of a file name their own `source`. Further flags add
instruction data as tier D3 and benchmarks to decontaminate against (one folder per benchmark, with
files SPLIT.jsonl), and change the fields and files that are read:

    '--config.data.sources[1].path=TASKS' --config.data.decontamination.folder=BENCHMARKS
    "--config.data.sources[0].text_fields=('title', 'body')"
    "--config.data.sources[0].exclude=('drafts/*', '*.csv.gz')"
"""

from __future__ import annotations

from pathlib import Path

from configs import quickstart
from configs.experiment import Experiment
from data_pipeline.config import Source, Tier


def get_config(folder: str = "") -> Experiment:
    """Returns the experiment for a folder of text.

    Raises:
      ValueError: `folder` is not a folder.
    """
    if not folder or not Path(folder).is_dir():
        raise ValueError(f"configs/corpora.py:DIR needs a folder, got {folder or 'nothing'!r}")
    config = quickstart.get_config()
    config.data = quickstart.recipe()
    config.data.sources = [Source(path=folder), Source(path="", category="tasks", tier=Tier.D3)]
    config.data.mixtures = {"stage1": {"D1": 1.0}, "stage2": {"D1": 46.50, "D3": 39.87}}
    config.data.baking.sequence_length = 512
    return config

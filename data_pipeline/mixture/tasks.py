"""Defines SeqIO tasks and mixtures: one task per source, over TFRecord files of documents.

An example of a task is {"targets": int32 [n], "id": string []}: a document as BOS, its tokens, EOS.
Everything from the file to the ids is TensorFlow, because a Python function inside tf.data hangs
the process at exit and prevents iterator checkpoints. TensorFlow is imported on first use.

With SeqIO:

    from data_pipeline.mixture import tasks
    tasks.register("DIR")          # the folder of mixture.json
    seqio.get_mixture_or_task("hare_stage2").get_dataset({"targets": 2048}, "train")
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.execution.manifest import digest, file_sha256
from data_pipeline.execution.silence_stderr import silence_stderr
from data_pipeline.mixture.tokenizer import MixtureTokenizer


def define(directory: str | Path, prefix: str = "hare") -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (seqio.Task by source, seqio.Mixture by name) of a mixture directory.

    They are named PREFIX_SOURCE and PREFIX_MIXTURE; characters that SeqIO does not allow become
    "_". A mixture's rates are the weights of mixture.json. SeqIO applies them to examples, that is
    to documents; the packed records apply them to tokens. With a sequence length, a longer document
    becomes several examples, and none of it is lost.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file differs from mixture.json, or two names become equal.
    """
    directory = Path(directory).resolve()
    manifest = _read_manifest(directory)
    tokenizer = MixtureTokenizer(directory / manifest["tokenizer"]["file"])
    sources = {s["name"]: s["files"] for s in manifest["sources"] if s["files"]}
    _check_names(prefix, [*sources, *manifest["mixtures"]])
    seqio, _, _ = import_tensorflow()
    tasks = {
        name: task(
            _seqio_name(prefix, name),
            [directory / file["tfrecord"] for file in files],
            tokenizer,
        )
        for name, files in sources.items()
    }
    mixtures = {
        name: seqio.Mixture(
            _seqio_name(prefix, name), [(tasks[source], weight) for source, weight in rates.items()]
        )
        for name, rates in manifest["mixtures"].items()
    }
    return tasks, mixtures


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / "mixture.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a mixture directory")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    claimed = manifest.pop("fingerprint", None)
    if (got := digest(manifest)) != claimed:
        raise ValueError(f"{path} states fingerprint {claimed}, got {got}; bake the data again")
    tokenizer = directory / manifest["tokenizer"]["file"]
    if (got := file_sha256(tokenizer)) != manifest["tokenizer"]["sha256"]:
        raise ValueError(
            f"{tokenizer} has sha256 {got}, expected {manifest['tokenizer']['sha256']} from "
            f"{path}; bake the data again"
        )
    for source in manifest["sources"]:
        for file in source["files"]:
            tfrecord = directory / file["tfrecord"]  # its records carry checksums of their own
            if (size := tfrecord.stat().st_size) != file["tfrecord_bytes"]:
                raise ValueError(
                    f"{tfrecord} has {size} bytes, expected {file['tfrecord_bytes']} from {path}; "
                    "bake the data again"
                )
    return manifest


def _check_names(prefix: str, names: Sequence[str]) -> None:
    taken: dict[str, str] = {}
    for name in names:
        seqio_name = _seqio_name(prefix, name)
        if seqio_name in taken:
            raise ValueError(
                f"{taken[seqio_name]!r} and {name!r} would both be named {seqio_name!r} in SeqIO; "
                "rename one of them"
            )
        taken[seqio_name] = name


def register(directory: str | Path, prefix: str = "hare") -> list[str]:
    """Adds the tasks and mixtures of `define` to SeqIO's registries, and returns their names.

    Raises:
      ValueError: a name is registered already, or the directory holds no mixture, such as that of
        held-out documents; also as `define`.
    """
    tasks, mixtures = define(directory, prefix)
    if not mixtures:
        raise ValueError(
            f"{directory} defines no mixture, only the tasks {sorted(tasks)}: it holds held-out "
            "documents, or its recipe has no `mixtures`. Give the folder that the run printed as "
            '"mixture", or use `define`.'
        )
    seqio, _, _ = import_tensorflow()
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    for provider in (*tasks.values(), *mixtures.values()):
        if provider.name in known:
            raise ValueError(f"SeqIO already has {provider.name!r}; give another prefix")
    for provider in tasks.values():
        seqio.TaskRegistry.add_provider(provider.name, provider)
    for provider in mixtures.values():
        seqio.MixtureRegistry.add_provider(provider.name, provider)
    return [provider.name for provider in (*tasks.values(), *mixtures.values())]


def task(name: str, tfrecords: Sequence[Path], tokenizer: MixtureTokenizer) -> Any:
    """Returns a seqio.Task with the split "train" over TFRecords of documents.

    Args:
      name: the task's name in SeqIO.
      tfrecords: files of examples with the features "id" and "text".
      tokenizer: encodes the texts.
    """
    seqio, tf, _ = import_tensorflow()
    vocabulary = seqio.SentencePieceVocabulary(str(tokenizer.path))
    with silence_stderr():
        vocabulary.load_model()  # warns that the Mistral tokenizer has no padding id
    return seqio.Task(
        name,
        source=seqio.TFExampleDataSource(
            {"train": [glob.escape(str(path)) for path in tfrecords]},
            {key: tf.io.FixedLenFeature([], tf.string) for key in ("id", "text")},
        ),
        preprocessors=[_tokenize(tokenizer)],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
    )


def _tokenize(tokenizer: MixtureTokenizer) -> Callable[..., Any]:
    """Returns a SeqIO preprocessor {"id", "text"} -> {"targets", "id"}.

    Documents longer than the sequence length are cut into several examples.
    """
    _, tf, text = import_tensorflow()

    def tokenize(
        dataset: Any, output_features: Mapping[str, Any], sequence_length: Mapping[str, int] | None
    ) -> Any:
        # TensorFlow Text prints a greeting; built here, it does so before iteration begins.
        with silence_stderr():
            encode = text.SentencepieceTokenizer(model=tokenizer.model).tokenize
        ends = [tokenizer.bos_id], [tokenizer.eos_id][: output_features["targets"].add_eos]
        longest = (sequence_length or {}).get("targets")

        @tf.autograph.experimental.do_not_convert  # saves the time of finding nothing to convert
        def tokens(example: dict[str, Any]) -> dict[str, Any]:
            ids = tf.concat([ends[0], encode(example["text"]), ends[1]], axis=0)
            if longest is None:
                return {"targets": ids, "id": example["id"]}
            starts = tf.range(0, tf.size(ids), longest)
            lengths = tf.minimum(tf.size(ids) - starts, longest)
            return {
                "targets": tf.RaggedTensor.from_row_lengths(ids, lengths),
                "id": tf.repeat(example["id"], tf.size(starts)),
            }

        dataset = dataset.map(tokens, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset if longest is None else dataset.unbatch()

    return tokenize


def import_tensorflow() -> tuple[Any, Any, Any]:
    """Returns (seqio, tensorflow, tensorflow_text), imported silently and without GPU devices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with silence_stderr():
        import seqio
        import tensorflow
        import tensorflow_text

        with contextlib.suppress(RuntimeError):  # TensorFlow is initialized already
            tensorflow.config.set_visible_devices([], "GPU")
    return seqio, tensorflow, tensorflow_text


def _seqio_name(prefix: str, name: str) -> str:
    return re.sub(r"[^\w.:]", "_", f"{prefix}_{name}", flags=re.ASCII)

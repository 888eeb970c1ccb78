"""SeqIO tasks and mixtures: one task a source over TFRecord files of documents.

An example of a task is {"targets": int32 [n], "id": string []}: a document as BOS, its tokens, EOS.
All of it is TensorFlow, from the file to the ids: a Python function inside tf.data would hang the
process at exit and forbid iterator checkpoints. TensorFlow is imported on first use only.

For a SeqIO user:

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
    """(tasks by source, mixtures by name) of a baked directory, as seqio.Task and seqio.Mixture.

    They are named PREFIX_SOURCE and PREFIX_MIXTURE, with "_" for what SeqIO allows in no name. A
    mixture's rates are the weights of mixture.json; SeqIO draws examples by them, that is documents
    (the baked rows hold to them in tokens). With a sequence length, a longer document becomes
    several examples: none of it is lost.

    Raises FileNotFoundError where a file is missing; ValueError where one is not as mixture.json
    says, or where two names would be one.
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
        raise FileNotFoundError(f"{path}: no such file; expected a directory of baked data")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    claimed = manifest.pop("fingerprint", None)
    if (got := digest(manifest)) != claimed:
        raise ValueError(f"{path} has fingerprint {got}, but says {claimed}; bake the data again")
    tokenizer = directory / manifest["tokenizer"]["file"]
    if (got := file_sha256(tokenizer)) != manifest["tokenizer"]["sha256"]:
        raise ValueError(
            f"{tokenizer} has sha256 {got}, {path} says {manifest['tokenizer']['sha256']}; bake "
            "the data again"
        )
    for source in manifest["sources"]:
        for file in source["files"]:
            tfrecord = directory / file["tfrecord"]  # its records carry checksums of their own
            if (size := tfrecord.stat().st_size) != file["tfrecord_bytes"]:
                raise ValueError(
                    f"{tfrecord} has {size} bytes, {path} says {file['tfrecord_bytes']}; bake the "
                    "data again"
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
    """Adds all that `define` makes to SeqIO's registries, and returns the names.

    Raises ValueError where a name is registered already, and as `define`.
    """
    tasks, mixtures = define(directory, prefix)
    seqio, _, _ = import_tensorflow()
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    for provider in (*tasks.values(), *mixtures.values()):
        if provider.name in known:
            raise ValueError(f"SeqIO has a {provider.name!r} already; give another prefix")
    for provider in tasks.values():
        seqio.TaskRegistry.add_provider(provider.name, provider)
    for provider in mixtures.values():
        seqio.MixtureRegistry.add_provider(provider.name, provider)
    return [provider.name for provider in (*tasks.values(), *mixtures.values())]


def task(name: str, tfrecords: Sequence[Path], tokenizer: MixtureTokenizer) -> Any:
    """A seqio.Task with the split "train" over TFRecords of documents: "id", "text" and more."""
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
    """A SeqIO preprocessor: {"id", "text"} -> {"targets", "id"}, cut at the sequence length."""
    _, tf, text = import_tensorflow()

    def tokenize(
        dataset: Any, output_features: Mapping[str, Any], sequence_length: Mapping[str, int] | None
    ) -> Any:
        with (
            silence_stderr()
        ):  # it greets; the vocabulary's encode_tf would do so when it is iterated over
            encode = text.SentencepieceTokenizer(model=tokenizer.model).tokenize
        ends = [tokenizer.bos_id], [tokenizer.eos_id][: output_features["targets"].add_eos]
        longest = (sequence_length or {}).get("targets")

        @tf.autograph.experimental.do_not_convert  # there is nothing to convert, which takes time
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
    """(seqio, tensorflow, tensorflow_text), imported without a word and kept off the GPUs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with silence_stderr():
        import seqio
        import tensorflow
        import tensorflow_text

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already, as its user set it up
            tensorflow.config.set_visible_devices([], "GPU")
    return seqio, tensorflow, tensorflow_text


def _seqio_name(prefix: str, name: str) -> str:
    return re.sub(r"[^\w.:]", "_", f"{prefix}_{name}", flags=re.ASCII)

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
import functools
import glob
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.manifest import digest, file_sha256
from data_pipeline.mixture.tokenizer import WORD_PATTERN, Tokenizer
from data_pipeline.quiet import quiet

BATCH_BYTES = 1 << 22  # text that is tokenised at a time: its distinct words are encoded once
MAX_BATCH = 1024  # documents
WORD_END = b"\xff"  # no byte of UTF-8


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
    tokenizer = Tokenizer(directory / manifest["tokenizer"]["file"])
    sources = {s["name"]: s["files"] for s in manifest["sources"] if s["files"]}
    _check_names(prefix, [*sources, *manifest["mixtures"]])
    seqio, _, _ = import_tensorflow()
    tasks = {
        name: task(
            _seqio_name(prefix, name),
            [directory / file["tfrecord"] for file in files],
            tokenizer,
            documents=sum(file["documents"] for file in files),
            text_bytes=sum(file["text_bytes"] for file in files),
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


def task(
    name: str, tfrecords: Sequence[Path], tokenizer: Tokenizer, *, documents: int, text_bytes: int
) -> Any:
    """A seqio.Task with the split "train" over TFRecords of {"id", "text", "source", "category"}.

    `documents` and `text_bytes` (of all files) decide how many documents are tokenised at a time.
    """
    seqio, tf, _ = import_tensorflow()
    vocabulary = seqio.SentencePieceVocabulary(str(tokenizer.path))
    with quiet():
        vocabulary.load_model()  # warns that the Mistral tokenizer has no padding id
    batch = max(1, min(MAX_BATCH, BATCH_BYTES * documents // max(text_bytes, 1)))
    return seqio.Task(
        name,
        source=seqio.TFExampleDataSource(
            {"train": [glob.escape(str(path)) for path in tfrecords]},
            {key: tf.io.FixedLenFeature([], tf.string) for key in ("id", "text")},
        ),
        preprocessors=[_tokenize(tokenizer, batch)],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
    )


def _tokenize(tokenizer: Tokenizer, batch: int) -> Callable[..., Any]:
    """A SeqIO preprocessor: {"id", "text"} -> {"targets", "id"}, cut at the sequence length."""
    _, tf, _ = import_tensorflow()

    def tokenize(
        dataset: Any, output_features: Mapping[str, Any], sequence_length: Mapping[str, int] | None
    ) -> Any:
        feature = output_features["targets"]
        longest = (sequence_length or {}).get("targets")
        encode = _document_encoder(tokenizer, feature.add_eos)

        @tf.autograph.experimental.do_not_convert  # there is nothing to convert, which takes time
        def tokens(example: dict[str, Any]) -> dict[str, Any]:
            ids, name = encode(example["text"]), example["id"]
            if longest is not None:
                ids, name = cut(ids, name)
            return {"targets": ids, "id": name}

        def cut(ids: Any, name: Any) -> tuple[Any, Any]:
            lengths = ids.row_lengths()
            pieces = -(-lengths // longest)
            starts = tf.ragged.range(pieces).flat_values * longest
            lengths = tf.minimum(tf.repeat(lengths, pieces) - starts, longest)
            return tf.RaggedTensor.from_row_lengths(ids.flat_values, lengths), tf.repeat(
                name, pieces
            )

        return dataset.batch(batch).map(tokens, num_parallel_calls=tf.data.AUTOTUNE).unbatch()

    return tokenize


@functools.lru_cache(4)  # a worker bakes many parts; tracing this takes as long as 1 MB of text
def _document_encoder(tokenizer: Tokenizer, add_eos: bool) -> Callable[[Any], Any]:
    """Texts (string [N]) -> BOS, their ids and EOS (int32, ragged [N, None])."""
    _, tf, _ = import_tensorflow()
    encode = encoder(tokenizer)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def encode_documents(texts: Any) -> Any:
        ends = [tokenizer.bos_id], [tokenizer.eos_id][:add_eos]
        before, after = (tf.tile([end], [tf.size(texts), 1]) for end in ends)
        return tf.concat([before, encode(texts), after], axis=1)

    return encode_documents


def encoder(tokenizer: Tokenizer) -> Callable[[Any], Any]:
    """Texts (string [N]) -> ids (int32, ragged [N, None]), the same as `tokenizer.encode` gives.

    Where the vocabulary allows it, each distinct word is encoded once and looked up after that,
    which is 2.5 times as fast as SentencePiece on whole texts.
    """
    _, tf, text = import_tensorflow()
    by_words = tokenizer.splits_at_words
    model = tokenizer.model_without_prefix() if by_words else tokenizer.model
    with quiet():  # it greets
        encode_words = text.SentencepieceTokenizer(model=model).tokenize
    if not by_words:
        return encode_words

    def encode(texts: Any) -> Any:
        texts = tf.where(tf.equal(texts, ""), texts, tf.strings.join([" ", texts]))
        ended = tf.strings.regex_replace(texts, WORD_PATTERN, rb"\0" + WORD_END)
        words = tf.strings.split(ended, sep=WORD_END)
        distinct, which = tf.unique(words.flat_values)
        ids = tf.gather(encode_words(distinct), which)
        return words.with_flat_values(ids).merge_dims(1, 2)

    return encode


def import_tensorflow() -> tuple[Any, Any, Any]:
    """(seqio, tensorflow, tensorflow_text), imported without a word and kept off the GPUs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with quiet():
        import seqio
        import tensorflow
        import tensorflow_text

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already, as its user set it up
            tensorflow.config.set_visible_devices([], "GPU")
    return seqio, tensorflow, tensorflow_text


def _seqio_name(prefix: str, name: str) -> str:
    return re.sub(r"[^\w.:]", "_", f"{prefix}_{name}", flags=re.ASCII)

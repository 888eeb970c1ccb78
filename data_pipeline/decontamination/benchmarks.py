"""The benchmarks that are evaluated, and the texts of each benchmark row that must not leak.

    >>> LAYOUTS["winogrande"]({"sentence": "The hare beat the fox because _ was fast.",
    ...                        "option1": "the hare", "option2": "the fox"})["with_option1"]
    'The hare beat the fox because the hare was fast.'

An *item* is one row. Its *parts* are texts that may leak separately: a question without its
answer, an answer without its question. A *layout* is a function from a row to its parts. It accepts
the rows of the original files and those of the copies on the Hugging Face hub. Texts too short to
be recognized alone are repeated in a longer part: the question with its correct answer.

`DEFAULT_BENCHMARKS` lists the benchmarks that models are compared on. To add a benchmark, add an
entry to LAYOUTS, or configure a `Benchmark` with its field names:

    Benchmark("trivia", "data/trivia.jsonl.gz", parts=("question", "answer"))

No row is skipped: a file that cannot be read to its end, or a row without the fields, is an error.
Otherwise decontamination against half a benchmark would go unnoticed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.config import Benchmark
from data_pipeline.execution.manifest import file_sha256
from data_pipeline.storage.atomic import list_names
from data_pipeline.storage.compressed import read_chunks, split_lines
from data_pipeline.storage.object_store import storage_path

Row = dict[str, Any]
Parts = dict[str, str]

# The benchmarks that are evaluated by default (paper, Table 2, and ARC-E): name -> title.
DEFAULT_BENCHMARKS = {
    "mmlu": "MMLU",
    "arc_challenge": "ARC-C",
    "arc_easy": "ARC-E",
    "truthfulqa": "TruthfulQA",
    "winogrande": "Winogrande",
    "hellaswag": "HellaSwag",
    "gsm8k": "GSM8K",
}
PARAPHRASES = "paraphrases"  # subfolder of a known benchmark with paraphrased items


@dataclass(slots=True)
class BenchmarkItem:
    """One row of a benchmark, as the texts that must not leak.

    BenchmarkItem("gsm8k/test/17", "gsm8k", {"question": "Janet's ducks ...", "answer": "..."})
    """

    id: str
    benchmark: str
    parts: Parts
    absolute_hits: bool = True  # whether the absolute-hits rule applies


class MissingBenchmarkError(ValueError):
    """A benchmark whose path is neither a file nor a folder of files."""


def is_option(part: str) -> bool:
    """Returns whether a part is one option of a multiple-choice question.

    An option alone is often a common phrase.
    """
    return part.startswith(("choice", "ending"))


# Parts that contain an item from its beginning to its end, in the order of preference.
WHOLE_ITEM_PARTS = (
    "question_answer",
    "context_ending",
    "context_answer",
    "context_question",
    "with_option1",
    "with_option2",
)


def is_whole(part: str) -> bool:
    """Returns whether a part is a whole item: the question with its answer."""
    return part in WHOLE_ITEM_PARTS


def read_items(benchmark: Benchmark) -> Iterator[BenchmarkItem]:
    """Yields the items of all splits; their ids are name/split/row, rows counted from 0.

    Raises ValueError for a benchmark that is unknown, missing, empty, damaged, or without the
    expected fields.
    """
    layout = _layout(benchmark)
    for path in files(benchmark):
        yield from _read_file(benchmark, path, layout)


def check_files(benchmark: Benchmark) -> None:
    """Reads the first row of each file, paraphrases included.

    Raises MissingBenchmarkError if there is no file, and ValueError for a benchmark that is
    unknown, whose paraphrases are missing, or with a first row that is not an item.
    """
    layout = _layout(benchmark)
    for path in files(benchmark):
        next(_read_file(benchmark, path, layout), None)
    for path in map(storage_path, benchmark.paraphrases):
        if not path.is_file():
            raise ValueError(f"benchmark {benchmark.name!r}, paraphrases: {path} is not a file")
        next(_read_file(benchmark, path, _paraphrase_layout(layout)), None)


def read_paraphrases(benchmark: Benchmark) -> Iterator[BenchmarkItem]:
    """Yields the paraphrased items in the files `benchmark.paraphrases`.

    A row is of the benchmark's own shape, or has the paraphrase in a field "rewritten_NAME" beside
    each NAME, as in the files of BenBench. Raises as `read_items`.
    """
    layout = _paraphrase_layout(_layout(benchmark))
    for path in map(storage_path, benchmark.paraphrases):
        yield from _read_file(benchmark, path, layout)


def _paraphrase_layout(layout: Callable[[Row], Parts]) -> Callable[[Row], Parts]:
    """Returns the layout of a row whose field "rewritten_NAME" is a paraphrase of NAME."""

    def parts(row: Row) -> Parts:
        return layout({name: row.get(f"rewritten_{name}", value) for name, value in row.items()})

    return parts


def _read_file(
    benchmark: Benchmark, path: Path, layout: Callable[[Row], Parts]
) -> Iterator[BenchmarkItem]:
    """Yields the items of one file; raises as `read_items`."""
    split = path.name.split(".")[0]
    row_number = -1
    for row_number, row in enumerate(_rows(path)):
        try:
            parts = layout(row)
            if not any(parts.values()):
                raise ValueError("all parts are empty")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path}, row {row_number}: not an item of {benchmark.name!r} "
                f"({type(error).__name__}: {error}). Got the fields {sorted(row)}; to name the "
                f"fields to index, set Benchmark({benchmark.name!r}, path, parts=(...))."
            ) from error
        name = f"{benchmark.name}/{split}/{row_number}"
        yield BenchmarkItem(name, benchmark.name, parts, benchmark.absolute_hits)
    if row_number < 0 and benchmark.name not in OWN_BENCHMARKS:
        raise ValueError(f"{path} has no rows; expected at least one item of {benchmark.name!r}")


def files(benchmark: Benchmark) -> list[Path]:
    """Returns the files of a benchmark, by name; raises MissingBenchmarkError if there are none."""
    path = storage_path(benchmark.path)
    if path.is_file():
        return [path]
    splits = sorted(path / name for name in list_names(path) if name.endswith(_SUFFIXES))
    if not splits:
        raise MissingBenchmarkError(
            f"benchmark {benchmark.name!r}: {path} is neither a file nor a folder of "
            f"SPLIT{{{','.join(_SUFFIXES)}}}"
        )
    return splits


def find_benchmarks(folder: str) -> list[Benchmark]:
    """Returns the known benchmarks that have a subfolder or a file of their name in `folder`.

    Files in the subfolder `paraphrases` of a benchmark's subfolder are its paraphrases.

    Returns an empty list for "". Raises ValueError for a folder without any known benchmark.
    """
    if not folder:
        return []
    benchmarks = []
    for name in LAYOUTS:
        paths = [storage_path(folder) / (name + suffix) for suffix in ("", *_SUFFIXES)]
        benchmarks += [
            Benchmark(name, str(path), paraphrases=_paraphrase_files(path))
            for path in paths
            if path.exists()
        ][:1]
    if not benchmarks:
        raise ValueError(
            f"no benchmark in {folder}; expected subfolders or files named "
            f"{', '.join(name for name in LAYOUTS if name not in OWN_BENCHMARKS)}"
        )
    return benchmarks


def _paraphrase_files(path: Path) -> tuple[str, ...]:
    """Returns the paraphrase files of the benchmark in a folder, by name."""
    folder = path / PARAPHRASES
    names = list_names(folder) if folder.is_dir() else ()
    return tuple(str(folder / name) for name in sorted(names) if name.endswith(_SUFFIXES))


def unprotected(protected: Sequence[Benchmark]) -> list[str]:
    """Returns the titles of the default benchmarks that are not among `protected`."""
    names = {benchmark.name for benchmark in protected}
    return [title for name, title in DEFAULT_BENCHMARKS.items() if name not in names]


def fingerprint(benchmark: Benchmark) -> list[str]:
    """Returns the name and sha256 of each file, paraphrases included.

    ["test.jsonl.gz 9f3c...", ...]
    """
    paths = [*files(benchmark), *map(storage_path, benchmark.paraphrases)]
    return [f"{path.name} {file_sha256(path)}" for path in paths]


# Benchmarks that this pipeline makes itself. Their files are verified by their manifests, and may
# have no rows, since a run may hold out nothing.
HELD_OUT_ITEMS, HELD_OUT_DOCUMENTS = "held_out_items", "held_out_documents"
OWN_BENCHMARKS = (HELD_OUT_ITEMS, HELD_OUT_DOCUMENTS)

_BATCH_ROWS = 1024  # of a Parquet file, read at a time
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def _rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet or JSON Lines file; raises ValueError for a damaged one."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        try:
            with path.open("rb") as file:
                for batch in parquet.ParquetFile(file).iter_batches(_BATCH_ROWS):
                    yield from batch.to_pylist()
        except OSError as error:  # ArrowInvalid is a ValueError with a clear message
            raise ValueError(f"{path} cannot be read to its end: {error}") from error
        return
    for line_number, (_, line, _) in enumerate(split_lines(read_chunks(path)), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {line_number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {line_number}: expected an object, got {row!r:.60}")
        yield row


def _layout(benchmark: Benchmark) -> Callable[[Row], Parts]:
    """Returns the layout of a benchmark; raises ValueError for an unknown one without `parts`."""
    if benchmark.parts:
        return lambda row: _fields(row, benchmark.parts)
    if benchmark.name in LAYOUTS:
        return LAYOUTS[benchmark.name]
    close = difflib.get_close_matches(benchmark.name, LAYOUTS, n=3)
    raise ValueError(
        f"unknown benchmark {benchmark.name!r}: known are {', '.join(LAYOUTS)}"
        + (f" (did you mean {' or '.join(close)}?)" if close else "")
        + "; for any other, name the fields to index: Benchmark(name, path, parts=(...))"
    )


# ---- Layouts: a row -> its parts, in the order of the text; the first one is the question.


def _fields(row: Row, names: Sequence[str]) -> Parts:
    """Returns each named field as a part; a list of texts becomes name_0, name_1 ..."""
    parts: Parts = {}
    for name in names:
        value = row[name]
        if isinstance(value, list):
            parts |= {f"{name}_{k}": _text(v) for k, v in enumerate(value)}
        else:
            parts[name] = _text(value)
    return parts


def _text(value: Any) -> str:
    """Returns the value; raises TypeError if it is not a text."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.60}")
    return value


def _multiple_choice(question: str, choices: Sequence[str], answer: int) -> Parts:
    """Returns the question, the choices, and the question with its correct answer.

    `answer` is the index of the correct choice, negative if it is not published.
    """
    parts = {"question": _text(question)}
    parts |= {f"choice_{k}": _text(choice) for k, choice in enumerate(choices)}
    if answer >= 0:
        parts["question_answer"] = f"{question} {choices[answer]}"
    return parts


def _gsm8k(row: Row) -> Parts:
    """Returns the parts of a GSM8K row, the answer with and without its calculator annotations.

    An annotated answer reads "5 + 4 = <<5+4=9>>9". It may leak in either form.
    """
    solution = row["answer"].split("####")[0]
    plain = re.sub(r"<<.*?>>", "", solution)
    parts = {"question": _text(row["question"]), "answer": plain}
    return parts if plain == solution else {**parts, "annotated_answer": solution}


def _math(row: Row) -> Parts:
    """Returns the problem and its solution."""
    return {"question": _text(row["problem"]), "answer": _text(row["solution"])}


def _mmlu(row: Row) -> Parts:
    """Returns the parts of an MMLU row."""
    answer = row["answer"]  # a letter in the original files, a number on the hub
    index = "ABCD".index(answer) if isinstance(answer, str) else answer
    return _multiple_choice(row["question"], row["choices"], index)


def _arc(row: Row) -> Parts:
    """Returns the parts of a row of ARC, OpenBookQA or CommonsenseQA.

    Original files have {"question": {"stem", "choices": [{"text", "label"}]}}, the hub has
    {"question" or "question_stem", "choices": {"text": [...], "label": [...]}}.
    """
    question = row["question"] if "question" in row else row["question_stem"]
    if isinstance(question, dict):
        texts = [choice["text"] for choice in question["choices"]]
        labels = [choice["label"] for choice in question["choices"]]
        question = question["stem"]
    else:
        texts, labels = row["choices"]["text"], row["choices"]["label"]
    key = row.get("answerKey") or ""
    return _multiple_choice(question, texts, labels.index(key) if key else -1)


def _truthfulqa(row: Row) -> Parts:
    """Returns the parts of a TruthfulQA row.

    Accepts rows of the CSV file, of the hub's generation and multiple_choice, and of mc_task.json.
    """
    if "Question" in row:
        question, best = row["Question"], row["Best Answer"]
        answers = [*row["Correct Answers"].split("; "), *row["Incorrect Answers"].split("; ")]
    elif "mc1_targets" in row:
        question, answers = row["question"], []
        for name in ("mc1_targets", "mc2_targets"):
            targets = row[name]
            answers += targets["choices"] if "choices" in targets else list(targets)
        best = answers[0]  # the first answer of mc1 is the correct one
    else:
        question, best = row["question"], row["best_answer"]
        answers = [*row["correct_answers"], *row["incorrect_answers"]]
    return _multiple_choice(question, list(dict.fromkeys([best, *answers])), 0)


def _winogrande(row: Row) -> Parts:
    """Returns the sentence with either option in its blank."""
    before, blank, after = _text(row["sentence"]).partition("_")
    if not blank:
        raise ValueError("the sentence has no blank '_'")
    return {f"with_{name}": before + row[name] + after for name in ("option1", "option2")}


def _hellaswag(row: Row) -> Parts:
    """Returns the parts of a HellaSwag row.

    WikiHow contexts have marks such as "[header]" and "[step]". They are removed, as
    lm-evaluation-harness does.
    """
    context = _text(row["ctx"] if "ctx" in row else row["query"])
    endings = row["endings"] if "endings" in row else row["choices"]
    label = row["label"] if "label" in row else row.get("gold", "")
    context, *endings = (re.sub(r"\[.*?\]", " ", text) for text in (context, *endings))
    parts = {"context": context} | {f"ending_{k}": text for k, text in enumerate(endings)}
    if label != "":
        parts["context_ending"] = f"{context} {endings[int(label)]}"
    return parts


def _boolq(row: Row) -> Parts:
    """Returns the question and its passage."""
    return _fields(row, ("question", "passage"))


def _humaneval(row: Row) -> Parts:
    """Returns the prompt and the canonical solution."""
    return {"prompt": _text(row["prompt"]), "solution": _text(row["canonical_solution"])}


def _bbh(row: Row) -> Parts:
    """Returns the question, alone and with its answer."""
    return {"question": _text(row["input"]), "question_answer": f"{row['input']} {row['target']}"}


def _socialiqa(row: Row) -> Parts:
    """Returns the context, alone and with the question, and the choices."""
    context_question = f"{_text(row['context'])} {_text(row['question'])}"
    answers = [_text(row[f"answer{letter}"]) for letter in "ABC"]
    parts = {"context": row["context"], "context_question": context_question}
    return parts | {f"choice_{k}": answer for k, answer in enumerate(answers)}


def _held_out_items(row: Row) -> Parts:
    """Returns the parts of an item made from a held-out document.

    Its row is {"context", "choices", "answer": index}.
    """
    context = _text(row["context"])
    return {"context": context, "context_answer": context + _text(row["choices"][row["answer"]])}


def _held_out_documents(row: Row) -> Parts:
    """Returns the text of a held-out document."""
    return {"document": _text(row["text"])}


LAYOUTS: dict[str, Callable[[Row], Parts]] = {
    "gsm8k": _gsm8k,
    "mmlu": _mmlu,
    "arc_challenge": _arc,
    "arc_easy": _arc,
    "truthfulqa": _truthfulqa,
    "winogrande": _winogrande,
    "hellaswag": _hellaswag,
    "openbookqa": _arc,
    "commonsenseqa": _arc,
    "boolq": _boolq,
    "humaneval": _humaneval,
    "math": _math,
    "bbh": _bbh,
    "socialiqa": _socialiqa,
    HELD_OUT_ITEMS: _held_out_items,
    HELD_OUT_DOCUMENTS: _held_out_documents,
}
